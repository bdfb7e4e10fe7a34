"""Leaks and duplicates: what is found among candidates, told, left out, or stops the job."""

import hashlib
import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.artifacts.rows import TableParts
from engine.config import parse_config
from engine.corpus import screening
from engine.errors import InputError, LeakError, SettingsError
from engine.stages.pipeline import run

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
WORDS = [f"{a}{b}{c}" for a in "bdklmnprst" for b in "aeiou" for c in ("", "n", "rt", "st")]
TEMPLATE = "Read the following text with care and then pick the best answer from all of the options"


def sentence(draw, count):
    return " ".join(draw.choices(WORDS, k=count))


def row(prompt, answer, **more):
    return {"instruction": prompt, "input": "", "output": answer, **more}


def write(path, rows):
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return str(path)


@pytest.fixture
def pool():
    """300 rows that have nothing in common but a template, and 20 rows like them."""
    draw = random.Random(5)
    made = [
        row(f"{TEMPLATE if n % 2 else 'Say:'} {sentence(draw, 30)}", sentence(draw, 8), id=f"c{n}")
        for n in range(300)
    ]
    tests = [
        row(f"{TEMPLATE} {sentence(draw, 30)}", sentence(draw, 8), id=f"t{n}") for n in range(20)
    ]
    return made, tests


def ingest(directory, corpus, *, executor="local", **settings):
    config = parse_config({"corpus": {"path": corpus}, **settings})
    found = run(config, run_dir=directory, until="ingest", executor=executor).artifact("1-corpus")
    ids = [
        i for t in TableParts(found, "candidates").iter_parts(["id"]) for i in t["id"].to_pylist()
    ]
    return found, ids


def table(found, group):
    return pq.read_table(found.path(group)).to_pylist()


def planted(tests):
    """A leak of each kind: id -> row."""
    words = tests[2]["instruction"].split()
    quoted = " ".join(words[-25:-5])
    clauses = [" ".join(words[:20]), " ".join(words[20:32]), " ".join(words[32:])]
    return {
        "same": {**tests[0], "id": "same"},
        "folded": row(tests[1]["instruction"].upper().replace(" ", "  ") + "?!", "z", id="folded"),
        "quoted": row(f"What does this mean: {quoted}, please?", "nothing much", id="quoted"),
        "reordered": row(" ".join(reversed(clauses)), "another answer", id="reordered"),
    }


def test_each_kind_of_leak_is_found_and_no_other_row(tmp_path, pool):
    made, tests = pool
    leaks = planted(tests)
    corpus = write(tmp_path / "corpus.jsonl", [*made[:150], *leaks.values(), *made[150:]])
    protect = write(tmp_path / "tests.jsonl", tests)
    found, ids = ingest(tmp_path / "run", corpus, protect=protect)
    told = {line["id"]: line for line in table(found, "leaks")}
    assert {name: line["kind"] for name, line in told.items()} == {
        "same": "exact",
        "folded": "exact",
        "quoted": "13-gram",
        "reordered": "13-gram",
    }
    assert [told[name]["protected_id"] for name in leaks] == ["t0", "t1", "t2", "t2"]
    assert told["same"]["line"] == 151 and told["same"]["protected_line"] == 1
    assert told["quoted"]["text"].startswith("What does this mean: ")
    assert told["quoted"]["protected_text"].endswith(tests[2]["output"])
    assert 0 < told["quoted"]["score"] < 1 and 0 < told["reordered"]["score"] < 1
    assert ids == [r["id"] for r in made]  # 13-gram and exact matches are left out
    assert found.counts["candidates_leaked"] == 4
    assert found.counts["leaks"] == {"protect": {"exact": 2, "13-gram": 2, "near": 0}}


def test_near_rows_are_told_and_stay(tmp_path, pool):
    made, tests = pool
    words = tests[3]["instruction"].split()
    for place in range(6, len(words), 12):  # no 13 words in a row are left
        words[place] = "changed"
    corpus = write(tmp_path / "corpus.jsonl", [*made, row(" ".join(words), "an answer", id="near")])
    protect = write(tmp_path / "tests.jsonl", tests)
    found, ids = ingest(tmp_path / "run", corpus, protect=protect)
    (line,) = table(found, "leaks")
    assert (line["id"], line["kind"], line["dropped"]) == ("near", "near", False)
    assert 0.7 <= line["score"] < 1 and "near" in ids
    kinds = {"kinds": ["exact", "13-gram", "near"]}
    _, ids = ingest(tmp_path / "other", corpus, protect=protect, on_leak=kinds)
    assert "near" not in ids
    found, _ = ingest(tmp_path / "third", corpus, protect=protect, on_leak={"near": None})
    assert table(found, "leaks") == []


def test_a_template_of_the_protected_rows_alone_is_no_leak(tmp_path, pool):
    """Few candidates have it, so only the protected rows tell that it is a template."""
    made, tests = pool
    few = [r for r in made if not r["instruction"].startswith(TEMPLATE)]
    few += [r for r in made if r["instruction"].startswith(TEMPLATE)][:5]
    many = [*tests, *(row(f"{TEMPLATE} {n} {n + 1}", "yes", id=f"m{n}") for n in range(10))]
    corpus, protect = write(tmp_path / "c.jsonl", few), write(tmp_path / "t.jsonl", many)
    found, ids = ingest(tmp_path / "run", corpus, protect=protect)
    assert table(found, "leaks") == [] and len(ids) == len(few)


def test_a_short_row_is_found_as_a_whole_only(tmp_path, pool):
    made, _ = pool
    corpus = write(
        tmp_path / "c.jsonl",
        [
            *made,
            row("Name the capital of Norway!", "Oslo", id="a"),
            row("Norway", "a land", id="b"),
        ],
    )
    protect = write(tmp_path / "t.jsonl", [row("name the  Capital of Norway", "It is Oslo")])
    found, _ = ingest(tmp_path / "run", corpus, protect=protect)
    assert [(line["id"], line["kind"]) for line in table(found, "leaks")] == [("a", "exact")]


def test_targets_are_warned_of_by_default(tmp_path, pool, capsys):
    made, _ = pool
    corpus = write(tmp_path / "c.jsonl", made)
    target = write(tmp_path / "t.jsonl", made[:5])
    found, ids = ingest(tmp_path / "run", corpus, target={"path": target})
    assert len(ids) == 300 and found.counts["leaks"]["targets"]["exact"] == 5
    said = capsys.readouterr().err
    assert "leak: 5 candidates repeat targets (5 exact)" in said and "all stay" in said
    _, ids = ingest(tmp_path / "b", corpus, target={"path": target}, on_leak={"targets": "drop"})
    assert len(ids) == 295


def test_the_test_set_of_the_evaluation_is_protected(tmp_path, pool):
    made, tests = pool
    corpus = write(tmp_path / "c.jsonl", [*made, tests[4]])
    evaluation = {"test": {"path": write(tmp_path / "t.jsonl", tests)}}
    found, ids = ingest(tmp_path / "run", corpus, evaluation=evaluation)
    assert len(ids) == 300 and found.counts["leaks"]["evaluation.test"]["exact"] == 1


def test_a_leak_can_stop_the_job(tmp_path, pool):
    made, tests = pool
    corpus = write(tmp_path / "c.jsonl", [*made, tests[4]])
    protect = write(tmp_path / "t.jsonl", tests)
    with pytest.raises(
        LeakError, match=r"1 candidates repeat rows of protect .*line 301.*drop"
    ) as e:
        ingest(tmp_path / "run", corpus, protect=protect, on_leak="fail")
    assert e.value.found == {"leaks": {"protect": {"exact": 1, "13-gram": 0, "near": 0}}}
    found, ids = ingest(tmp_path / "run", corpus, protect=protect, on_leak="warn")
    assert len(ids) == 301 and not table(found, "leaks")[0]["dropped"]


def test_a_pool_that_is_the_protected_set_is_refused(tmp_path, pool):
    corpus = write(tmp_path / "c.jsonl", pool[1])
    with pytest.raises(InputError, match=r"no candidate is left: .* repeat rows of protect"):
        ingest(tmp_path / "run", corpus, protect=[corpus])


def test_protected_rows_that_cannot_be_read_are_told(tmp_path, pool, capsys):
    made, tests = pool
    corpus = write(tmp_path / "c.jsonl", made)
    protect = write(tmp_path / "t.jsonl", [tests[0], {"id": "x", "instruction": "", "output": "a"}])
    ingest(tmp_path / "run", corpus, protect=protect)
    assert "1 rows of" in (said := capsys.readouterr().err) and "not protected" in said


@pytest.fixture
def repeated(pool):
    made, _ = pool
    words = f"{made[7]['instruction']}".split()
    longer = f"{' '.join(words)} and so on"
    return [
        *made,
        row(made[3]["instruction"].upper(), made[3]["output"] + ".", id="again", score=0.1),
        row(longer, made[7]["output"], id="longer", score=0.9),
        row(longer + "!", made[7]["output"], id="longer-again", score=None),
    ]


@pytest.mark.parametrize(
    ("duplicates", "gone"),
    [
        ("keep", []),
        ({}, []),
        ("exact", ["again", "longer-again"]),
        ("near", ["again", "longer", "longer-again"]),
        ("first", ["again", "longer", "longer-again"]),
        ("longest", ["c3", "c7", "longer"]),
        ({"drop": "exact", "stays": "longest"}, ["c3", "longer"]),
        (
            {"drop": "near", "stays": "best", "score_column": "score"},
            ["c3", "c7", "longer-again"],
        ),
    ],
)
def test_one_row_of_each_group_stays(tmp_path, repeated, duplicates, gone):
    corpus = write(tmp_path / "c.jsonl", repeated)
    found, ids = ingest(tmp_path / "run", corpus, duplicates=duplicates)
    assert sorted({r["id"] for r in repeated} - set(ids)) == gone
    assert ids == [r["id"] for r in repeated if r["id"] not in gone]
    if duplicates in ("keep", {}):
        assert "duplicates" not in found.manifest["parts"]
        return
    lines = table(found, "duplicates")
    assert sorted(line["id"] for line in lines) == gone
    assert all(line["kept_id"] in ids for line in lines)
    assert found.counts["candidates_duplicates"] == len(gone)
    if duplicates == "first":
        kept = {line["id"]: (line["kept_id"], line["kept_line"], line["kind"]) for line in lines}
        assert kept["again"] == ("c3", 4, "exact")
        assert kept["longer"] == kept["longer-again"] == ("c7", 8, "near")
        assert all(0.8 <= line["similarity"] <= 1 for line in lines)


def test_rows_that_are_said_twice_are_told_where_they_are_looked_at(tmp_path, repeated, capsys):
    corpus, tests = write(tmp_path / "c.jsonl", repeated), write(tmp_path / "t.jsonl", TWO)
    found, ids = ingest(tmp_path / "run", corpus, protect=tests)
    assert len(ids) == len(repeated) and found.counts["candidates_repeated"] == 2
    assert "2 candidates have the words of an earlier one, and stay" in capsys.readouterr().err


TWO = [row("Name the capital of Norway", "Oslo"), row("Name the capital of Sweden", "Stockholm")]


def test_a_score_column_that_no_row_has_is_refused(tmp_path, pool):
    corpus = write(tmp_path / "c.jsonl", pool[0])
    best = {"drop": "exact", "stays": "best", "score_column": "grade"}
    with pytest.raises(SettingsError, match="no candidate has a number in 'grade'"):
        ingest(tmp_path / "run", corpus, duplicates=best)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"duplicates": "best"}, "score_column"),
        ({"on_leak": "stop"}, "on_leak"),
        ({"on_leak": {"kinds": ["12-gram"]}}, "on_leak.kinds"),
        ({"protect": 7}, "protect"),
    ],
)
def test_wrong_settings_are_told(settings, said):
    with pytest.raises(SettingsError, match=said):
        parse_config({"corpus": {"path": "a.jsonl"}, **settings})


def test_nothing_depends_on_the_cut_into_files_or_the_executor(
    tmp_path, pool, repeated, ray_local, monkeypatch
):
    _, tests = pool
    rows = [*repeated, *planted(tests).values()]
    protect = write(tmp_path / "t.jsonl", tests)
    whole = write(tmp_path / "whole.jsonl", rows)
    pieces = [write(tmp_path / f"p{n}.jsonl", rows[n * 61 : (n + 1) * 61]) for n in range(6)]
    assert 5 * 61 < len(rows) <= 6 * 61
    outcomes = []
    for name, corpus, executor in (
        ("a", whole, "local"),
        ("b", pieces, "local"),
        ("c", pieces, "ray"),
    ):
        if executor == "ray":  # by a pool of actors, however few rows there are
            monkeypatch.setattr(screening, "FEW", 0)
        found, ids = ingest(
            tmp_path / name, corpus, protect=protect, duplicates="first", executor=executor
        )
        lines = {g: table(found, g) for g in ("leaks", "duplicates")}
        shas = [hashlib.sha256(found.path(g).read_bytes()).hexdigest() for g in lines]
        places = ("file", "line", "kept_file", "kept_line")
        bare = [
            {k: v for k, v in line.items() if k not in places} for g in lines for line in lines[g]
        ]
        outcomes.append((ids, bare, shas))
    assert outcomes[0][:2] == outcomes[1][:2]
    assert outcomes[1] == outcomes[2]


def test_a_target_that_is_part_of_the_corpus_is_told(tmp_path, capsys):
    """What people reported of tools like this one: ../shared/data_reports/MANIFEST.md."""
    folder = SHARED / "data_reports"
    if not folder.is_dir():
        pytest.skip("no ../shared/data_reports beside this checkout")
    corpus, target = str(folder / "base.jsonl"), {"path": str(folder / "target_part.jsonl")}
    found, ids = ingest(tmp_path / "run", corpus, target=target)
    assert found.counts["leaks"]["targets"]["exact"] == 5 and len(ids) == found.counts["candidates"]
    assert "leak: 5 candidates repeat targets (5 exact)" in capsys.readouterr().err


def test_a_file_without_a_good_row_is_screened(tmp_path):
    for name, output in (("good", "yes it is"), ("bad", "")):
        row = {"id": name, "instruction": "is it so?", "output": output}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    for sides in (
        {},
        {"duplicates": {"drop": "near"}},
        {"protect": [str(tmp_path / "good.jsonl")]},
    ):
        corpus = {"path": [str(tmp_path / f"{name}.jsonl") for name in ("bad", "good")]}
        config = parse_config({"execution": "local", "corpus": corpus, "on_leak": "warn", **sides})
        made = run(config, run_dir=tmp_path / f"run-{'-'.join(sides)}", until="ingest")
        assert made.artifact("1-corpus").counts["candidates"] == 1
