"""The quality gate: judgements by hand, settings that make no sense, and a run with one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.artifacts.files import read_json, read_table
from engine.config import parse_config
from engine.config.quality import QualityConfig
from engine.errors import SettingsError
from engine.selection.explain import explain
from engine.selection.kernel_files import KernelFiles
from engine.selection.quality import judge, judge_more
from engine.stages.additions import headline, score_new
from engine.stages.pipeline import run
from tests.small_job import write_rows

ANSWERS = np.array([3, 1, np.nan, np.nan, 2, np.nan, 0, np.nan, np.nan, np.nan], np.float32)
PREDICTED = np.array([9, 9, 1.5, 1.4, 9, 1.6, 9, 1.45, 1.55, 1.7], np.float32)


def gate(**settings: Any) -> QualityConfig:
    return QualityConfig.model_validate({"teacher": {"name": "selectit"}, **settings})


def dropped(settings: QualityConfig, trusted: bool = True) -> list[int]:
    return np.flatnonzero(judge(ANSWERS, PREDICTED, settings, trusted).dropped).tolist()


def test_the_worst_of_either_group() -> None:
    assert dropped(gate(drop_worst=0.25)) == [3, 6, 7], "1 of 4 answers, 2 of 6 predictions"
    high = gate(teacher={"name": "ifd"}, drop_worst=0.25)
    assert dropped(high) == [0, 5, 9], "the other end is bad"
    assert dropped(gate(below=1.45)) == [1, 3, 6] and dropped(gate(above=1.6)) == [0, 4, 9]
    found = judge(ANSWERS, PREDICTED, gate(drop_worst=0.25), True)
    assert found.asked.tolist() == np.isfinite(ANSWERS).tolist()
    np.testing.assert_array_equal(found.values[:4], np.array([3, 1, 1.5, 1.4], np.float32))


def test_an_untrusted_gate() -> None:
    assert dropped(gate(drop_worst=0.25), trusted=False) == [6]
    assert dropped(gate(drop_worst=0.25, untrusted="all"), trusted=False) == [3, 6, 7]
    assert dropped(gate(drop_worst=0.25, untrusted="none"), trusted=False) == []


def test_equal_values_go_by_row_number() -> None:
    same = np.full(4, 1, np.float32)
    found = judge(np.full(4, np.nan, np.float32), same, gate(drop_worst=0.5), True)
    assert found.dropped.tolist() == [True, True, False, False]


def test_weights_go_by_rank() -> None:
    found = judge(ANSWERS, PREDICTED, gate(weight=2), True)
    assert not found.dropped.any() and found.penalty is not None
    np.testing.assert_allclose(found.penalty[[6, 1, 4, 0]], [2, 4 / 3, 2 / 3, 0], atol=1e-12)
    assert found.penalty[3] == 2 and found.penalty[9] == 0


@pytest.mark.parametrize("kind", ["dense", "lists"])
def test_a_penalty_lowers_all_values_of_a_candidate(kind: str, tmp_path: Any) -> None:
    import pyarrow as pa
    import pyarrow.feather

    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    penalty = np.array([0, 1, 0, 0.5, 0], np.float32)
    np.save(tmp_path / "penalty.npy", penalty)
    np.save(tmp_path / "block.npy", values)
    order = np.argsort(-values.T, axis=1)
    columns = [order, np.take_along_axis(values.T, order, axis=1)]
    lists = [pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), 5) for a in columns]
    table = pa.table({"candidates": lists[0], "influence": lists[1]})
    pyarrow.feather.write_feather(table, tmp_path / "lists.arrow", compression="uncompressed")
    path = tmp_path / ("block.npy" if kind == "dense" else "lists.arrow")
    files = KernelFiles(kind, (path,), 3, 5, 5, (-1.0, 1.0), False, tmp_path / "penalty.npy")
    loaded = files.load()
    dense = loaded if isinstance(loaded, np.ndarray) else loaded.toarray()
    expected = np.maximum((values.T - penalty + 1) / 2, 0)
    np.testing.assert_allclose(dense, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "set one of drop_worst, below, above, weight; got none of them"),
        ({"drop_worst": 0.1, "below": 1}, "got drop_worst and below"),
        ({"drop_worst": 1.5}, "drop_worst"),
        ({"teacher": {"name": "rds"}, "drop_worst": 0.1}, "teacher rds scores pairs"),
        ({"student": {"name": "vectors"}, "drop_worst": 0.1}, "cannot learn teacher ifd"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], said: str, tmp_path: Any) -> None:
    job = {"corpus": {"path": "x.jsonl"}, "run_dir": str(tmp_path), "quality": settings}
    with pytest.raises(SettingsError, match=said):
        run(parse_config(job))


def test_a_run_with_a_gate(
    small_job: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    model = small_job["teacher"]["model"]
    job = {
        **small_job,
        "run_dir": str(tmp_path / "run"),
        "teacher": {"name": "rds", "model": model},
        "quality": {
            "teacher": {"name": "ifd", "model": model},
            "sample": {"fraction": 0.2},
            "drop_worst": 0.2,
            "untrusted": "all",
        },
    }
    directory = run(parse_config(job))
    judged = read_table(directory.artifact("6q-quality").path("judgement"))
    picks = read_table(directory.artifact("7-selection").path("ranking"))["row"].to_numpy()
    out = judged["dropped"].to_numpy()
    assert 55 <= out.sum() <= 65 and not out[picks].any() and len(picks) == 30
    told = directory.artifact("8-report").counts["quality"]
    assert told["teacher"] == "ifd" and told["dropped"] == out.sum() and told["calls"] > 0
    page = (directory.path / "8-report/report.html").read_text(encoding="utf-8")
    assert "The quality gate" in page and "the worst 20% are dropped" in page
    names = [
        stage["name"] for stage in read_json(directory.path / "8-report/ledger.json")["stages"]
    ]
    assert "quality_score" in names
    row = int(np.flatnonzero(out)[0])
    corpus, selection = (directory.artifact(name) for name in ("1-corpus", "7-selection"))
    why = explain(corpus, selection, f"c{row}")["why"]
    assert any("dropped by quality: ifd" in line for line in why)
    # another rule asks nobody, and the store is that of the main teacher
    store = list((directory.path / "4-teacher/store").iterdir())
    assert {path.name.split("-")[0] for path in store} == {"rds", "ifd"}
    job["quality"] = {**job["quality"], "drop_worst": 0.1}
    directory = run(parse_config(job), overwrite=True)
    assert directory.artifact("4q-teacher").counts["asked_now"] == told["calls"], "not redone"
    fewer = read_table(directory.artifact("6q-quality").path("judgement"))["dropped"].to_numpy()
    assert 25 <= fewer.sum() <= 35 and not (fewer & ~out).any()
    job["selection"] = {"budget": 290}
    with pytest.raises(SettingsError, match=r"fewer than the 290 of selection\.budget"):
        run(parse_config(job), overwrite=True)


def again(settings: QualityConfig, values: list[float], asked: bool, trusted: bool = True) -> Any:
    known = judge(ANSWERS, PREDICTED, settings, True)
    return judge_more(np.array(values, np.float32), asked, known, settings, trusted)


def test_more_rows_are_judged_as_the_known_ones_were() -> None:
    of_known = PREDICTED[~np.isfinite(ANSWERS)].tolist()  # 1.4 and 1.45 of them are dropped
    found = again(gate(drop_worst=0.25), [*of_known, 1.46, np.nan, 0], asked=False)
    assert found.dropped.tolist() == [False, True, False, True, False, False, False, False, True]
    answered = again(gate(drop_worst=0.25), [0, 0.5, 3], asked=True)
    assert answered.dropped.tolist() == [True, False, False], "held against answers alone"
    assert answered.asked.all()
    assert again(gate(below=1.45), [1.44, 1.45], False).dropped.tolist() == [True, False]
    assert again(gate(above=1.6), [1.6, 1.7], False).dropped.tolist() == [False, True]
    assert not again(gate(drop_worst=0.01), [-9, 9], False).dropped.any(), "none was dropped"


def test_more_rows_and_a_gate_that_is_not_trusted() -> None:
    for untrusted, expected in (("asked", False), ("none", False), ("all", True)):
        settings = gate(drop_worst=0.25, untrusted=untrusted)
        assert again(settings, [0.0], False, trusted=False).dropped.tolist() == [expected]


def test_more_rows_weigh_by_their_place_among_the_known() -> None:
    penalty = again(gate(weight=2), [1.4, 1.7, 0.0, 9.0, np.nan], asked=False).penalty
    np.testing.assert_allclose(penalty, [2, 0, 2, 0, 1], atol=1e-12)


def test_who_is_not_judged_weighs_like_the_median() -> None:
    penalty = judge(ANSWERS, PREDICTED, gate(weight=2), trusted=False).penalty
    assert penalty is not None and penalty[6] == 2 and penalty[0] == 0
    assert (penalty[~np.isfinite(ANSWERS)] == 1).all(), "nor do rows win that nobody asked about"


def test_a_gate_that_costs_nothing(
    small_job: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {
        **small_job,
        "run_dir": str(tmp_path / "run"),
        "teacher": {"name": "rds", "model": small_job["teacher"]["model"]},
        "quality": {"teacher": {"name": "fit"}, "weight": 1.0},
    }
    directory = run(parse_config(job))
    gate = directory.artifact("6q-quality")
    assert gate.counts["asked"] == 300 and gate.counts["dropped"] == 0
    assert directory.artifact("8-report").counts["quality"]["calls"] == 0
    means = np.load(directory.artifact("7-selection").path("weighed_means"))
    plain = np.load(directory.artifact("6-influence").path("means"))
    penalty = read_table(gate.path("judgement"))["penalty"].to_numpy()
    np.testing.assert_allclose(plain - means, penalty * plain.std(dtype=np.float64), atol=1e-6)
    write_rows(tmp_path / "new.jsonl", 40, 9, "n")
    added = score_new(directory.path, str(tmp_path / "new.jsonl"))
    assert headline(added)["new_rows"] == 40 and headline(added)["dropped_by_quality"] == 0
    new = read_table(added.artifact("6q-quality").path("judgement"))
    assert all(new["asked"].to_pylist()) and np.isfinite(new["value"].to_numpy()).all()
    ranked = np.sort(read_table(gate.path("judgement"))["value"].to_numpy())[::-1]
    place = np.searchsorted(-ranked, -new["value"].to_numpy())
    np.testing.assert_allclose(new["penalty"].to_numpy(), np.minimum(place / 299, 1), atol=1e-12)


def test_new_rows_are_judged_by_the_gate_of_the_run(
    small_job: dict[str, Any], tmp_path: Any
) -> None:
    model = small_job["teacher"]["model"]
    job = {
        **small_job,
        "run_dir": str(tmp_path / "run"),
        "teacher": {"name": "rds", "model": model},
        "quality": {
            "teacher": {"name": "ifd", "model": model},
            "sample": {"fraction": 0.2},
            "drop_worst": 0.3,
            "untrusted": "all",
        },
    }
    directory = run(parse_config(job), until="select")
    known = read_table(directory.artifact("6q-quality").path("judgement")).to_pylist()
    write_rows(tmp_path / "new.jsonl", 60, 9, "n")
    added = score_new(directory.path, str(tmp_path / "new.jsonl"))
    judged = read_table(added.artifact("6q-quality").path("judgement"))
    out, values = judged["dropped"].to_numpy(), judged["value"].to_numpy()
    limit = min(row["value"] for row in known if row["dropped"] and not row["asked"])
    np.testing.assert_array_equal(out, values >= limit)
    assert 0 < out.sum() < 60 and not any(judged["asked"].to_pylist())
    picks = read_table(added.artifact("7-selection").path("ranking"))["row"].to_numpy()
    assert not out[picks].any()
    assert headline(added)["dropped_by_quality"] == out.sum()
    assert not (added.path / "4q-teacher").exists(), "nobody is asked"
