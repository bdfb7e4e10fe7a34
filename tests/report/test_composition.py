"""Groups of the pool and the subset: which column, the counts by hand, the cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.artifacts.run_directory import Artifact
from engine.report import composition as module
from engine.report.composition import Group, composition

PICKS = np.array([0, 1, 2])


def corpus(folder: Path, candidates: list[dict[str, Any]], targets: Any = None) -> Artifact:
    """An ingested corpus of nothing but further columns, two rows a part."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for side, rows in (("candidates", candidates), ("targets", targets or [])):
        for start in range(0, len(rows), 2):
            texts = [json.dumps(row) for row in rows[start : start + 2]]
            name = f"{side}-{start}.parquet"
            pq.write_table(pa.table({"extra": texts}), folder / name)
            part = {"path": name, "rows": len(texts), "sha256": ""}
            parts.setdefault(side, []).append(part)
    return Artifact(folder, {"parts": parts, "counts": {}})


def test_counts_by_hand(tmp_path: Path) -> None:
    rows = [{"topic": "a"}, {"topic": "b"}, {}, {"topic": "b"}, {"topic": "b"}, {"topic": 5}]
    found = composition(corpus(tmp_path, rows), PICKS, "topic", None)
    assert found is not None and (found.column, found.is_named) == ("topic", True)
    assert found.groups == [
        Group("b", 3, 1, None),
        Group("", 1, 1, None),
        Group("5", 1, 0, None),
        Group("a", 1, 1, None),
    ]
    assert (found.num_pool, found.num_selected, found.num_targets) == (6, 3, None)
    assert found.largest_share == 0.5 and found.others is None


def test_targets_that_have_the_column(tmp_path: Path) -> None:
    targets = [{"topic": "b"}, {"topic": "only here"}, {"topic": "b"}]
    made = corpus(tmp_path, [{"topic": "a"}, {"topic": "b"}, {"topic": "b"}], targets)
    found = composition(made, PICKS, None, None)
    assert found is not None and found.num_targets == 3
    assert [(group.name, group.in_targets) for group in found.groups] == [("b", 2), ("a", 0)]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"topic": "t{}", "source": "s{}"}, "source"),
        ({"topic": "t{}", "source": "one"}, "topic"),
        ({"task": "t{}", "TOPIC": "x{}"}, "task"),
        ({"kind": "k{}"}, None),
        ({"source": "one"}, None),
    ],
)
def test_the_column_that_nobody_named(tmp_path: Path, row: dict[str, str], column: str) -> None:
    rows = [{name: value.format(i % 2) for name, value in row.items()} for i in range(6)]
    found = composition(corpus(tmp_path, rows), PICKS, None, None)
    assert (found and found.column) == column
    if column:
        of_quotas = composition(corpus(tmp_path, rows), PICKS, None, column)
        assert of_quotas == found and found is not None and not found.is_named


def test_many_values_are_no_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW_VALUES", 4)
    rows = [{"source": f"url {i}", "topic": f"t{i % 3}"} for i in range(12)]
    found = composition(corpus(tmp_path, rows), PICKS, None, None)
    assert found is not None and found.column == "topic" and found.num_pool == 12


def test_small_groups_share_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_GROUPS", 2)
    rows = [{"source": f"s{min(i, 4)}"} for i in range(10)]
    found = composition(corpus(tmp_path, rows), PICKS, "source", None)
    assert found is not None and found.num_others == 3
    assert [group.name for group in found.groups] == ["s4", "s0"]
    assert found.others == Group("", 3, 2, None)
    monkeypatch.setattr(module, "MAX_VALUES", 2)
    found = composition(corpus(tmp_path, rows), PICKS, "source", None)
    assert found is not None and [g.name for g in found.groups] == ["other", "s0", "s1"]


def test_the_distance_from_the_targets_mix(tmp_path: Path) -> None:
    """Half the sum of the differences of shares; targets of groups that the pool has not count."""
    rows = [{"source": name} for name in "aaabbbbbbb"]
    found = composition(
        corpus(tmp_path, rows, [{"source": name} for name in "aabc"]),
        np.array([0, 1, 3, 4]),
        "source",
        None,
        np.array([0, 1, 2, 3]),
    )
    assert found is not None and found.mix is not None
    # targets .5 a, .25 b, .25 c; the pool .3 and .7, the picks .5 and .5, the others .75 and .25
    assert found.mix.pool == pytest.approx((0.2 + 0.45 + 0.25) / 2)
    assert found.mix.selected == pytest.approx((0 + 0.25 + 0.25) / 2)
    assert found.mix.free == pytest.approx((0.25 + 0 + 0.25) / 2)
