"""Single rows: which are drawn, what they say, and the map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.artifacts.files import save_array
from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import Artifact
from engine.report import pool as module
from engine.report.embedding_map import embedding_map
from engine.report.lookup import read_lookup
from engine.report.pool import Pool, listed_rows, mapped_rows, read_pool
from engine.report.row_texts import read_texts
from tests.report.synthetic_run import HOSTILE, NUM_CANDIDATES, NUM_TAIL, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def pool(run: dict[str, Artifact]) -> Pool:
    return read_pool(run["ingest"], run["predict"], run["select"])


def drawn(pool: Pool, rows: list[int], number: int) -> set[int]:
    return set(sorted(rows, key=lambda row: pool.hashes[row])[:number])


def test_the_pool_is_that_of_the_explanations(pool: Pool) -> None:
    assert pool.picks.tolist() == list(range(59, 39, -1))  # the highest means
    assert pool.tail_from == 15 and pool.rank[59] == 1 and pool.rank[:40].max() == 0
    assert pool.gain[59] == 8 and pool.gain[0] == 0 and pool.gain[39] > pool.gain[38]
    assert set(pool.nearest.tolist()) <= set(pool.picks.tolist())
    assert pool.num_nearest.sum() == 40 and pool.dropped.tolist() == list(range(40))


def test_all_rows_of_a_small_pool_are_listed_once(pool: Pool) -> None:
    rows = listed_rows(pool)
    assert sorted(row for row, _ in rows) == list(range(NUM_CANDIDATES))
    groups = [group for _, group in rows]
    assert groups[:20] == ["first pick"] * 15 + ["zero-gain pick"] * NUM_TAIL
    assert groups[20:] == ["near miss"] * 4 + ["dropped"] * 36
    assert [row for row, _ in rows[:20]] == pool.picks.tolist()
    assert [row for row, _ in rows[20:24]] == [39, 38, 37, 36]  # they would add most


def test_rows_are_drawn_by_the_hash_of_their_ids(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, number in {"FIRST_PICKS": 3, "OTHER_PICKS": 4, "TAIL_PICKS": 2}.items():
        monkeypatch.setattr(module, name, number)
    monkeypatch.setattr(module, "NEAR_MISSES", 3)
    monkeypatch.setattr(module, "OTHER_DROPPED", 6)
    found: dict[str, list[int]] = {}
    for row, group in listed_rows(pool):
        found.setdefault(group, []).append(row)
    assert found["first pick"] == [59, 58, 57]
    assert set(found["later pick"]) == drawn(pool, list(range(45, 57)), 4)
    assert set(found["zero-gain pick"]) == drawn(pool, list(range(40, 45)), 2)
    for group in ("later pick", "zero-gain pick"):
        assert found[group] == sorted(found[group], reverse=True)
    assert found["near miss"] == [39, 38, 37]
    assert found["dropped"] == sorted(found["dropped"], key=lambda row: pool.hashes[row])
    assert set(found["dropped"]) == drawn(pool, list(range(37)), 6)


def test_near_misses_by_mean_influence_where_no_gain_is_known(pool: Pool) -> None:
    unknown = replace(pool, gain=np.where(pool.rank > 0, pool.gain, np.nan), means=-pool.means)
    assert [row for row, group in listed_rows(unknown) if group == "near miss"] == [0, 1, 2, 3]


def test_the_map_is_half_picks_or_what_the_others_leave(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for mapped, picks in ((60, 20), (30, 15), (50, 20), (8, 4)):
        monkeypatch.setattr(module, "MAPPED", mapped)
        rows = mapped_rows(pool)
        assert len(set(rows.tolist())) == len(rows) == mapped
        assert np.count_nonzero(pool.rank[rows]) == picks
        assert (np.diff((pool.rank[rows] > 0).astype(int)) >= 0).all()  # picks are drawn last
    few = replace(pool, rank=np.where(pool.rank > 0, pool.rank, 0))
    monkeypatch.setattr(module, "MAPPED", 1000)
    assert len(mapped_rows(few)) == NUM_CANDIDATES


def test_rows_that_crash_the_encoder_are_on_no_map(pool: Pool) -> None:
    crashed = replace(pool, embedded=np.arange(NUM_CANDIDATES) != 7)
    assert 7 not in mapped_rows(crashed).tolist()
    assert (7, "crashes the encoder") in listed_rows(crashed)
    assert [row for row, _ in listed_rows(crashed)].count(7) == 1


def test_texts_are_cut_and_on_one_line(run: dict[str, Artifact]) -> None:
    texts = read_texts(run["ingest"], np.array([5, 31, 0]))
    assert sorted(texts) == [0, 5, 31]
    assert texts[0].prompt == f"ask 0 {HOSTILE[0]} some input" and texts[31].answer == "answer 31"
    assert texts[0].id == "c0<b>\u202e" and len(texts[5].prompt) < 60 and texts[5].prompt[-1] == "…"


def test_nothing_selected(run: dict[str, Artifact], pool: Pool) -> None:
    none = np.zeros(NUM_CANDIDATES, dtype=np.int64)
    empty = replace(pool, picks=none[:0], tail_from=0, rank=none, nearest=none - 1)
    assert {group for _, group in listed_rows(empty)} == {"near miss", "dropped"}
    assert len(mapped_rows(empty)) == NUM_CANDIDATES


def test_the_map_keeps_what_two_directions_can(run: dict[str, Artifact], pool: Pool) -> None:
    lookup = read_lookup(run["ingest"], run["embed"], run["predict"], run["select"])
    assert lookup.map is not None and (lookup.map.num_picks, lookup.map.num_dropped) == (20, 40)
    assert 0.25 < lookup.map.variance_kept < 0.6  # 8 dimensions, all alike
    assert [point.rank for point in lookup.map.points][:40] == [None] * 40
    again = read_lookup(run["ingest"], run["embed"], run["predict"], run["select"])
    assert again == lookup


def flat(folder: Path, vectors: np.ndarray) -> Artifact:
    save_array(folder / "v.npy", vectors.astype(np.float32))
    part = vars(finish_part(folder, folder / "v.npy", len(vectors)))
    return Artifact(folder, {"parts": {"candidates": [part]}, "counts": {}})


def test_a_plane_is_mapped_onto_itself(
    tmp_path: Path, run: dict[str, Artifact], pool: Pool
) -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(NUM_CANDIDATES, 2)) @ np.linalg.qr(rng.normal(size=(9, 9)))[0][:2]
    rows = mapped_rows(pool)
    found = embedding_map(flat(tmp_path, plane), pool, rows, read_texts(run["ingest"], rows))
    assert found is not None and found.variance_kept == pytest.approx(1.0)
    places = np.array([(point.x, point.y) for point in found.points])
    between = np.linalg.norm(places[:, None] - places[None], axis=-1)
    vectors = plane[rows]
    expected = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.testing.assert_allclose(between, expected, atol=1e-4)


def test_rows_that_do_not_differ_have_no_map(
    tmp_path: Path, run: dict[str, Artifact], pool: Pool
) -> None:
    rows = mapped_rows(pool)
    equal = flat(tmp_path, np.ones((NUM_CANDIDATES, 4)))
    assert embedding_map(equal, pool, rows, {}) is None
    assert embedding_map(run["embed"], pool, rows[:2], {}) is None
