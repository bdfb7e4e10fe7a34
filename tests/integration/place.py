"""A driver that tells where work was done: python place.py ADDRESS FOLDER '{"pools": {...}}'

PYTHONPATH leads to the engine. `pools`, `alone`: settings of Execution by name, of pools and of
single pieces of work; `count`: pieces of each pool.
"""

import json
import logging
import sys
import time
from pathlib import Path

import ray

from engine.artifacts.files import read_json, write_json
from engine.config import Execution, RayConfig
from engine.runtime.executor import Partition, PartitionWorker
from engine.runtime.ray_cluster import connected


def where():
    """The node of this process, and what kind it is."""
    name = ray.get_runtime_context().get_node_id()
    (found,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == name)
    return name, "gpu" if "GPU" in found else "cpu" if "cpu_node" in found else "head"


class Place(PartitionWorker):
    """Takes its time, and writes down where it is."""

    def write(self, payload, path):
        time.sleep(payload["seconds"])
        write_json(path, where())
        return 1, {}


def places(executor, root, name, settings, count, seconds):
    work = [Partition(f"{name}/{i}.json", 1, {"seconds": seconds}) for i in range(count)]
    execution = Execution(**settings)
    parts = executor.map(work, root, Place, {}, label=name, unit="parts", execution=execution)
    return [read_json(root / part.path) for part in parts]


def cpu_nodes():
    return int(ray.cluster_resources().get("cpu_node", 0))


def connect(address):
    deadline = time.monotonic() + 90
    while True:
        try:
            return ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def main():
    address, root, asked = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    connect(address)
    told = {"cpu_nodes_before": cpu_nodes()}
    count, seconds = asked.get("count", 12), 1.0 if "count" in asked else 0.2
    with connected(RayConfig(cpu_resource="cpu_node")) as executor:
        pools = {n: places(executor, root, n, s, count, seconds) for n, s in asked["pools"].items()}
        alone = {n: places(executor, root, n, s, 1, 0) for n, s in asked.get("alone", {}).items()}
        told["tasks"] = sorted({executor.call(where)[1] for _ in range(6)})
    told["pools"] = {name: sorted({kind for _, kind in found}) for name, found in pools.items()}
    told["alone"] = {name: sorted({kind for _, kind in found}) for name, found in alone.items()}
    told["nodes"] = {name: sorted({node for node, _ in found}) for name, found in pools.items()}
    told["cpu_nodes_after"] = cpu_nodes()
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
