import os
import time
from pathlib import Path

import pytest

from engine.artifacts.files import atomic_path
from engine.config import Execution, RayConfig, parse_config
from engine.errors import EngineError, InputError, ModelError, SettingsError
from engine.runtime import ray_cluster
from engine.runtime.executor import Partition, PartitionWorker, Training
from engine.runtime.local import LocalExecutor
from engine.runtime.opening import opened
from engine.runtime.ray_cluster import RayExecutor


@pytest.fixture(params=[LocalExecutor, RayExecutor])
def executor(request, ray_local):
    return request.param()


@pytest.fixture
def on_ray(ray_local):
    return RayExecutor()


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
        while "waits_for" in payload and not Path(payload["waits_for"]).exists():
            time.sleep(0.05)
        if payload.get("complain"):
            raise InputError(f"number {number} is bad")
        with atomic_path(path) as temporary:
            temporary.write_text(str(number))
        return 1, {"calls": 2.0}


class DiesOnce(Writer):
    """Whatever its number: so all workers are loading, or dead, at the same time."""

    def write(self, payload, path):
        self._die_at = payload["number"]
        return super().write(payload, path)


class CannotLoad(Writer):
    def __init__(self, log: str) -> None:
        raise ModelError("no such model")


def partitions(count, **payload):
    return [Partition(f"p{i}.txt", 1, {"number": i, **payload}) for i in range(count)]


def go(executor, root, work, worker=Writer, **arguments):
    log = root / "log"
    log.mkdir(exist_ok=True)
    execution = Execution(max_actors=2)
    arguments = {"log": str(log), **arguments}
    return executor.map(
        work, root, worker, arguments, label="test", unit="parts", execution=execution
    )


def tries(root):
    return len(list((root / "log").iterdir()))


def test_parts_come_back_in_order_and_are_not_made_twice(executor, tmp_path):
    parts = go(executor, tmp_path, partitions(6))
    assert [(tmp_path / part.path).read_text() for part in parts] == list("012345")
    assert parts[0].usage["calls"] == 2
    assert go(executor, tmp_path, partitions(8))[:6] == parts
    assert tries(tmp_path) == 8


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(on_ray, tmp_path):
    parts = go(on_ray, tmp_path, partitions(6), die_at=3)
    assert [(tmp_path / part.path).read_text() for part in parts] == list("012345")


def test_work_that_always_kills_its_worker_stops_with_a_sentence(on_ray, tmp_path):
    with pytest.raises(EngineError, match="died 4 times at the same piece of work") as caught:
        go(on_ray, tmp_path, partitions(4), die_at=2, always=True)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "p0.txt").exists()


def test_a_single_piece_of_work_survives_its_worker_too(on_ray, tmp_path):
    (part,) = go(on_ray, tmp_path, partitions(1), die_at=0)
    assert (tmp_path / part.path).read_text() == "0" and tries(tmp_path) == 2
    with pytest.raises(EngineError, match="died 4 times at the same piece of work") as caught:
        go(on_ray, tmp_path, [Partition("other.txt", 1, {"number": 9})], die_at=9, always=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"^number 0 is bad$"):
        go(on_ray, tmp_path, [Partition("third.txt", 1, {"number": 0, "complain": True})])


def test_as_many_pieces_as_actors_are_tasks_of_which_each_may_die(on_ray, tmp_path):
    parts = go(on_ray, tmp_path, partitions(2), worker=DiesOnce)
    assert [(tmp_path / part.path).read_text() for part in parts] == ["0", "1"]
    assert tries(tmp_path) == 4


def test_the_first_error_ends_the_other_tasks(on_ray, tmp_path):
    sign = tmp_path / "sign"
    late = Partition("late.txt", 1, {"number": 0, "waits_for": str(sign)})
    bad = Partition("bad.txt", 1, {"number": 1, "complain": True})
    with pytest.raises(InputError, match=r"^number 1 is bad$"):
        go(on_ray, tmp_path, [late, bad])
    sign.touch()
    time.sleep(2)
    assert not (tmp_path / "late.txt").exists()


def test_what_a_worker_tells_the_user_arrives_as_itself(executor, tmp_path):
    for count in (2, 3):  # as tasks, and on a pool
        with pytest.raises(InputError, match=r"^number [012] is bad$"):
            go(executor, tmp_path, partitions(count, complain=True))
    for count in (1, 2, 3):
        with pytest.raises(ModelError, match=r"^no such model$"):
            go(executor, tmp_path, partitions(count), worker=CannotLoad)


def test_ray_data_says_nothing_of_its_own(on_ray, tmp_path, capfd):
    go(on_ray, tmp_path, partitions(3))
    assert "Dataset" not in capfd.readouterr().err


def complain():
    raise InputError("bad")


def test_a_task_returns_its_result_or_the_users_error(executor):
    assert executor.call(sum, [1, 2]) == 3
    with pytest.raises(InputError, match=r"^bad$"):
        executor.call(complain)


def test_a_local_cluster_that_misses_its_deadline_is_started_once_more(monkeypatch):
    calls = []

    def start(**settings):
        calls.append(settings["address"])
        if len(calls) == 1:
            raise RuntimeError("agents did not come up")

    monkeypatch.setattr(ray_cluster.ray, "init", start)
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: calls.append("shutdown"))
    ray_cluster._start_local(RayConfig(), {})
    assert calls == ["local", "shutdown", "local"]


# what needs torch imports it: workers import this module, and most of them need none


def threads_of_a_call():
    import torch

    return torch.get_num_threads()


def test_a_call_has_the_threads_that_it_asks_for_and_leaves_none_behind(executor):
    import numba
    import torch

    before = torch.get_num_threads(), numba.get_num_threads()
    assert executor.call(threads_of_a_call) == 1
    assert executor.call(threads_of_a_call, threads=2) == 2
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


def count_up(settings, team):
    import torch

    with team.checkpoint() as checkpoint:
        assert checkpoint is None
    tensor = torch.tensor([team.rank + 1.0])
    total = float(team.sum(tensor)) if team.size > 1 else float(tensor)
    team.report({"total": total}, None)
    return {"total": total + settings["more"], "size": team.size}


def training(path, num_workers):
    return Training(
        "the count", count_up, {"more": 0.5}, num_workers, 0, True, path, f"count-{num_workers}"
    )


def test_a_training_is_a_loop_in_a_team(executor, tmp_path):
    assert executor.train(training(tmp_path, 1)) == {"total": 1.5, "size": 1}


def test_two_workers_sum_and_one_process_says_that_it_cannot(on_ray, tmp_path):
    assert on_ray.train(training(tmp_path, 2)) == {"total": 3.5, "size": 2}
    with pytest.raises(SettingsError, match="by 2 workers gives other sums"):
        LocalExecutor().train(training(tmp_path, 2))


def test_an_executor_that_does_not_exist():
    config = parse_config({"corpus": {"path": "x"}})
    with (
        pytest.raises(SettingsError, match="no executor is called 'lokal'"),
        opened(config, "lokal"),
    ):
        pass
