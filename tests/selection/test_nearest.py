"""Nearest rows by cosine: exact against brute force, the inverted file by its recall."""

import numpy as np
import pytest

from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import RunDirectory
from engine.config import Execution
from engine.runtime.local import LocalExecutor
from engine.selection import nearest
from engine.selection.nearest import NearestRows, find_nearest, read_nearest

M, DIM = 600, 16


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK_ROWS", 256)
    monkeypatch.setattr(nearest, "CHUNK_ROWS", 100)


@pytest.fixture
def embeddings(tmp_path):
    rng = np.random.default_rng(0)
    rows = (
        rng.standard_normal((M, DIM)) + 3 * rng.standard_normal((20, DIM))[rng.integers(0, 20, M)]
    )
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    folder = tmp_path / "embed"
    folder.mkdir()
    parts = []
    for number, block in enumerate(np.split(rows, [251])):
        np.save(folder / f"{number}.npy", block)
        parts.append(vars(finish_part(folder, folder / f"{number}.npy", len(block))))
    manifest = {"fingerprint": "x", "counts": {}, "parts": {"candidates": parts}}
    return RunDirectory(tmp_path).commit("embed", manifest), rows


def lists(found, tmp_path):
    parts, recall = found
    pieces = [read_nearest(tmp_path / part.path) for part in parts]
    return *(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)), recall


def test_exact_lists_are_those_of_comparing_everything(embeddings, tmp_path):
    artifact, rows = embeddings
    similarity = np.clip(rows @ rows.T, 0, 1)
    everything = NearestRows(artifact, "candidates", None, 7)
    found = find_nearest(LocalExecutor(), everything, tmp_path / "near", "near", Execution())
    ids, values, recall = lists(found, tmp_path)
    assert recall == 1 and ids.shape == (M, 7)
    np.testing.assert_allclose(values, -np.sort(-similarity, axis=1)[:, :7], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(similarity, ids, axis=1), values, atol=1e-6)
    assert (ids[:, 0] == np.arange(M)).all(), "a row is nearest to itself"


def test_some_rows_and_never_the_row_itself(embeddings, tmp_path):
    artifact, rows = embeddings
    chosen = np.sort(np.random.default_rng(1).permutation(M)[:150])
    np.save(tmp_path / "rows.npy", chosen)
    asked = NearestRows(artifact, "candidates", tmp_path / "rows.npy", 1, others=True)
    ids, values, _ = lists(
        find_nearest(LocalExecutor(), asked, tmp_path / "near", "near", Execution()), tmp_path
    )
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -1)
    best = chosen[similarity[:, chosen].argmax(axis=1)]
    assert (ids[:, 0] == best).mean() > 0.99 and set(ids[:, 0]) <= set(chosen)
    np.testing.assert_allclose(values[:, 0], similarity[:, chosen].max(axis=1).clip(0), atol=1e-6)


def test_many_rows_go_through_an_index_whose_recall_is_measured(embeddings, tmp_path, monkeypatch):
    artifact, rows = embeddings
    monkeypatch.setattr(nearest, "EXACT_ROWS", 100)
    asked = NearestRows(artifact, "candidates", None, 3, others=True)
    ids, values, recall = lists(
        find_nearest(LocalExecutor(), asked, tmp_path / "near", "near", Execution()), tmp_path
    )
    assert (ids != np.arange(M)[:, None]).all()
    similarity = rows @ rows.T
    np.testing.assert_allclose(np.take_along_axis(similarity, ids, axis=1), values, atol=1e-5)
    np.fill_diagonal(similarity, -1)
    true = np.argsort(-similarity, axis=1)[:, :3]
    found = np.mean([np.isin(t, o).mean() for t, o in zip(true, ids, strict=True)])
    assert 0.5 < found <= 1 and recall == pytest.approx(found, abs=0.05)
