"""What becomes of a job when its workers, nodes, driver, disk, bucket, model or rows fail.

Whatever happens, the job finishes, or stops with one sentence and its rerun finishes; no row is
lost or doubled, a worker repeats at most the piece that it was at, and the subset is the same bytes
as that of an undisturbed run. `make test-faults` runs all of it, a quarter of an hour on two cores,
and prints the table; processes are killed at random moments, whose seed stands above the table.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from engine.artifacts.files import read_json
from tests import buckets

pytestmark = pytest.mark.faults

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("FAULTS_SEED", random.randrange(10**6)))
TABLE = []


@pytest.fixture(scope="module", autouse=True)
def table():
    """Print what was tried and what came of it."""
    yield
    columns = ("fault", "times", "rows_lost", "rows_doubled", "repeated", "same_bytes", "ended")
    lines = [f"\n\nseed {SEED}", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(str(row[name]) for name in columns)} |" for row in TABLE]
    sys.stdout.write("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def faulty(small_job, tmp_path_factory):
    """The config of all runs, and the folder of the undisturbed one."""
    folder = tmp_path_factory.mktemp("faults")
    config = folder / "job.yaml"
    config.write_text(yaml.safe_dump(small_job))
    whole = folder / "whole"
    assert drive(config, whole).returncode == 0
    return config, whole


def environment(address=None, **more):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled", **more}
    env.pop("RAY_ADDRESS", None)
    return {**env, "DRIVE_ADDRESS": address} if address else env


def command(config, run_dir, *more):
    driver = str(ROOT / "tests/integration/drive.py")
    return [sys.executable, driver, "--config", str(config), "--run-dir", str(run_dir), *more]


def drive(config, run_dir, *more, env=None):
    return subprocess.run(
        command(config, run_dir, *more), env=env or environment(), capture_output=True, text=True
    )


def began(config, run_dir, *more, env=None):
    with open(f"{run_dir}.log", "a") as log:
        return subprocess.Popen(command(config, run_dir, *more), env=env, stdout=log, stderr=log)


def finish(config, run_dir, *more, env=None):
    done = drive(config, run_dir, *more, env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def one_sentence(done):
    assert done.returncode == 2, done.stderr[-3000:]
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
    return said[0]


# --- what is compared ----------------------------------------------------------------------------

SAME = (
    "2-embeddings/candidates/*.npy",
    "4-teacher/labels.parquet",
    "6-influence/mean_influence.npy",
    "7-selection/subset.parquet",
    "7-selection/explanations.parquet",
)


def same_bytes(whole, run_dir):
    for pattern in SAME:
        one, other = (sorted(folder.glob(pattern)) for folder in (whole, run_dir))
        assert [p.name for p in one] == [p.name for p in other] != []
        for a, b in zip(one, other, strict=True):
            assert a.read_bytes() == b.read_bytes(), a.relative_to(whole)
    return "yes"


def lost_and_doubled(whole, run_dir):
    """Answers of the teacher that are missing, and that are there twice."""
    keys = ["candidate_key", "target_key"]
    files = run_dir.glob("4-teacher/store/*/pairs/*.parquet")
    tables = [pq.read_table(file, columns=keys) for file in files]
    found = Counter(map(tuple, (row.values() for row in pa.concat_tables(tables).to_pylist())))
    wanted = pq.read_table(whole / "4-teacher/labels.parquet")
    there = pq.read_table(run_dir / "4-teacher/labels.parquet")
    return len(wanted) - len(there), sum(found.values()) - len(found)


def record(fault, times, whole, run_dir, log=None, ended="finished"):
    lost, doubled = lost_and_doubled(whole, run_dir)
    begun = Counter(path.name.rsplit(".", 1)[0] for path in log.iterdir()) if log else Counter()
    repeated = sum(begun.values()) - len(begun)
    TABLE.append(
        {
            "fault": fault,
            "times": times,
            "rows_lost": lost,
            "rows_doubled": doubled,
            "repeated": f"{repeated} of {len(begun)} pieces" if log else "",
            "same_bytes": same_bytes(whole, run_dir),
            "ended": ended,
        }
    )
    assert (lost, doubled) == (0, 0)
    return repeated


# --- a cluster of three nodes on this machine ----------------------------------------------------


@contextmanager
def nodes(log, count=2, **env):
    """A head without CPUs and some nodes of two; the environment of their workers is given."""
    from ray.cluster_utils import Cluster

    told = {"PYTHONPATH": str(ROOT), "WORK_LOG": str(log), "RAY_AUTH_MODE": "disabled", **env}
    log.mkdir()
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    store = 150 * 2**20
    head = {"num_cpus": 1, "object_store_memory": store, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        workers = [cluster.add_node(num_cpus=2, object_store_memory=store) for _ in range(count)]
        cluster.wait_for_nodes()
        yield cluster, workers
    finally:
        cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# what Ray calls a worker process that is at our work: an actor of a pool, a task, a training
AT_WORK = ("_PoolActor", "_with_threads", "_do_alone", "RayTrainWorker", "TrainController")


def busy_workers(cluster):
    """Processes of the cluster that are doing our work."""
    raylets = {
        process.process.pid
        for node in cluster.list_all_nodes()
        for process in node.all_processes.get("raylet", [])
    }
    found = []
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        title = " ".join(process.info["cmdline"] or [])
        is_ours = title.startswith("ray::") and any(name in title for name in AT_WORK)
        if process.info["ppid"] in raylets and is_ours:
            found.append(process)
    return found


def kill_at_random(cluster, job, times, rest_s=(1.0, 5.0)):
    """SIGKILL a random busy worker at random moments until the job ends; returns the titles."""
    chooser, killed = random.Random(SEED), []
    while job.poll() is None and len(killed) < times:
        time.sleep(chooser.uniform(*rest_s))
        victims = busy_workers(cluster)
        if victims:
            victim = chooser.choice(victims)
            try:
                title = victim.cmdline()[0]
                victim.kill()
                killed.append(title)
            except psutil.Error:
                continue
    return killed


def wait_for(condition, job, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert job.poll() is None and time.monotonic() < deadline, "the job never came that far"
        time.sleep(0.1)


def test_workers_killed_at_random_moments(faulty, tmp_path):
    config, whole = faulty
    log, run_dir = tmp_path / "work", tmp_path / "run"
    with nodes(log, SLOW_S="0.4") as (cluster, _):
        env = environment(cluster.address)
        job = began(config, run_dir, env=env)
        killed = kill_at_random(cluster, job, 15)
        reruns = 0
        while job.wait() != 0:  # a killed coordinator ends a job with a sentence
            assert job.returncode == 2, Path(f"{run_dir}.log").read_text()[-3000:]
            reruns += 1
            assert reruns < 5
            job = began(config, run_dir, env=env)
    ended = "finished" if not reruns else f"finished after {reruns} reruns"
    what = ", ".join(sorted({title.removeprefix("ray::").split("(")[0] for title in killed}))
    repeated = record(f"worker killed ({what})", len(killed), whole, run_dir, log, ended)
    assert repeated <= len(killed) + reruns * 6


def test_driver_killed_at_random_moments(faulty, tmp_path):
    config, whole = faulty
    log, run_dir = tmp_path / "work", tmp_path / "run"
    chooser, killed = random.Random(SEED + 1), 0
    with nodes(log, SLOW_S="0.4") as (cluster, _):
        env = environment(cluster.address)
        while killed < 6:
            job = began(config, run_dir, env=env)
            try:
                assert job.wait(chooser.uniform(8, 30)) == 0
                break
            except subprocess.TimeoutExpired:
                os.kill(job.pid, signal.SIGKILL)
                job.wait()
                killed += 1
        finish(config, run_dir, env=env)
    repeated = record("driver killed", killed, whole, run_dir, log, f"{killed} reruns")
    assert repeated <= killed * 5  # pieces that its workers were at


def test_a_node_removed_in_the_teacher_stage(faulty, tmp_path):
    """Three nodes become two, and the objects of the third are lost with it."""
    config, whole = faulty
    log, run_dir = tmp_path / "work", tmp_path / "run"
    with nodes(log, SLOW_S="0.5") as (cluster, workers):
        job = began(config, run_dir, env=environment(cluster.address))
        wait_for(lambda: len(list(run_dir.glob("4-teacher/store/*/pairs/*.json"))) >= 8, job)
        cluster.remove_node(workers[1], allow_graceful=False)
        assert job.wait() == 0, Path(f"{run_dir}.log").read_text()[-3000:]
    repeated = record("node removed, its objects lost", 1, whole, run_dir, log)
    assert repeated <= 2 + 1  # its two actors' pieces, and one whose answer was lost


def test_a_model_that_one_node_cannot_load(faulty, tmp_path):
    config, whole = faulty
    log, run_dir = tmp_path / "work", tmp_path / "run"
    with nodes(log, count=1) as (cluster, _):
        os.environ["NO_MODEL"] = "1"
        bad = cluster.add_node(num_cpus=2, object_store_memory=150 * 2**20)
        del os.environ["NO_MODEL"]
        cluster.wait_for_nodes()
        env = environment(cluster.address)
        said = one_sentence(drive(config, run_dir, env=env))
        assert f"on node {socket.gethostname()}: model tiny cannot be loaded" in said
        cluster.remove_node(bad, allow_graceful=False)
        finish(config, run_dir, env=env)
    record("model cannot be loaded on one node", 1, whole, run_dir, log, "a sentence, a rerun")


def test_a_row_that_crashes_the_process(faulty, tmp_path, small_job):
    config, whole = faulty
    lines = Path(small_job["corpus"]["path"]).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    asked = {
        row["candidate"] for row in pq.read_table(whole / "4-teacher/labels.parquet").to_pylist()
    }
    bad = rows[min(asked)]["id"]
    for row in rows:
        if row["id"] == bad:
            row["instruction"] += " SEGFAULT"
    corpus = tmp_path / "poisoned.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = []
    for name in ("one", "two"):
        run_dir = tmp_path / name
        done = drive(
            config, run_dir, "--corpus.path", str(corpus), env=environment(POISON="SEGFAULT")
        )
        assert done.returncode == 0, done.stderr[-3000:]
        quarantine = pq.read_table(run_dir / "2-embeddings/quarantine.parquet").to_pylist()
        assert [(row["id"], row["side"]) for row in quarantine] == [(bad, "candidates")]
        subset = pq.read_table(run_dir / "7-selection/subset.parquet")
        assert bad not in subset["id"].to_pylist() and len(subset) == 30
        labels = pq.read_table(run_dir / "4-teacher/labels.parquet").to_pylist()
        crashed = [row for row in labels if row["problem"] == "it crashes the worker process"]
        assert {row["candidate"] for row in crashed} == {min(asked)}
        manifest = read_json(run_dir / "1-corpus/manifest.json")
        assert manifest["counts"]["candidates"] == 300
        results.append(run_dir)
    told = [lost_and_doubled(whole, run_dir) for run_dir in results]
    assert told == [(0, 0), (0, 0)]
    TABLE.append(
        {
            "fault": "row that crashes encoder and teacher",
            "times": len(results),
            "rows_lost": sum(lost for lost, _ in told),
            "rows_doubled": sum(doubled for _, doubled in told),
            "repeated": "",
            "same_bytes": f"{same_bytes(*results)}, with each other",
            "ended": "finished, the row in quarantine",
        }
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_full(faulty, tmp_path):
    config, whole = faulty
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)])
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        said, times = "", 0
        for size in ("200k", "400k", "800k"):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
            done = drive(config, disk / "run")
            if done.returncode:
                said, times = one_sentence(done), times + 1
                assert re.search("no space (is )?left", said, re.IGNORECASE), said
        assert times, "the disk was never full"
        subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
        finish(config, disk / "run")
        record("disk full", times, whole, disk / "run", ended="a sentence each, a rerun")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# --- object storage that fails -------------------------------------------------------------------


class Wire:
    """A wire to the S3 server that can be cut."""

    def __init__(self, port):
        self._port, self.cut = port, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            near, _ = self._listener.accept()
            if self.cut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one, other):
        try:
            while (data := one.recv(2**16)) and not self.cut:
                other.sendall(data)
        except OSError:
            pass
        finally:
            for end in (one, other):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)  # which wakes whoever reads from it
                end.close()


def brought(url, folder, place):
    """The run in the bucket, as files."""
    for name in buckets.names_in(url, folder):
        path = place / name.removeprefix(f"{folder}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buckets.read(url, name))


def test_a_bucket_that_is_gone_for_a_while(faulty, tmp_path):
    config, whole = faulty
    with buckets.bucket(tmp_path / "server.log") as settings:
        direct = settings["AWS_ENDPOINT_URL"]
        wire = Wire(int(direct.rsplit(":", 1)[1]))
        through = {**settings, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{wire.port}"}
        env = environment(**through, NN_CIFT_CACHE=str(tmp_path / "cache"), SLOW_S="0.3")
        job = subprocess.Popen(
            command(config, "s3://bucket/run"),
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

        def answers():
            names = buckets.names_in(direct, "run/4-teacher/store")
            return sum("/pairs/" in name and name.endswith(".json") for name in names)

        wait_for(lambda: answers() >= 4, job)
        wire.cut = True  # for a moment: nobody notices
        time.sleep(2)
        wire.cut = False
        seen = answers()
        wait_for(lambda: answers() >= seen + 4, job)
        wire.cut = True  # for good
        out, err = job.communicate(timeout=600)
        said = one_sentence(subprocess.CompletedProcess("", job.returncode, out, err))
        assert "s3://bucket/run" in said and "goes on from there" in said
        wire.cut = False
        finish(config, "s3://bucket/run", env=env)
        for secret in (buckets.KEY_ID, buckets.SECRET):
            assert secret not in err
        brought(direct, "run", tmp_path / "run")
    record(
        "bucket away for 2 s, then for good",
        2,
        whole,
        tmp_path / "run",
        None,
        "a sentence, a rerun",
    )
