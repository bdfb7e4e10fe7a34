"""The plan: its counts are those of the run that it announces, its arithmetic that by hand."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from engine.artifacts.files import read_json
from engine.config import load_config, parse_config
from engine.errors import SettingsError
from engine.planning import plan as planning
from engine.planning.estimate import StageEstimate
from engine.planning.machines import Machines, read_cluster
from engine.planning.plan import headline, make_plan, table, wall_of
from engine.stages.pipeline import run
from engine.terminal.progress import say

LESS = {"lora_rank": 4, "warmup_epochs": 1, "projection_dim": 64}


@pytest.fixture
def job(small_job, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "PROBED_ROWS", 16)
    monkeypatch.setattr(planning, "PROBE_SECONDS", 0.0)  # the first pieces of each kind
    return {**copy.deepcopy(small_job), "run_dir": str(tmp_path / "run")}


def of_teacher(job, name):
    model = job["embedding" if name == "delift_se" else "teacher"]["model"]
    job["teacher"] = {"name": name, "model": model, "less": LESS, "max_tokens": 512}
    return job


def run_usage(job):
    """What the score stage of the real run was asked for."""
    directory = run(parse_config(job), until="score")
    sample, score = (directory.artifact(name).manifest for name in ("3-sample", "4-teacher"))
    usage = score["usage"]
    answers = {
        "candidate": usage.get("features_candidate_rows", 0),
        "target": usage.get("features_target_rows", 0),
        "pair": usage.get("pairs_rows", 0),
    }
    return answers, sample["counts"]


@pytest.mark.parametrize("own_target", [False, True])
@pytest.mark.parametrize(
    ("teacher", "sample"),
    [
        ("delift", {"fraction": 0.1}),
        ("delift", {"fraction": 0.1, "design": "block"}),
        ("delift", {"fraction": 0.1, "design": "stratified"}),
        ("delift_se", {"fraction": 0.1}),
        ("delift_se", {"fraction": 1}),
        ("less", {"fraction": 0.1}),
        ("selectit", {"fraction": 0.1}),
        ("selectit", {"fraction": 1}),
    ],
)
def test_the_teacher_is_asked_for_what_was_planned(job, teacher, sample, own_target):
    of_teacher(job, teacher)["sample"] |= sample
    if own_target:
        del job["target"]
    plan = make_plan(parse_config(job))
    answers, counts = run_usage(job)
    # clusters change which rows are drawn: some more or fewer different targets, a pair with itself
    default = "scattered" if teacher == "delift" else "stratified"
    near = 0.08 if sample.get("design", default) == "stratified" else 0.0
    for kind, number in plan.asked.answers.items():
        assert number == pytest.approx(answers[kind], rel=near, abs=0), kind
    if sample["fraction"] < 1:
        assert plan.asked.training == pytest.approx(counts["training_pairs"], rel=near, abs=0)
    score = next(stage for stage in plan.stages if stage.name == "score")
    assert score.rows == sum(plan.asked.answers.values())
    # in all, not side by side: a row that is on both is asked once, as the candidate that it is
    whole = plan.asked_everything.answers
    assert sum(whole.values()) >= score.rows
    assert all(whole[kind] >= plan.asked.answers[kind] for kind in whole if kind != "target")


def test_the_gate_is_asked_for_what_was_planned(job):
    model = job["teacher"]["model"]
    teacher = {"name": "ifd", "model": model, "max_tokens": 512}
    audit = {"candidates": 30, "max_share": 0.5}
    sample = {"fraction": 0.3, "audit": audit}
    job["quality"] = {"teacher": teacher, "sample": sample, "drop_worst": 0.1}
    plan = make_plan(parse_config(job))
    directory = run(parse_config(job), until="quality")
    usage = directory.artifact("4q-teacher").manifest["usage"]
    names = [stage.name for stage in plan.stages]
    assert names[-5:-2] == ["quality_score", "quality_fit", "quality_predict"]
    score = plan.stages[names.index("quality_score")]
    assert score.calls == score.rows == usage["features_candidate_rows"] > 0
    assert score.worker_seconds > 0 and score.low <= score.worker_seconds <= score.high
    without = make_plan(parse_config({k: v for k, v in job.items() if k != "quality"}))
    more = headline(plan)["teacher_calls"] - headline(without)["teacher_calls"]
    assert more == score.calls
    assert "quality_score" in [stage.name for stage in plan.everything]


def test_a_gate_that_costs_nothing_is_not_in_the_plan(job):
    gate = {"teacher": {"name": "fit"}, "drop_worst": 0.1}
    plan = make_plan(parse_config({**job, "quality": gate}))
    assert not any(stage.name.startswith("quality") for stage in plan.stages)


def test_nothing_is_left_behind_and_nothing_is_touched(job, tmp_path):
    before = set(tmp_path.iterdir())
    make_plan(parse_config(job))
    assert set(tmp_path.iterdir()) == before


def test_more_is_dearer(job):
    plan = make_plan(parse_config(job))
    dear = make_plan(parse_config({**job, "sample": {**job["sample"], "fraction": 0.4}}))
    assert dear.asked.calls > 2 * plan.asked.calls
    assert plan.asked_everything.answers == dear.asked_everything.answers
    assert 0.9 * 300 * 60 < plan.asked_everything.answers["pair"] <= 300 * 60
    assert plan.asked_everything.calls == sum(plan.asked_everything.answers.values())
    assert [stage.name for stage in plan.stages] == [
        "ingest", "embed", "score", "fit", "predict", "select", "report",
    ]  # fmt: skip
    assert "fit" not in [stage.name for stage in plan.everything]


def test_hours_on_machines():
    def stage(threads, accelerates):
        return StageEstimate("x", 1, 0, 800.0, 0, 0, 10.0, threads, 1, 1, accelerates)

    cpus, gpus = Machines("cpus", 8, 0), Machines("gpus", 8, 4)
    assert stage(2, True).wall_seconds(cpus, None) == 10 + 800 / 4
    assert stage(0, False).wall_seconds(cpus, None) == 810
    assert stage(2, True).wall_seconds(gpus, None) is None
    assert stage(2, True).wall_seconds(gpus, 50.0) == 10 + 800 / 200
    assert stage(2, False).wall_seconds(gpus, 50.0) == 10 + 800 / 4
    assert wall_of([stage(2, True), stage(0, False)], gpus, None) is None


def test_the_table_and_the_headline_say_the_same(job):
    plan = make_plan(parse_config(job), cluster=Machines("mine", 64, 0))
    text, told = table(plan.stages, plan), headline(plan)
    assert json.loads(json.dumps(told)) == told
    assert f"{told['teacher_calls']:,}" in text and "mine" in text
    assert told["run"]["wall_seconds"].keys() == {"this machine", "mine"}
    assert told["everything"]["calls"] == told["full_teacher_calls"]


def write_cluster(path, **types):
    path.write_text(yaml.safe_dump({"cluster_name": "c", "head_node_type": "head",
                                    "max_workers": 3, "available_node_types": types}))  # fmt: skip
    return path


def test_a_cluster_file(tmp_path):
    path = write_cluster(
        tmp_path / "c.yaml",
        head={"resources": {"CPU": 0}, "max_workers": 0},
        cpu={"resources": {"CPU": 16}, "max_workers": 4},
        gpu={"resources": {"CPU": 8, "GPU": 1}},
    )
    assert read_cluster(path) == Machines("c", 4 * 16 + 3 * 8, 3)


def test_bad_cluster_files_say_what_is_wrong(tmp_path):
    with pytest.raises(SettingsError, match="does not say its resources"):
        read_cluster(write_cluster(tmp_path / "c.yaml", gpu={"max_workers": 2}))
    (tmp_path / "d.yaml").write_text("a: [")
    for path in (tmp_path / "d.yaml", tmp_path / "none.yaml"):
        with pytest.raises(SettingsError, match="not a cluster file"):
            read_cluster(path)


@pytest.mark.slow
def test_the_estimate_of_the_demo_is_within_half_of_the_run(tmp_path):
    """Real models on the demo corpus: a quarter of an hour on two cores."""
    root = Path(__file__).resolve().parents[2]
    config = load_config(
        root / "jobs/configs/demo.yaml",
        {
            "corpus.path": str(root / "demo/corpus.jsonl"),
            "target.path": str(root / "demo/target.jsonl"),
            "run_dir": str(tmp_path / "run"),
        },
    )
    plan = make_plan(config)
    directory = run(config)
    estimates = {stage.name: stage for stage in plan.stages}
    assert plan.asked.calls == directory.artifact("4-teacher").manifest["usage"]["calls"]
    for name, folder in (("embed", "2-embeddings"), ("score", "4-teacher")):
        real = directory.artifact(folder).manifest["usage"]["seconds"]
        say(f"{name}: {estimates[name].worker_seconds:.0f} s planned, {real:.0f} s")
        assert real / 1.5 < estimates[name].worker_seconds < real * 1.5
    walls = [read_json(path)["wall_seconds"] for path in directory.path.glob("*/manifest.json")]
    planned = wall_of(plan.stages, plan.machines[0], None)
    say(f"all: {planned:.0f} s planned, {sum(walls):.0f} s")
    assert sum(walls) / 1.5 < planned < sum(walls) * 1.5
