import os
from pathlib import Path

import pytest

from engine import cluster
from engine.actors import Partition, PartitionWorker, run_partitions
from engine.cluster import run_task
from engine.config import Execution, RayConfig
from engine.errors import EngineError, InputError, ModelError
from engine.run_directory import atomic_path

pytestmark = pytest.mark.usefixtures("ray_local")


class Writer(PartitionWorker):
    """Writes its number; can be told to die or to complain, and leaves a mark of every try."""

    def __init__(self, log: str, die_at: int = -1, always: bool = False) -> None:
        self._log, self._die_at, self._always = Path(log), die_at, always

    def write(self, payload, path):
        number = payload["number"]
        tries = len(list(self._log.glob(f"{number}-*")))
        (self._log / f"{number}-{tries}").touch()
        if number == self._die_at and (self._always or tries == 0):
            os._exit(1)
        if payload.get("complain"):
            raise InputError(f"number {number} is bad")
        with atomic_path(path) as temporary:
            temporary.write_text(str(number))
        return 1, {"calls": 2.0}


class CannotLoad(Writer):
    def __init__(self, log: str) -> None:
        raise ModelError("no such model")


def partitions(count, **payload):
    return [Partition(f"p{i}.txt", 1, {"number": i, **payload}) for i in range(count)]


def go(root, work, worker=Writer, **arguments):
    log = root / "log"
    log.mkdir(exist_ok=True)
    execution = Execution(max_actors=2)
    arguments = {"log": str(log), **arguments}
    return run_partitions(
        work, root, worker, arguments, label="test", unit="parts", execution=execution
    )


def tries(root):
    return len(list((root / "log").iterdir()))


def test_parts_come_back_in_order_and_are_not_made_twice(tmp_path):
    parts = go(tmp_path, partitions(6))
    assert [(tmp_path / part.path).read_text() for part in parts] == list("012345")
    assert parts[0].usage["calls"] == 2
    assert go(tmp_path, partitions(8))[:6] == parts
    assert tries(tmp_path) == 8


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(tmp_path):
    parts = go(tmp_path, partitions(6), die_at=3)
    assert [(tmp_path / part.path).read_text() for part in parts] == list("012345")


def test_work_that_always_kills_its_worker_stops_with_a_sentence(tmp_path):
    with pytest.raises(EngineError, match="died 4 times at the same piece of work") as caught:
        go(tmp_path, partitions(4), die_at=2, always=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "p0.txt").exists()


def test_a_single_piece_of_work_survives_its_worker_too(tmp_path):
    (part,) = go(tmp_path, partitions(1), die_at=0)
    assert (tmp_path / part.path).read_text() == "0" and tries(tmp_path) == 2
    with pytest.raises(EngineError, match="died 4 times at the same piece of work") as caught:
        go(tmp_path, [Partition("other.txt", 1, {"number": 9})], die_at=9, always=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"^number 0 is bad$"):
        go(tmp_path, [Partition("third.txt", 1, {"number": 0, "complain": True})])


def test_what_a_worker_tells_the_user_arrives_as_itself(tmp_path):
    with pytest.raises(InputError, match=r"^number [01] is bad$"):
        go(tmp_path, partitions(2, complain=True))
    for count in (1, 2):
        with pytest.raises(ModelError, match=r"^no such model$"):
            go(tmp_path, partitions(count), worker=CannotLoad)


def complain():
    raise InputError("bad")


def test_a_task_returns_its_result_or_the_users_error():
    assert run_task(sum, [1, 2]) == 3
    with pytest.raises(InputError, match=r"^bad$"):
        run_task(complain)


def test_a_local_cluster_that_misses_its_deadline_is_started_once_more(monkeypatch):
    calls = []

    def start(**settings):
        calls.append(settings["address"])
        if len(calls) == 1:
            raise RuntimeError("agents did not come up")

    monkeypatch.setattr(cluster.ray, "init", start)
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: calls.append("shutdown"))
    cluster._start_local(RayConfig(), {})
    assert calls == ["local", "shutdown", "local"]
