"""Several Ray nodes on this machine: who works where, disks of their own, nodes that come."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from tests import buckets

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
STORE = 150 * 2**20


@contextmanager
def cluster(*nodes, **env):
    """A head of one CPU, and nodes as given to `Cluster.add_node`; workers see the environment."""
    from ray.cluster_utils import Cluster

    told = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **env}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for node in nodes:
            made.add_node(object_store_memory=STORE, **node)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def node_with_its_own_disk(made, folder):
    """A node of two CPUs for which `folder` is another, empty disk."""
    start = [str(BIN / "ray"), "start", f"--address={made.address}", "--block", "--num-cpus=2"]
    start += [f"--object-store-memory={STORE}", "--disable-usage-stats"]
    inner = f"mount -t tmpfs tmpfs {folder} && exec {' '.join(start)}"
    command = ["unshare", "--mount", "sh", "-c", inner]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while len(made.global_state.node_table()) < 2:
            assert node.poll() is None and time.monotonic() < deadline, "the node did not come up"
            time.sleep(0.5)
        yield
    finally:
        node.terminate()
        node.wait(60)


def can_have_disks():
    tried = subprocess.run(
        ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True
    )
    return tried.returncode == 0


own_disks = pytest.mark.skipif(not can_have_disks(), reason="no disk can be mounted here")


def drive(address, config, run_dir, env=()):
    driver = str(ROOT / "tests/integration/drive.py")
    return subprocess.run(
        [sys.executable, driver, "--config", str(config), "--run-dir", str(run_dir)],
        env={**os.environ, "DRIVE_ADDRESS": address, **dict(env)},
        capture_output=True,
        text=True,
    )


# --- who does what where -------------------------------------------------------------------------


def place(address, folder, **asked):
    """What `place.py` prints: where work of ours was done."""
    command = [sys.executable, str(ROOT / "tests/integration/place.py"), address, str(folder)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [*command, json.dumps(asked)], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_work_without_a_gpu_keeps_off_gpu_nodes(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")  # hidden from the others; here one is made up
    gpu, cpu = {"num_cpus": 4, "num_gpus": 1}, {"num_cpus": 2, "resources": {"cpu_node": 1}}
    with cluster(gpu, cpu) as made:
        told = place(
            made.address,
            tmp_path,
            pools={"cpu": {"max_actors": 2}, "half": {"num_gpus": 0.5}},
            alone={"gpu": {"num_gpus": 1}},
        )
    assert told["pools"] == {"cpu": ["cpu"], "half": ["gpu"]}
    assert told["alone"] == {"gpu": ["gpu"]} and told["tasks"] == ["cpu"]


# --- disks ---------------------------------------------------------------------------------------


@own_disks
def test_a_run_directory_that_a_node_does_not_see(small_job, tmp_path):
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(small_job))
    private = tmp_path / "private"
    private.mkdir()
    with cluster() as made, node_with_its_own_disk(made, private):
        started = time.monotonic()
        done = drive(made.address, config, private / "run")
        assert done.returncode == 2, done.stderr[-3000:]
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "of the cluster does not see" in said[0] and str(private / "run") in said[0]
        assert "on a path that all nodes mount, or on object storage" in said[0]
        assert time.monotonic() - started < 60
    assert not (private / "run").exists(), "nothing was begun"


@own_disks
@pytest.mark.slow
def test_nodes_that_share_nothing_but_a_bucket(small_job, tmp_path):
    """Corpus, models and run in object storage; every node has a cache of its own."""
    whole, cache, log = tmp_path / "whole", tmp_path / "cache", tmp_path / "work"
    cache.mkdir()
    log.mkdir()
    config = tmp_path / "job.yaml"
    config.write_text(yaml.safe_dump(small_job))
    here = {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    done = drive("local", config, whole, here)
    assert done.returncode == 0, done.stderr[-3000:]
    with buckets.bucket(tmp_path / "server.log") as settings:
        url = settings["AWS_ENDPOINT_URL"]
        for name in ("encoder", "lm"):
            folder = Path(small_job["corpus"]["path"]).parent / name
            for file in folder.rglob("*"):
                if file.is_file():
                    buckets.put(url, f"{name}/{file.relative_to(folder)}", file.read_bytes())
        remote = json.loads(json.dumps(small_job))
        for side in ("corpus", "target"):
            path = Path(remote[side]["path"])
            buckets.put(url, f"rows/{path.name}", path.read_bytes())
            remote[side]["path"] = f"s3://bucket/rows/{path.name}"
        remote["embedding"]["model"]["path"] = "s3://bucket/encoder"
        remote["teacher"]["model"]["path"] = "s3://bucket/lm"
        config.write_text(yaml.safe_dump(remote))
        env = {**settings, "NN_CIFT_CACHE": str(cache), "WORK_LOG": str(log), "SLOW_S": "0.3"}
        with cluster(**env) as made, node_with_its_own_disk(made, cache):
            done = drive(made.address, config, "s3://bucket/run", env)
            assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout.splitlines()[-1]) == {"run_dir": "s3://bucket/run"}
        names = [name for name in buckets.names_in(url, "run") if not name.endswith(".json")]
        for name in ("7-selection/subset.jsonl", "7-selection/subset.parquet"):
            assert buckets.read(url, f"run/{name}") == (whole / name).read_bytes(), name
        for name in ("4-teacher/labels.parquet", "6-influence/mean_influence.npy"):
            assert buckets.read(url, f"run/{name}") == (whole / name).read_bytes(), name
        shown = [buckets.read(url, name) for name in buckets.names_in(url)]
    assert not [n for n in names if Path(n).name.startswith(".")], "a temporary file was left"
    shown += [done.stderr.encode(), done.stdout.encode()]
    for secret in (buckets.KEY_ID, buckets.SECRET):
        assert not any(secret.encode() in text for text in shown), "a secret was written down"
    mounts = {file.read_text() for file in log.iterdir()}
    assert len(mounts) >= 2, "only one process worked"


# --- nodes that come when there is work ----------------------------------------------------------

PORT, CLIENT = 26380, 21002
EMPTY = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands"),
    *("setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)


@contextmanager
def autoscaling(folder):
    """A head that does no work of ours, and up to two nodes that Ray's fake provider starts."""
    import ray

    address = f"{ray._private.services.get_node_ip_address()}:{PORT}"
    settings = {
        "cluster_name": "fake",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        # else it starts one node where two are asked for, and forgets the other
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "launch_multiple": True,
        },
        "auth": {},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1, "cpu_node": 1, "object_store_memory": STORE},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        "file_mounts_sync_continuously": False,
        "no_restart": False,
        "docker": {},
        "file_mounts": {},
        **{name: [] for name in EMPTY},
    }
    path = folder / "autoscaling.json"
    path.write_text(json.dumps(settings))
    env = {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryDirectory(prefix="ray") as session:
        head = subprocess.Popen(
            [
                *(str(BIN / "ray"), "start", "--head", "--block", f"--port={PORT}"),
                *("--num-cpus=1", f"--object-store-memory={STORE}", "--include-dashboard=false"),
                *(f"--ray-client-server-port={CLIENT}", f"--autoscaling-config={path}"),
                *(f"--temp-dir={session}", "--disable-usage-stats"),
            ],
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"127.0.0.1:{PORT}"
        finally:
            orphans = [p for p in psutil.process_iter() if _is_of(p, session)]
            head.send_signal(signal.SIGTERM)
            head.wait(60)
            for process in orphans:  # the fake provider leaves its nodes behind
                if process.is_running():
                    process.kill()


def _is_of(process, session):
    try:
        children = [process, *process.parents()]
        return any(session in word for p in children for word in p.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
def test_a_pool_grows_with_the_cluster(tmp_path):
    """No node that could do the work is there at first; two come, and do it."""
    with autoscaling(tmp_path) as address:
        told = place(address, tmp_path, pools={"grow": {"max_actors": 2}}, count=60)
    assert (told["cpu_nodes_before"], told["cpu_nodes_after"]) == (0, 2)
    assert len(told["nodes"]["grow"]) == 2
