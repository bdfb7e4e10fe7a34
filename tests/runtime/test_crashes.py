"""Trails: which row of a piece of work kills its worker, told without killing any."""

import json

import pytest

from engine.errors import EngineError
from engine.runtime.crashes import MAX_ROWS, MAX_TRIES, Trail, crashed_loading, loaded


def work(path, num_rows, dies_at, job="job"):
    """One try, as a worker would: returns the rows that are left out, or None when it died."""
    trail = Trail.start(path.parent, path.name, job, num_rows)
    for row in trail.suspects():
        if row in dies_at:
            return None
    if dies_at - set(trail.crashing):
        return None
    trail.end()
    return trail.crashing


def tries(path, num_rows, dies_at, most=100):
    for number in range(1, most):
        left_out = work(path, num_rows, dies_at)
        if left_out is not None:
            return number, left_out
    raise AssertionError("it never came to an end")


def test_work_that_goes_well_leaves_nothing(tmp_path):
    assert tries(tmp_path / "part.npy", 10, set()) == (1, [])
    assert list(tmp_path.iterdir()) == []


def test_one_row_that_crashes_is_found_and_left_out(tmp_path):
    # twice with all rows, twice at the row by itself, then without it
    assert tries(tmp_path / "part.npy", 20, {7}) == (5, [7])
    assert [path.name[:14] for path in tmp_path.iterdir()] == [".left-out-job-"]


@pytest.mark.parametrize("rows", [{0}, {19}, {0, 19}])
def test_rows_at_the_ends(tmp_path, rows):
    assert tries(tmp_path / "part.npy", 20, rows)[1] == sorted(rows)


def test_a_single_row_may_be_the_one(tmp_path):
    assert tries(tmp_path / "part.npy", 1, {0}) == (5, [0])


def test_deaths_by_chance_leave_nothing_out(tmp_path):
    path = tmp_path / "part.npy"
    for _ in range(2):  # killed in the middle of the work
        Trail.start(path.parent, path.name, "job", 30)
    suspects = Trail.start(path.parent, path.name, "job", 30).suspects()
    assert [next(suspects) for _ in range(5)] == [0, 1, 2, 3, 4]  # and killed while row 4 was tried
    again = Trail.start(path.parent, path.name, "job", 30)
    assert list(again.suspects()) == list(range(4, 30))
    assert again.crashing == []


def test_the_deaths_of_another_job_do_not_count_but_its_finds_do(tmp_path):
    path = tmp_path / "part.npy"
    for number in range(10):
        trail = Trail.start(path.parent, path.name, f"job {number}", 5)
        assert list(trail.suspects()) == []
    trail.crashing = [2]
    trail._write()
    assert Trail.start(path.parent, path.name, "the next", 5).crashing == [2]


def test_work_whose_rows_cannot_be_tried_ends_with_a_sentence(tmp_path):
    for _ in range(MAX_TRIES):
        assert work(tmp_path / "part.npy", 0, {0}) is None
    with pytest.raises(EngineError, match=r"died 4 times at the same piece of work \(part.npy"):
        work(tmp_path / "part.npy", 0, {0})


def test_work_that_dies_although_no_row_alone_does_ends_with_a_sentence(tmp_path):
    path = tmp_path / "part.npy"
    with pytest.raises(EngineError, match="and at none of its rows alone") as caught:
        for _ in range(20):
            list(Trail.start(path.parent, path.name, "job", 5).suspects())
    assert "died 5 times" in str(caught.value)


def test_when_many_rows_crash_it_is_not_the_rows(tmp_path):
    with pytest.raises(EngineError, match=r"3 of the first 3 rows of part.npy crash"):
        tries(tmp_path / "part.npy", 20, set(range(20)))


def test_when_rows_crash_in_every_piece_it_is_not_the_rows(tmp_path):
    for number in range(MAX_ROWS):
        assert tries(tmp_path / f"part-{number}.npy", 1, {0})[1] == [0]
    with pytest.raises(EngineError, match="and 33 rows so far"):
        tries(tmp_path / "the next.npy", 1, {0})


def test_a_trail_is_readable(tmp_path):
    Trail.start(tmp_path, "part.npy", "job", 5)
    assert json.loads((tmp_path / ".part.npy.tries").read_text())["tries"] == 1


def test_an_actor_that_dies_while_loading_is_not_replaced_for_ever(tmp_path):
    for _ in range(MAX_TRIES):
        assert crashed_loading(tmp_path, "EmbedWorker", "job", "a") is None
    error = crashed_loading(tmp_path, "EmbedWorker", "job", "a")
    assert "died 4 times while it was loading its model (EmbedWorker)" in str(error)
    assert crashed_loading(tmp_path, "EmbedWorker", "job", "b") is None
    loaded(tmp_path, "EmbedWorker", "job", "a")
    assert crashed_loading(tmp_path, "EmbedWorker", "job", "a") is None
