"""The cluster files, as far as Ray can check them without a cloud, and what a job uploads."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from engine.planning.machines import read_cluster

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = ("cluster.yaml", "cluster-gcp.yaml")


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def check(values):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(values))


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_launcher_takes_the_file(name):
    check(read(name))
    with pytest.raises(Exception, match="idle_timeout"):
        check({**read(name), "idle_timeout": 5})


@pytest.mark.parametrize("name", LAUNCHER)
def test_workers_come_from_zero_and_the_head_does_no_work(name):
    values = read(name)
    types = values["available_node_types"]
    assert types[values["head_node_type"]]["resources"] == {"CPU": 0}
    workers = [node for key, node in types.items() if key != values["head_node_type"]]
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in workers)
    assert "min_workers" not in values  # Ray accepts it and ignores it
    assert sum(node["max_workers"] for node in workers) <= values["max_workers"]
    machines = read_cluster(ROOT / name)
    assert (machines.cpus, machines.gpus) == (4 * 16 + 8 * 8, 8)


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_dashboard_stays_at_home_and_asks_for_a_token(name):
    values = read(name)
    starts = [*values["head_start_ray_commands"], *values["worker_start_ray_commands"]]
    starts = [command for command in starts if "ray start" in command]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token ray start" in c for c in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


@pytest.mark.parametrize("name", LAUNCHER)
def test_ray_is_the_version_of_the_lock(name):
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    (version,) = (line.partition("==")[2] for line in lock if line.startswith("ray=="))
    values = read(name)
    images = [values["docker"]["image"]]
    images += [node["docker"]["worker_image"] for node in values["available_node_types"].values()
               if "docker" in node]  # fmt: skip
    assert all(f":{version}-" in image for image in images)
    assert read("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == version


def test_the_job_on_kubernetes_has_what_a_ray_job_needs():
    job = read("rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"} and spec["enableInTreeAutoscaling"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    program = job["spec"]["entrypoint"].split()
    assert all((ROOT / word).is_file() for word in program if word.startswith("jobs/"))


def test_what_a_submitted_job_uploads(tmp_path):
    """Ray's own packaging of a checkout that has been worked in."""
    from ray._private.runtime_env.packaging import create_package

    tree = tmp_path / "tree"
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in files:
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    for name in (".git/objects/pack/x", ".venv/lib/x", "runs/demo/1-corpus/x", ".mypy_cache/x"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(bytes(1000))
    package = tmp_path / "package.zip"
    create_package(str(tree), package, include_gitignore=True)
    names = set(zipfile.ZipFile(package).namelist())
    assert not {n for n in names if n.startswith((".git/", ".venv/", "runs/", ".mypy_cache/"))}
    needed = [n for n in files if n.startswith(("engine/", "jobs/", "demo/"))]
    assert len(needed) > 100 and set(needed) <= names
    assert package.stat().st_size < 10 * 2**20
