"""New rows for a finished run: what is computed, what is left alone, what is added."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.config import parse_config
from engine.errors import InputError, RunDirectoryError, SettingsError
from engine.influence.predict import predict_influence
from engine.network.influence_network import InfluenceNetwork
from engine.selection.select import select
from engine.stages.additions import ADDITION_STAGES, headline, score_new
from engine.stages.drift import distance_drift
from engine.stages.pipeline import run
from tests.small_job import write_rows


@pytest.fixture(scope="module")
def old(small_job, tmp_path_factory):
    """A finished run, of a teacher that is cheap to ask."""
    folder = tmp_path_factory.mktemp("additions")
    job = {
        **small_job,
        "teacher": {"name": "delift_se", "model": small_job["embedding"]["model"]},
        "student": {"name": "network"},
        "features": ["text"],
        "network": {"epochs": 40, "num_workers": 1, "main_effects": False},
        "selection": {"budget": 4},
        "run_dir": str(folder / "run"),
    }
    directory = run(parse_config(job), until="select")
    write_rows(folder / "new.jsonl", 50, 9, "n")
    return directory, folder, job


def joined(artifact, group):
    return np.concatenate(
        [np.load(artifact.directory / part.path) for part in artifact.parts(group)]
    )


def files_of(directory, *folders):
    paths = [p for folder in folders for p in (directory.path / folder).rglob("*") if p.is_file()]
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in paths}


def test_new_rows_get_the_influence_of_the_frozen_network_and_old_rows_are_left_alone(old):
    directory, folder, _ = old
    mine = ("1-corpus", "2-embeddings", "3-sample", "5-student", "6-influence")
    before = files_of(directory, *mine, "7-selection")
    added = score_new(directory.path, str(folder / "new.jsonl"))
    assert files_of(directory, *mine, "7-selection") == before
    network = InfluenceNetwork.load(directory.artifact("5-student").path("student"))
    vectors = joined(added.artifact("2-embeddings"), "candidates")
    targets = joined(directory.artifact("2-embeddings"), "targets")
    influence = joined(added.artifact("6-influence"), "dense")
    assert influence.shape == (50, 60)
    np.testing.assert_allclose(influence, predict_influence(network, vectors, targets), atol=1e-6)
    assert added.artifact("2-embeddings").counts["candidates"] == 50


def test_the_influence_is_that_of_a_run_over_old_and_new_rows_with_the_same_network(old, tmp_path):
    directory, folder, job = old
    added = score_new(directory.path, str(folder / "new.jsonl"))
    both = {**job, "corpus": {"path": [job["corpus"]["path"], str(folder / "new.jsonl")]}}
    config = parse_config({**both, "run_dir": str(tmp_path / "both")})
    whole = run(config, until="embed")
    # all pairs of all rows, by the frozen network, in the units of the run
    from engine.runtime.local import LocalExecutor
    from engine.runtime.stage import StageContext
    from engine.stages import predict as predict_stage

    inputs = {stage: directory.artifact(name) for stage, name in FOLDERS.items()}
    inputs |= {"ingest": whole.artifact("1-corpus"), "embed": whole.artifact("2-embeddings")}
    rerun = whole.path / "6-influence"
    rerun.mkdir()
    result = predict_stage.run(StageContext(config, rerun, inputs, LocalExecutor()))
    again = np.concatenate([np.load(rerun / part.path) for part in result.parts["dense"]])
    mine = joined(added.artifact("6-influence"), "dense")
    # the encoder rounds a row a little differently in other company; the network does not
    np.testing.assert_allclose(again[300:], mine, rtol=1e-6)
    assert (again[300:] == mine).mean() > 0.9
    before = joined(directory.artifact("6-influence"), "dense")
    np.testing.assert_allclose(again[:300], before, rtol=1e-6)
    means = np.load(rerun / "mean_influence.npy")
    new_means = np.load(added.artifact("6-influence").path("means"))
    np.testing.assert_allclose(means[300:], new_means, rtol=1e-6)


FOLDERS = {
    "sample": "3-sample",
    "score": "4-teacher",
    "fit": "5-student",
    "predict": "6-influence",
    "select": "7-selection",
}


def test_additions_are_the_conditional_gain_beside_the_subset(old):
    directory, folder, _ = old
    budget = {
        "selection.budget": 10,
        "selection.nu": 0.99,
        "selection.zero_gain_tail": "by_mean_influence",
    }
    added = score_new(directory.path, str(folder / "new.jsonl"), overrides=budget, overwrite=True)
    labels = pq.read_table(directory.artifact("4-teacher").path("labels")).to_pandas()
    scores = labels["score"][labels["quadrant"] == 0]
    low, high = np.float32(scores.min()), np.float32(scores.max())
    rows = pq.read_table(directory.artifact("7-selection").path("ranking"))["row"].to_numpy()

    def scaled(artifact):
        return np.maximum((joined(artifact, "dense") - low) / (high - low), 0)

    owned = scaled(directory.artifact("6-influence"))[rows].max(axis=0)
    new = scaled(added.artifact("6-influence"))
    wanted = select(
        new.T,
        10,
        "facility_location_conditional_gain",
        owned=owned,
        nu=0.99,
        mean_influence=np.load(added.artifact("6-influence").path("means")),
    )
    found = pq.read_table(added.artifact("7-selection").path("ranking"))
    assert len(found) == 10 and wanted.gains[0] > 0
    assert found["row"].to_pylist() == wanted.ranking.tolist()
    np.testing.assert_allclose(found["gain"].to_numpy(), wanted.gains, rtol=1e-4)
    told = headline(added)
    merged = pq.read_table(told["subset"]).to_pandas()
    assert len(merged) == 4 + told["added"] == told["merged"]
    assert merged["rank"].tolist() == list(range(1, len(merged) + 1))
    assert merged["added"].sum() == told["added"] and merged["id"].is_unique
    assert not merged["added"][:4].any()
    old_subset = pq.read_table(directory.artifact("7-selection").path("subset")).to_pandas()
    assert merged["id"][:4].tolist() == old_subset["id"].tolist()


def test_scoring_the_same_rows_again_does_nothing(old):
    directory, folder, _ = old
    added = score_new(directory.path, str(folder / "new.jsonl"), overwrite=True)
    before = files_of(directory, "additions", "4-teacher")
    assert score_new(directory.path, str(folder / "new.jsonl")).path == added.path
    assert files_of(directory, "additions", "4-teacher") == before


def test_another_setting_is_refused_or_redone(old):
    directory, folder, _ = old
    first = score_new(directory.path, str(folder / "new.jsonl"), overwrite=True)
    count = first.artifact("7-selection").counts["selected"]
    corpus, other = (
        str(folder / "new.jsonl"),
        {"selection.budget": 2, "selection.zero_gain_tail": "random"},
    )
    with pytest.raises(RunDirectoryError, match=r"selection.budget: .* then, 2 now.*--overwrite"):
        score_new(directory.path, corpus, overrides=other)
    again = score_new(directory.path, corpus, overrides=other, overwrite=True)
    assert again.artifact("7-selection").counts["selected"] == 2
    score_new(directory.path, corpus, overwrite=True)
    assert first.artifact("7-selection").counts["selected"] == count
    with pytest.raises(SettingsError, match=r"--network\.hidden is a setting of the run"):
        score_new(directory.path, corpus, overrides={"network.hidden": [3]})


def test_rows_of_the_run_are_passed_over_and_changed_ones_refused(old, tmp_path):
    directory, _, job = old
    lines = Path(job["corpus"]["path"]).read_text(encoding="utf-8").splitlines()
    changed = {**json.loads(lines[0]), "output": "another answer"}
    fresh = {**json.loads(lines[1]), "id": "fresh", "output": "something new"}
    texts = [json.dumps(row) for row in (changed, fresh)]
    (tmp_path / "mixed.jsonl").write_text("\n".join([*lines[5:25], *texts]) + "\n")
    added = score_new(directory.path, str(tmp_path / "mixed.jsonl"))
    counts = added.artifact("1-corpus").counts
    assert (counts["candidates"], counts["candidates_known"]) == (1, 20)
    assert counts["candidates_quarantined"] == 1
    quarantine = added.artifact("1-corpus").parts("quarantine")[0].path
    (row,) = pq.read_table(added.path / "1-corpus" / quarantine).to_pylist()
    assert "occurs before: another row" in row["reason"]
    with pytest.raises(InputError, match=r"nothing new in .*: all 300 rows are in the run already"):
        score_new(directory.path, job["corpus"]["path"])
    assert not list((directory.path / "additions").glob("corpus-*"))


def test_a_later_corpus_comes_after_the_additions_before_it(small_job, tmp_path):
    job = {
        **small_job,
        "teacher": {"name": "delift_se", "model": small_job["embedding"]["model"]},
        "selection": {"budget": 4},
        "run_dir": str(tmp_path / "run"),
    }
    directory = run(parse_config(job), until="select")
    write_rows(tmp_path / "a.jsonl", 50, 9, "n")
    first = score_new(
        directory.path,
        str(tmp_path / "a.jsonl"),
        overrides={"selection.budget": 10, "selection.nu": 0.99},
    )
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    write_rows(tmp_path / "b.jsonl", 50, 11, "m")
    more = (tmp_path / "b.jsonl").read_text()
    (tmp_path / "b.jsonl").write_text("\n".join(lines[:10]) + "\n" + more)
    second = score_new(
        directory.path,
        str(tmp_path / "b.jsonl"),
        overrides={"selection.budget": 20, "selection.nu": 0.99},
    )
    assert second.artifact("1-corpus").counts["candidates_known"] == 10
    merged = pq.read_table(second.artifact("8-merged").path("subset")).to_pandas()
    earlier = pq.read_table(first.artifact("8-merged").path("subset")).to_pandas()
    assert merged["id"][: len(earlier)].tolist() == earlier["id"].tolist()
    assert merged["added"].sum() == len(merged) - 4 > len(earlier) - 4 > 0
    owned, before = (joined(added.artifact("6-influence"), "owned") for added in (second, first))
    assert (owned >= before - 1e-6).all()  # a row's factors round by where it lies
    # the first corpus still finds its own addition
    same = {"selection.budget": 10, "selection.nu": 0.99}
    assert score_new(directory.path, str(tmp_path / "a.jsonl"), overrides=same).path == first.path


@pytest.mark.parametrize("objective", ["top_mean", "facility_location_mutual_information"])
def test_other_objectives(old, tmp_path, objective):
    _, folder, job = old
    config = parse_config(
        {**job, "run_dir": str(tmp_path / "run"), "selection": {"objective": objective}}
    )
    fresh = run(config, until="select")
    added = score_new(fresh.path, str(folder / "new.jsonl"), overrides={"selection.budget": 8})
    counts = added.artifact("7-selection").counts
    assert counts["objective"] == objective and counts["selected"] == 8


def test_a_corpus_that_is_its_own_target(small_job, tmp_path):
    job = {**small_job, "target": None, "run_dir": str(tmp_path / "run")}
    job["teacher"] = {"name": "delift_se", "model": small_job["embedding"]["model"]}
    directory = run(parse_config(job), until="select")
    write_rows(tmp_path / "new.jsonl", 40, 9, "n")
    added = score_new(directory.path, str(tmp_path / "new.jsonl"))
    assert added.artifact("6-influence").counts["targets"] == 40
    assert added.artifact("5-drift").counts["audited"] > 100


def test_a_run_that_cannot_be_added_to(small_job, tmp_path):
    job = {**small_job, "run_dir": str(tmp_path / "run"), "sample": {"fraction": 1}}
    job["teacher"] = {"name": "delift_se", "model": small_job["embedding"]["model"]}
    write_rows(tmp_path / "new.jsonl", 40, 9, "n")
    with pytest.raises(RunDirectoryError, match=r"stage ingest of .* is not finished"):
        score_new(tmp_path / "run", str(tmp_path / "new.jsonl"))
    run(parse_config(job), until="select")
    with pytest.raises(SettingsError, match="has no student to score new rows with"):
        score_new(tmp_path / "run", str(tmp_path / "new.jsonl"))


# --- drift ---------------------------------------------------------------------------------------


def test_drift_is_audited_by_the_teacher_of_the_run(old):
    directory, folder, _ = old
    added = score_new(directory.path, str(folder / "new.jsonl"), overwrite=True)
    counts = added.artifact("5-drift").counts
    assert counts["audited"] == 20 * 16
    assert counts["far_share"] < 0.15, "the new rows are of the same kind"
    told = json.loads(added.artifact("5-drift").path("drift").read_text())
    assert set(told["audit"]["quadrants"]) == {"Q3"}, "all targets were asked about"


def test_rows_of_another_kind_are_noticed(old, tmp_path):
    directory, _, _ = old
    with open(tmp_path / "odd.jsonl", "w", encoding="utf-8") as file:
        for i in range(60):
            row = {"id": f"x{i}", "instruction": f"{i} 漢字 " * (i % 5 + 3), "output": "λόγος " * 9}
            file.write(json.dumps(row) + "\n")
    added = score_new(
        directory.path, str(tmp_path / "odd.jsonl"), overrides={"drift.audit_candidates": 0}
    )
    counts = added.artifact("5-drift").counts
    assert counts["refit"] and counts["far_share"] > 0.9 and counts["audited"] is None
    assert "lie farther from what the student learned from" in counts["reasons"][0]


def test_distances_by_hand():
    training = np.array([[1, 0]], dtype=np.float32)
    reference = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    told, distances = distance_drift(np.array([[0, 1], [1, 0]], np.float32), reference, training)
    np.testing.assert_allclose(distances, [1, 0])
    assert told["far_distance"] == pytest.approx(0.95 * 0.4)
    assert told["far_share"] == 0.5 and told["ks"] == 0.5


def test_every_stage_of_an_addition_has_a_manifest(old):
    directory, folder, _ = old
    added = score_new(directory.path, str(folder / "new.jsonl"), overwrite=True)
    for stage in ADDITION_STAGES:
        assert added.artifact(stage.directory).manifest["kind"] == stage.name


def test_trust_in_a_models_code_is_not_taken_from_a_run_directory(old, tmp_path):
    directory, folder, _ = old
    run_dir = tmp_path / "run"
    shutil.copytree(directory.path, run_dir, ignore=shutil.ignore_patterns("additions"))
    values = json.loads((run_dir / "config.json").read_text())
    values["embedding"]["model"]["trust_remote_code"] = True
    (run_dir / "config.json").write_text(json.dumps(values))
    name = "embedding.model.trust_remote_code"
    for overrides in ({}, {name: False}, {name: "yes"}):
        with pytest.raises(SettingsError, match=f"say so yourself, --{name} true"):
            score_new(run_dir, str(folder / "new.jsonl"), overrides=overrides)
    assert not (run_dir / "additions").exists()
    added = score_new(run_dir, str(folder / "new.jsonl"), overrides={name: True})
    assert added.artifact("2-embeddings").manifest["settings"]["embedding"]["model"][
        "trust_remote_code"
    ]


@pytest.mark.parametrize("name", ["../../elsewhere", "/etc", "a/b", "..", ""])
def test_earlier_additions_lie_in_the_run(old, tmp_path, name):
    directory, folder, _ = old
    run_dir = tmp_path / "run"
    shutil.copytree(directory.path, run_dir)
    added = score_new(run_dir, str(folder / "new.jsonl"))
    (added.path / "origin.json").write_text(json.dumps({"after": [name]}))
    with pytest.raises(RunDirectoryError, match="names folders that are not additions of this run"):
        score_new(run_dir, str(folder / "new.jsonl"))


def test_new_rows_are_compared_with_the_mean_gradient_that_the_run_had(small_job, tmp_path):
    """LESS with cos_of_mean: targets that are asked about later do not move the mean."""
    less = {"lora_rank": 2, "lora_alpha": 4, "warmup_epochs": 1, "projection_dim": 64}
    job = {
        **small_job,
        "teacher": {
            **small_job["teacher"],
            "name": "less",
            "less": {**less, "aggregation": "cos_of_mean"},
        },
        "sample": {**small_job["sample"], "design": "block"},
        "student": {"name": "linear"},
        "run_dir": str(tmp_path / "run"),
    }
    directory = run(parse_config(job), until="select")
    write_rows(tmp_path / "new.jsonl", 20, 9, "n")
    added = score_new(directory.path, str(tmp_path / "new.jsonl"))
    labels = pq.read_table(added.artifact("4-teacher").path("labels")).to_pandas()
    asked = pq.read_table(directory.artifact("3-sample").path("pairs"))["target"].to_pylist()
    assert len(labels) and np.isfinite(labels["score"]).all()
    assert not set(labels["target"]) <= set(asked)
    (store,) = (directory.path / "4-teacher/store").glob("less-*")
    assert len(list(store.glob("pairs-*"))) == 1
