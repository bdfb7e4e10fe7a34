"""Whether influence tells targets apart, and what the cosine picks for nothing."""

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from engine.artifacts.rows import as_lists
from engine.selection.spread import spread


def blocks(tmp_path, matrix):
    paths = []
    for number, block in enumerate(np.array_split(matrix.astype(np.float32), 3)):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], block)
    return paths


def test_row_and_column_effects_alone(tmp_path):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(40, 1)) + 5 * rng.normal(size=(1, 8)) + 100
    found = spread("dense", blocks(tmp_path, matrix), 8)
    assert found.additive_share == pytest.approx(1, abs=1e-6) and found.distinct_best == 1
    assert not found.tells_targets_apart and "hardly told apart" in found.sentence()


def test_the_share_is_that_of_the_analysis_of_variance(tmp_path):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(50, 20)) + rng.normal(size=(50, 1)) + 7
    effects = matrix.mean(axis=0) + matrix.mean(axis=1, keepdims=True) - matrix.mean()
    found = spread("dense", blocks(tmp_path, matrix), 20)
    assert found.additive_share == pytest.approx(effects.var() / matrix.var(), rel=1e-4)
    assert found.distinct_best == len(set(matrix.astype(np.float32).argmax(axis=0)))
    assert found.tells_targets_apart and "apart" not in found.sentence()


def test_equal_influence_has_no_share(tmp_path):
    found = spread("dense", blocks(tmp_path, np.full((9, 3), 2.5)), 3)
    assert found.additive_share is None and found.distinct_best == 1


def test_of_lists_the_best_are_counted(tmp_path):
    ids = np.array([[3, 1], [3, 2], [0, 1]])
    table = pa.table({"ids": as_lists(ids), "influence": as_lists(-np.sort(-ids.astype(float)))})
    pyarrow.feather.write_feather(table, str(tmp_path / "l.arrow"), compression="uncompressed")
    found = spread("neighbours", [tmp_path / "l.arrow"], 3)
    assert (found.additive_share, found.distinct_best) == (None, 2)
