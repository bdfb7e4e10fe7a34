"""The whole pipeline on tiny models: what it leaves, what it skips, what it redoes."""

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.config import parse_config
from engine.errors import RunDirectoryError, SettingsError
from engine.stages import pipeline
from engine.stages.pipeline import STAGES, run


@pytest.fixture(scope="module")
def finished(small_job, tmp_path_factory):
    return run(parse_config(small_job), run_dir=tmp_path_factory.mktemp("runs") / "run")


def changed(settings, **sections):
    return parse_config({**settings, **{k: {**settings[k], **v} for k, v in sections.items()}})


def made_at(directory):
    return {
        stage.name: (directory.path / stage.directory / "manifest.json").stat().st_mtime_ns
        for stage in STAGES
        if (directory.path / stage.directory / "manifest.json").exists()
    }


def test_every_stage_leaves_a_manifest_whose_hashes_hold(finished):
    from engine.artifacts.files import file_sha256

    for stage in STAGES:
        artifact = finished.artifact(stage.directory)
        assert artifact.manifest["kind"] == stage.name
        for group in artifact.manifest["parts"]:
            for part in artifact.parts(group):
                assert file_sha256(artifact.directory / part.path) == part.sha256


def test_the_subset_has_all_columns_and_datasets_reads_it(finished, small_job, tmp_path):
    folder = finished.path / "7-selection"
    lines = Path(small_job["corpus"]["path"]).read_text().splitlines()
    given = [json.loads(line) for line in lines]
    by_id = {row["id"]: row for row in given}
    for builder, name in (("parquet", "subset.parquet"), ("json", "subset.jsonl")):
        rows = datasets.load_dataset(
            builder, data_files=str(folder / name), split="train", cache_dir=str(tmp_path)
        )
        assert len(rows) == 30
        assert list(rows["rank"]) == list(range(1, 31))
        for row in rows:
            assert by_id[row["id"]].items() <= row.items()
            assert np.isfinite([row["gain"], row["mean_influence"]]).all()


def test_labels_are_the_teachers_and_means_are_the_networks(finished):
    labels = pq.read_table(finished.path / "4-teacher" / "labels.parquet").to_pandas()
    assert (labels["quadrant"] == 0).sum() > 100
    assert labels["score"].between(-1, 1).all()
    influence = finished.artifact("6-influence")
    dense = np.concatenate(
        [np.load(influence.directory / part.path) for part in influence.parts("dense")]
    )
    means = np.load(influence.path("means"))
    assert dense.shape == (300, 60)
    np.testing.assert_allclose(dense.mean(axis=1), means, rtol=1e-4, atol=1e-5)


def test_a_second_run_does_nothing(finished, small_job):
    before = made_at(finished)
    run(parse_config(small_job), run_dir=finished.path)
    assert made_at(finished) == before


def test_other_settings_stop_with_what_differs_and_redo_only_what_depends(finished, small_job):
    before = made_at(finished)
    config = changed(small_job, selection={"budget": 20})
    with pytest.raises(RunDirectoryError, match=r"selection.budget: 30 then, 20 now.*--overwrite"):
        run(config, run_dir=finished.path)
    assert made_at(finished) == before
    run(config, run_dir=finished.path, overwrite=True)
    after = made_at(finished)
    redone = {name for name in after if after[name] != before[name]}
    assert redone == {"select", "report"}
    assert pq.read_table(finished.path / "7-selection" / "subset.parquet").num_rows == 20
    run(parse_config(small_job), run_dir=finished.path, overwrite=True)


def test_a_larger_sample_pays_only_for_the_new_pairs(finished, small_job):
    first = finished.artifact("4-teacher").counts
    config = changed(small_job, sample={"fraction": 0.25})
    later = run(config, run_dir=finished.path, until="score", overwrite=True)
    counts = later.artifact("4-teacher").counts
    assert counts["pairs"] > first["pairs"]
    assert counts["asked_now"] < counts["pairs"]
    again = run(parse_config(small_job), run_dir=finished.path, overwrite=True)
    assert again.artifact("4-teacher").counts["pairs"] == first["pairs"]


def test_a_budget_beyond_the_corpus_is_refused(finished, small_job):
    with pytest.raises(SettingsError, match="asks for 301 rows, the corpus has 300"):
        run(changed(small_job, selection={"budget": 301}), run_dir=finished.path, overwrite=True)
    run(parse_config(small_job), run_dir=finished.path, overwrite=True)


def test_unknown_stages_are_refused(small_job, tmp_path):
    with pytest.raises(SettingsError, match="the stages are ingest, embed"):
        run(parse_config(small_job), run_dir=tmp_path / "run", until="slect")


def test_the_corpus_can_be_its_own_target_with_a_sparse_kernel(small_job, tmp_path):
    settings = {**small_job, "teacher": {"name": "random"}}
    del settings["target"]
    settings["influence"] = {"max_dense_gib": 1e-6, "neighbours": 8}
    directory = run(parse_config(settings), run_dir=tmp_path / "run")
    counts = directory.artifact("6-influence").counts
    assert (counts["kernel"], counts["targets"]) == ("neighbours", 300)
    assert directory.artifact("7-selection").counts["selected"] == 30
    assert not directory.artifact("5-student").counts["trusted"], "noise cannot be learned"


@pytest.mark.parametrize(("dtype", "told"), [("bfloat16", True), ("float32", False)])
def test_emulated_precision_is_told(small_job, tmp_path, monkeypatch, capsys, dtype, told):
    monkeypatch.setattr(pipeline, "emulates_bfloat16", lambda: True)
    model = {**small_job["teacher"]["model"], "dtype": dtype}
    run(changed(small_job, teacher={"model": model}), run_dir=tmp_path / "run", until="ingest")
    assert ("--teacher.model.dtype float32" in capsys.readouterr().err) is told
