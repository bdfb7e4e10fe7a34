"""The second look: what is asked, what it costs, what is selected; nothing is paid twice."""

import copy
import json
from pathlib import Path

import numpy as np
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from engine.artifacts.files import read_json
from engine.config import parse_config
from engine.errors import SettingsError
from engine.planning import plan as planning
from engine.planning.plan import make_plan
from engine.selection.explain import explain
from engine.selection.select import select
from engine.stages import score
from engine.stages.pipeline import run, stages_of
from engine.stages.second_look import completed
from tests.planning.test_plan import of_teacher


@pytest.fixture
def job(small_job, tmp_path, monkeypatch):
    found = {**copy.deepcopy(small_job), "run_dir": str(tmp_path / "run")}
    found["selection"] = {"budget": 20, "second_look": 2.0, "second_look_targets": 7}
    return found


def artifacts(job):
    config = parse_config(job)
    directory = run(config)
    return {stage.name: directory.artifact(stage.directory) for stage in stages_of(config)}


@pytest.mark.parametrize("teacher", ["delift_se", "less", "selectit"])
def test_of_a_teacher_of_points_the_answers_select(job, teacher):
    """As if the teacher had been asked about everything, among the rows of the shortlist."""
    job = of_teacher(job, teacher)
    found = artifacts(job)
    look = found["second_look"]
    rows = np.load(look.path("shortlist"))
    assert len(rows) == 40 and look.counts["unscorable"] == 0
    everything = copy.deepcopy(job) | {"sample": {"fraction": 1}}
    everything["selection"] = {"budget": 20}
    everything["run_dir"] = job["run_dir"] + "-all"
    whole = artifacts(everything)["predict"]
    matrix = np.concatenate([np.load(whole.directory / p.path) for p in whole.parts("dense")])
    table = pyarrow.feather.read_table(look.path("answers"))
    ids, values = (np.stack(table[name].to_pylist()) for name in ("ids", "influence"))
    for target, (listed, influence) in enumerate(zip(ids, values, strict=True)):
        np.testing.assert_allclose(influence, matrix[listed, target], rtol=1e-3, atol=2e-4)
    means = np.load(look.path("means"))
    np.testing.assert_allclose(means[rows], matrix[rows].mean(axis=1), rtol=1e-3, atol=2e-4)
    predicted = np.load(found["predict"].path("means"))
    others = np.setdiff1d(np.arange(300), rows)
    assert (means[others] == predicted[others]).all()
    picks = pq.read_table(found["select"].path("ranking"))["row"].to_numpy()
    assert np.isin(picks, rows).all() and len(picks) == 20
    if teacher == "delift_se":  # coverage, by the answers alone
        labels = pq.read_table(found["score"].path("labels")).to_pandas()
        training = labels["score"][labels["quadrant"] == 0]
        low, high = training.min(), training.max()
        kernel = np.maximum((matrix[rows] - low) / (high - low), 0).astype(np.float32)
        assert set(picks) == set(rows[select(kernel.T, 20).ranking])
    if teacher == "selectit":  # top by mean
        assert set(picks) == set(rows[np.argsort(-means[rows], kind="stable")][:20])
    told = found["select"].counts["second_look"]
    first = pq.read_table(found["shortlist"].path("picks"))["row"].to_numpy()[:20]
    assert told["kept"] == len(np.intersect1d(first, picks)) and told["shortlist"] == 40


def test_of_a_teacher_of_pairs_some_targets_are_asked(job):
    found = artifacts(job)
    look = found["second_look"]
    assert look.counts["pairs"] == 40 * 7
    labels = pq.read_table(look.path("labels"))
    rows = np.load(look.path("shortlist"))
    table = pyarrow.feather.read_table(look.path("answers"))
    ids, values = (np.stack(table[name].to_pylist()) for name in ("ids", "influence"))
    assert ids.shape == (60, 40) and (np.diff(values, axis=1) <= 0).all()
    answers = {(t, c): v for t in range(60) for c, v in zip(ids[t], values[t], strict=True)}
    for row in labels.to_pylist():
        assert answers[row["target"], row["candidate"]] == np.float32(row["score"])
    assert set(ids[0]) == set(rows)


def test_what_was_asked_at_first_is_not_paid_again(job, tmp_path):
    """Usage adds up to that of one score stage over both samples."""
    job = of_teacher(job, "delift_se")
    found = artifacts(job)
    first, look = found["score"], found["second_look"]
    asked = set(pq.read_table(first.path("labels"))["candidate"].to_pylist())
    fresh = [row for row in np.load(look.path("shortlist")).tolist() if row not in asked]
    lines = Path(job["corpus"]["path"]).read_text(encoding="utf-8").splitlines()
    contents = [json.loads(line) for line in lines]
    texts = {(contents[row]["instruction"], contents[row]["output"]) for row in fresh}
    known = {(contents[row]["instruction"], contents[row]["output"]) for row in asked}
    assert look.manifest["usage"]["features_candidate_rows"] <= len(texts - known)
    assert look.manifest["usage"].get("features_target_rows", 0) == 0
    ledger = read_json(found["report"].directory / "ledger.json")
    both = [artifact.manifest["usage"]["calls"] for artifact in (first, look)]
    assert ledger["teacher_calls"] == sum(both) and both[1] > 0
    assert "second_look" in [stage["name"] for stage in ledger["stages"]]


def test_a_killed_second_look_goes_on_and_gives_the_same_bytes(job, monkeypatch):
    job = of_teacher(job, "less")
    whole = artifacts(job)["select"].path("ranking").read_bytes()
    again = copy.deepcopy(job) | {"run_dir": job["run_dir"] + "-again"}
    plain, calls = score.run, []

    def killed(context):
        calls.append(context.directory.name)
        result = plain(context)
        if context.directory.name == "6b-second-look":
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr("engine.stages.score.run", killed)
    with pytest.raises(KeyboardInterrupt):
        artifacts(again)
    monkeypatch.setattr("engine.stages.score.run", plain)
    found = artifacts(again)
    assert found["second_look"].counts["asked_now"] == 0  # the answers were there
    assert found["select"].path("ranking").read_bytes() == whole


def test_report_and_explanations_say_so(job):
    job = of_teacher(job, "delift_se")
    plain = copy.deepcopy(job) | {"run_dir": job["run_dir"] + "-plain"}
    plain["selection"] = {"budget": 20}
    found, without = artifacts(job), artifacts(plain)
    # what costs nothing is picked from all candidates, as without a second look
    free = [one["select"].path("free_alternative").read_bytes() for one in (found, without)]
    assert free[0] == free[1]
    page = (found["report"].directory / "report.html").read_text(encoding="utf-8")
    assert "Second look: the teacher was asked about the 40 best rows" in page
    table = pq.read_table(found["select"].path("explanations")).to_pylist()
    rows = set(np.load(found["second_look"].path("shortlist")).tolist())
    assert {row["row"] for row in table if row["known_by"] == "second look"} == rows
    kept, dropped = (
        next(row["id"] for row in table if (row["rank"] is None) == left and row["row"] in inside)
        for left, inside in ((False, rows), (True, set(range(300)) - rows))
    )
    assert "second look: it competed" in " ".join(
        explain(found["ingest"], found["select"], kept)["why"]
    )
    why = " ".join(explain(found["ingest"], found["select"], dropped)["why"])
    assert "not among the best by what is predicted" in why


@pytest.mark.parametrize("teacher", ["delift_se", "delift", "selectit"])
def test_the_plan_counts_it(job, teacher, monkeypatch):
    monkeypatch.setattr(planning, "PROBED_ROWS", 16)
    monkeypatch.setattr(planning, "PROBE_SECONDS", 0.0)
    job = of_teacher(job, teacher)
    plan = make_plan(parse_config(job))
    stage = next(stage for stage in plan.stages if stage.name == "second_look")
    usage = artifacts(job)["second_look"].manifest["usage"]
    rows = usage["pairs_rows"] if teacher == "delift" else usage["features_candidate_rows"]
    assert stage.rows == pytest.approx(rows, rel=0.35) and stage.calls == stage.rows
    assert "second_look" not in [stage.name for stage in plan.everything]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selection.second_look": 0.5}, "second_look counts budgets"),
        ({"selection.second_look": 2, "sample.fraction": 1}, "asked about everything before"),
        (
            {"selection.second_look": 2, "selection.cover": "self"},
            "asks the teacher about the targets",
        ),
    ],
)
def test_settings_that_make_no_sense(job, settings, message):
    for name, value in settings.items():
        section, setting = name.split(".")
        job[section] = {**job[section], setting: value}
    with pytest.raises(SettingsError, match=message):
        parse_config(job)


def test_more_rows_than_there_are_is_said_before_the_teacher_is_paid(job):
    job["selection"]["second_look"] = 16
    with pytest.raises(SettingsError, match="asks about 320 rows, and the corpus has 300"):
        artifacts(job)
    assert not (
        parse_config(job).run_dir and list((__import__("pathlib").Path(job["run_dir"])).glob("4-*"))
    )


def test_missing_answers_are_the_prediction_shifted_by_what_the_others_say():
    answers = np.array([[3, np.nan, 5], [np.nan] * 3], np.float32)
    predicted = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    # row 0: answers lie 2 above the prediction; of row 1 nothing is known
    assert completed(answers, predicted).tolist() == [[3, 4, 5], [4, 5, 6]]
