"""Scores that people have: how files are read, what is refused, what is learned and held out."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.artifacts.files import read_table
from engine.config import parse_config
from engine.errors import RunDirectoryError, SettingsError
from engine.network.training_set import MIN_LABELS
from engine.planning.sizes import asked_for
from engine.stages.additions import headline, score_new
from engine.stages.arms import arms_of
from engine.stages.pipeline import run
from engine.stages.sample import MIN_TRAINING
from engine.study.study import run_study
from engine.teachers.designs import split_given
from tests.small_job import write_rows


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two corpora of 60 rows: with ids c0, c1, ... and with ids 0, 1, ..."""
    folder = tmp_path_factory.mktemp("given")
    write_rows(folder / "few.jsonl", 60, 1, "c")
    write_rows(folder / "numbered.jsonl", 60, 1, "")
    return folder


@pytest.fixture
def job(small_job, corpus, tmp_path):
    """Settings of a run with the scores of a file, which `write` writes."""
    return {
        **small_job,
        "corpus": {"path": str(corpus / "few.jsonl")},
        "sample": {"audit": {"candidates": 12, "targets": 8}},
        "teacher": {"name": "given", "given": {"path": str(tmp_path / "scores.csv")}},
        "student": {"name": "linear"},
        "features": ["text", "length"],
        "selection": {"budget": 10},
        "run_dir": str(tmp_path / "run"),
    }


def write(job, content, suffix=".csv"):
    """Write the scores of a job; returns the job with their path."""
    path = Path(job["run_dir"]).with_name(f"scores{suffix}")
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        pq.write_table(content, path)
    return with_given(job, path=str(path))


def with_given(job, **settings):
    teacher = job["teacher"]
    return {**job, "teacher": {**teacher, "given": {**teacher["given"], **settings}}}


def lines_of(count, score=lambda i: i % 7, prefix="c"):
    return "".join(f"{prefix}{i},{score(i)}\n" for i in range(count))


def sampled(job):
    """The sample of a job as {candidate row: (quadrant, score)}, and its counts."""
    artifact = run(parse_config(job), until="sample", overwrite=True).artifact("3-sample")
    rows = read_table(artifact.path("pairs")).to_pylist()
    return {r["candidate"]: (r["quadrant"], r["score"]) for r in rows}, artifact.counts


def refused(job, match, **kwargs):
    with pytest.raises(SettingsError, match=match) as caught:
        run(parse_config(job), until="sample", **kwargs)
    assert "\n" not in str(caught.value)


# --- reading -------------------------------------------------------------------------------------


def test_three_formats_say_the_same(job):
    ids = [f"c{i}" for i in range(40)]
    scores = [float(i % 7) for i in range(40)]
    csv = write(job, "id,score\n" + lines_of(40))
    jsonl = "\n".join(json.dumps({"id": i, "score": s}) for i, s in zip(ids, scores, strict=True))
    jsonl = write(job, jsonl, ".jsonl")
    parquet = write(job, pa.table({"id": ids, "score": scores}), ".parquet")
    found = [sampled(one)[0] for one in (csv, jsonl, parquet)]
    assert found[0] == found[1] == found[2]
    assert {row: score for row, (_, score) in found[0].items()} == {i: i % 7 for i in range(40)}


@pytest.mark.parametrize(
    "ids",
    [pa.array(range(30)), pa.array([float(i) for i in range(30)]), pa.array(range(30), pa.int32())],
)
def test_numbers_are_ids_as_text(job, corpus, ids):
    job = {**job, "corpus": {"path": str(corpus / "numbered.jsonl")}}
    found, counts = sampled(write(job, pa.table({"id": ids, "score": range(30)}), ".parquet"))
    assert {row: score for row, (_, score) in found.items()} == {i: i for i in range(30)}
    assert counts["given_unknown_ids"] == 0
    text = write(job, "id,score\n" + "".join(f"{i}.0,{i}\n" for i in range(30)))
    assert sampled(text)[0] == found


def test_columns_and_annotators_are_averaged_and_what_is_left_out_is_counted(job, capsys):
    text = "row,a,b\nc0,1,3\nc0,5,\nc1,,\nc2,nan,4\nnobody,1,1\nnobody,2,2\nstranger,3,3\n"
    text += "".join(f"c{i},{i},{i}\n" for i in range(3, 33))
    job = with_given(write(job, text), columns=["a", "b"], id_column="row")
    found, counts = sampled(job)
    assert found[0][1] == (2 + 5) / 2 and found[2][1] == 4 and 1 not in found
    assert len(found) == 32
    told = {name: value for name, value in counts.items() if name.startswith("given")}
    assert told == {
        "given_lines": 37,
        "given_averaged_lines": 1,
        "given_empty_lines": 1,
        "given_unknown_lines": 3,
        "given_unknown_ids": 2,
    }
    said = capsys.readouterr().err
    assert "scores.csv gives the scores of 32 rows, as means of 33 lines." in said
    assert (
        "2 of its ids are not in the corpus, such as 'nobody'; lines left out for that: 3" in said
    )
    assert "because they have no score: 1." in said


def test_a_low_score_can_be_a_good_one_and_truth_is_a_score(job):
    text = "id,score\n" + lines_of(40, lambda i: ["true", "false"][i % 2])
    found, _ = sampled(with_given(write(job, text), higher_is_better=False))
    assert {score for _, score in found.values()} == {0, -1}
    assert found[0][1] == -1


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("id,score\n" + lines_of(30, prefix="x"), r"scores nothing that is in the corpus .*'x0'"),
        ("id,score\nc0,1\nc1,good\n", r"row 2 of .* has 'good' in column 'score'"),
        ("id,score\nc0,1\nc1,inf\n", r"row 2 of .* has 'inf'"),
        ("id,score\n" + lines_of(30, lambda i: 3), "everything the same score, 3"),
        (
            "id,scores\n" + lines_of(30),
            "no column 'score'; it has: id, scores; did you mean scores",
        ),
        ("name,score\n" + lines_of(30), "no column 'id'; it has: name, score"),
        ("id,score,candidate_id,target_id\nc0,1,c0,t0\n", "'id', of scores of rows, and"),
        ("candidate_id,score\nc0,1\n", "no column 'target_id'"),
        ("id,score\n" + lines_of(9), "scores 9 rows of the corpus, 2 of them for the audit"),
        ("id,score\n", "holds no scores"),
        ("", "no column 'id'|no readable .csv"),
        ("id,score\nc0,1,2\n", "is no readable .csv file"),
    ],
)
def test_a_file_of_no_use_is_told_in_a_sentence(job, text, match):
    refused(write(job, text), match)


def test_a_file_that_is_not_there_or_no_table(job, tmp_path):
    refused(job, "teacher.given.path: no such file: .*scores.csv")
    refused(write(job, "x", ".txt"), r"does not end in one of .parquet, .jsonl, .csv")
    refused(write(job, "not json", ".jsonl"), "no readable .jsonl file")
    refused(write(job, "[1]\n", ".jsonl"), "line 1 holds no JSON object")
    refused(write(job, "PAR1", ".parquet"), "no readable .parquet file")
    lists = pa.table({"id": ["c0", "c1"], "score": [[1.0], [2.0]]})
    refused(write(job, lists, ".parquet"), "of type list<.*>, and scores are numbers")


def test_a_useless_file_is_refused_before_anything_is_embedded(job):
    job = write(job, "id,score\nc0,good\n")
    refused(job, "'good'")
    assert not (Path(job["run_dir"]) / "2-embeddings").exists()


@pytest.mark.parametrize(
    ("sections", "match"),
    [
        ({"teacher": {"name": "given"}}, "setting teacher.given.path is missing"),
        ({"teacher": {"name": "given", "path": "a.csv"}}, "is teacher.given.path"),
        ({"selection": {"budget": 5, "second_look": 2}}, "second_look asks the teacher again"),
        ({"gate": {"on_low_fidelity": "extend"}}, "extend asks the teacher for more"),
        ({"sample": {"fraction": 0.1}}, "sample.fraction is of teachers that are asked"),
        (
            {"evaluation": {"test": {"path": "t.jsonl"}, "arms": ["random", "teacher"]}},
            "evaluation.arms: teacher asks the teacher about everything",
        ),
        ({"selection": {"objective": "facility_location"}}, "given scores rows, not pairs"),
    ],
)
def test_what_asks_a_teacher_does_not_go_with_given_scores(job, sections, match):
    with pytest.raises(SettingsError, match=match):
        parse_config({**job, **sections})


def test_a_study_asks_about_everything(job):
    study = {**write(job, "id,score\n" + lines_of(40)), "study": {"grid": {"seed": [0, 1]}}}
    with pytest.raises(SettingsError, match="nobody can ask given, a file"):
        run_study(parse_config(study))


def test_an_evaluation_without_the_teachers_arm_compares_the_student(job):
    evaluation = {"test": {"path": "t.jsonl"}, "arms": ["random", "network"]}
    config = parse_config({**job, "evaluation": evaluation})
    assert [arm.name for arm in arms_of(config)] == ["Random", "NN+given"]


# --- what is held out ----------------------------------------------------------------------------


def test_a_student_takes_as_many_labels_as_are_asked_of_a_file():
    assert MIN_TRAINING == MIN_LABELS


def settings_of(**values):
    return parse_config({"corpus": {"path": "x"}, "sample": values}).sample


def test_rows_are_held_out_by_hash_up_to_a_share():
    hashes = np.random.default_rng(0).integers(2**63, size=100).astype(np.uint64)
    rows = np.arange(0, 100, 2)
    pairs = np.stack([rows, np.zeros_like(rows)], axis=1)
    audit = split_given(pairs, [hashes], settings_of(audit={"candidates": 10}), False)
    assert audit.sum() == 10
    assert hashes[rows[audit]].min() > hashes[rows[~audit]].max()
    few = {"candidates": 10, "max_share": 0.1}
    fewer = split_given(pairs, [hashes], settings_of(audit=few), False)
    assert fewer.sum() == 5 and (audit | fewer).sum() == 10


@pytest.mark.parametrize("known_targets", [40, 60])
def test_pairs_are_held_out_by_whole_rows(known_targets):
    pairs, hashes = some_pairs(known_targets)
    settings = settings_of(audit={"candidates": 12, "targets": 8})
    audit = split_given(pairs, hashes, settings, False)
    assert 0.25 < audit.mean() <= settings.audit.max_share
    learned = pairs[~audit]
    new = [np.setdiff1d(pairs[:, side], learned[:, side]) for side in (0, 1)]
    for side, rows in enumerate(new):  # all that come last by hash
        order = np.unique(pairs[:, side])[np.argsort(hashes[side][np.unique(pairs[:, side])])]
        assert set(rows) == set(order[len(order) - len(rows) :])
    assert len(new[0]) == (12 if known_targets == 60 else 8)
    # where every target of the corpus has scores none is new to the student: none is given up
    assert len(new[1]) == (0 if known_targets == 60 else 5)
    single = audit & ~np.isin(pairs[:, 0], new[0]) & ~np.isin(pairs[:, 1], new[1])
    assert 0.05 < single.mean() <= settings.held_out


def test_where_candidates_are_their_own_targets_a_row_is_held_out_on_both_sides():
    pairs, hashes = some_pairs(60)
    audit = split_given(pairs, [hashes[0]] * 2, settings_of(audit={"candidates": 12}), True)
    learned = pairs[~audit]
    held_out = np.setdiff1d(pairs, learned)
    assert len(held_out) >= 3 and not np.isin(held_out, learned).any()


def some_pairs(known_targets):
    """Half of all pairs of 60 candidates and some of 60 targets, and the hashes of both sides."""
    chooser = np.random.default_rng(1)
    hashes = [chooser.integers(2**63, size=60).astype(np.uint64) for _ in range(2)]
    every = np.stack(np.divmod(np.arange(60 * known_targets), known_targets), axis=1)
    return every[chooser.random(len(every)) < 0.5], hashes


def test_the_file_may_say_what_is_held_out(job):
    text = "id,score,split\n" + "".join(
        f"c{i},{i % 5},{'audit' if i < 10 else 'train'}\n" for i in range(40)
    )
    found, _ = sampled(with_given(write(job, text), split_column="split"))
    assert {row for row, (quadrant, _) in found.items() if quadrant} == set(range(10))
    assert {quadrant for quadrant, _ in found.values()} == {0, 4}
    wrong = with_given(write(job, text.replace("audit", "test")), split_column="split")
    refused(wrong, "row 1 of .* has 'test' in column 'split'", overwrite=True)


# --- runs ----------------------------------------------------------------------------------------


def test_scores_of_rows_become_a_subset_and_a_changed_file_is_a_changed_setting(job):
    job = write(job, "id,score\nnobody,1\n" + lines_of(40))
    directory = run(parse_config(job))
    ledger = json.loads((directory.path / "8-report" / "ledger.json").read_text())
    assert ledger["teacher_calls"] == 0 and ledger["saved"] is None
    page = (directory.path / "8-report" / "report.html").read_text()
    assert "scores.csv gives the scores of 40 rows." in page and "such as &#39;nobody&#39;" in page
    assert directory.artifact("7-selection").counts["objective"] == "top_mean"
    subset = (directory.path / "7-selection" / "ranking.parquet").read_bytes()
    write(job, "id,score\nnobody,1\n" + lines_of(40, lambda i: -(i % 7)))
    with pytest.raises(RunDirectoryError, match=r"content.*--overwrite"):
        run(parse_config(job))
    run(parse_config(job), overwrite=True)
    assert (directory.path / "7-selection" / "ranking.parquet").read_bytes() != subset


def test_where_everything_is_scored_no_student_is_needed(job):
    job = write(job, "id,score\n" + lines_of(60, lambda i: (i * 17) % 60))
    directory = run(parse_config(job), until="select")
    assert directory.artifact("5-student").counts["student"] is None
    picked = read_table(directory.artifact("7-selection").path("ranking"))["row"].to_pylist()
    assert [(row * 17) % 60 for row in picked] == list(range(59, 49, -1))


def test_new_rows_are_scored_by_the_student_and_not_audited(job, tmp_path, capsys):
    job = write(job, "id,score\n" + lines_of(40))
    directory = run(parse_config(job), until="select")
    (tmp_path / "scores.csv").unlink()  # nobody is asked, so nobody needs it
    write_rows(tmp_path / "new.jsonl", 30, 9, "n")
    found = headline(score_new(directory.path, str(tmp_path / "new.jsonl")))
    assert found["audited_pairs"] is None and found["new_rows"] > 0
    assert "nobody can be asked about new rows" in capsys.readouterr().err


def test_a_plan_asks_nobody(job):
    job = write(job, "id,score\n" + lines_of(40))
    config = parse_config(job)
    corpus = run(config, until="ingest").artifact("1-corpus")
    asked, full = asked_for(config, corpus)
    assert (asked.calls, asked.training, asked.learned, full.calls) == (0, 30, 30, 0)


def test_pairs_of_a_delift_run_give_the_subset_that_it_gave(job, small_job, tmp_path):
    settings = {"fraction": 0.4, "audit": {"candidates": 12, "targets": 8}}
    asking = {**job, "teacher": small_job["teacher"], "sample": settings}
    first = run(parse_config({**asking, "run_dir": str(tmp_path / "asked")}), until="select")
    labels = read_table(first.artifact("4-teacher").path("labels"))
    table = pa.table(
        {
            "candidate_id": [f"c{row}" for row in labels["candidate"].to_pylist()],
            "target_id": [f"t{row}" for row in labels["target"].to_pylist()],
            "score": labels["score"],
            "split": ["audit" if q else "train" for q in labels["quadrant"].to_pylist()],
        }
    )
    given = with_given(write({**asking, "teacher": job["teacher"]}, table, ".parquet"))
    given = with_given({**given, "sample": {}}, split_column="split")
    second = run(parse_config(given), until="select")
    assert second.artifact("4-teacher").counts["pairs"] == len(table)
    for name in ("pairs", "ranking"):
        stage = {"pairs": "3-sample", "ranking": "7-selection"}[name]
        one, other = (read_table(d.artifact(stage).path(name)) for d in (first, second))
        assert one.equals(other.select(one.column_names)), name
