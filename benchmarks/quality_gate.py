"""Does the quality gate keep bad rows out of a selection, and what does it cost in relevance?

    python benchmarks/quality_gate.py ask --work DIR --answers DIR2      # 10 minutes, resumes
    python benchmarks/quality_gate.py table --work DIR --answers DIR2 --json FILE

DIR2 is the --work of benchmarks/target_recovery.py, whose `ask` has filled it and whose words and
columns these are: 48,125 rows, a tenth of every category with a bad answer (that of another row of
the same category, of another category, or the first quarter of its own). RDS+ is learned from 2 %
of the rows; beside it IFD (packaged model, bfloat16, rows cut to 256 tokens) is asked about as many
and learned by `auto`, or `fit` is computed of every row. The judgement is the engine's own. Three
draws of the rows that RDS+ is asked about; picks are 2 % of the rows, by round robin.

dropped   share of the pool that the gate drops; dropped_bad, of the bad rows
bad       share of the picks that are bad; then of each kind, by chance .033 each
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import target_recovery as recovery
from benchmarks.provenance import markdown_table, save
from benchmarks.target_recovery import DEFAULT, MIXED, SEEDS, SHARES, Pool, Row
from engine import audit_predictions
from engine.artifacts.files import atomic_path
from engine.config import PACKAGED_LANGUAGE_MODEL, NetworkConfig, StudentConfig, TeacherConfig
from engine.config.quality import QualityConfig
from engine.network.training_set import TrainingSet
from engine.selection.quality import judge
from engine.students.choice import choose, fit_student
from engine.teachers.teacher import load_teacher
from engine.terminal.progress import say

SETS = ("gsm8k", "general", MIXED)
ASKED, AUDITED, PIECE = 0.02, 100, 128
RDS_ASKED = 0.02
SETTINGS: dict[str, Any] = {
    "name": "ifd",
    "model": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
    "max_tokens": 256,
    "ifd": {"form": "loss"},
}
GATES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "ifd, drop_worst 0.1": {"teacher": {"name": "ifd"}, "drop_worst": 0.1},
    "ifd, drop_worst 0.2": {"teacher": {"name": "ifd"}, "drop_worst": 0.2},
    "ifd, above 1": {"teacher": {"name": "ifd"}, "above": 1.0},
    "ifd, weight 1": {"teacher": {"name": "ifd"}, "weight": 1.0},
    "fit, drop_worst 0.1": {"teacher": {"name": "fit"}, "drop_worst": 0.1},
    "fit, drop_worst 0.2": {"teacher": {"name": "fit"}, "drop_worst": 0.2},
}

Array = NDArray[Any]


def asked_rows(count: int) -> Array:
    """The rows that IFD is asked about: those of the pool's order of hashes, taken evenly."""
    return np.linspace(0, count - 1, round(ASKED * count)).astype(np.int64)


def write_answers(work: Path) -> None:
    """IFD of the asked rows, a file per PIECE of them; files that are there are kept."""
    work.mkdir(parents=True, exist_ok=True)
    pool = recovery.pool_rows()
    asked = asked_rows(len(pool))
    teacher = load_teacher(TeacherConfig.model_validate(SETTINGS), 0)
    for start in range(0, len(asked), PIECE):
        path = work / f"ifd-{start:05d}.npz"
        if path.exists():
            continue
        rows = [recovery.example_of(pool[i]) for i in asked[start : start + PIECE]]
        found = teacher.features("candidate", rows)
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, values=found.values[:, 0])
        say(f"{path.stem}: {found.usage.tokens} tokens")


def learned_ifd(work: Path, pool: Pool) -> tuple[Array, Array, dict[str, Any]]:
    """Answers (M,), NaN where nobody asked, predictions (M,), and what the audit says."""
    values = np.concatenate([np.load(file)["values"] for file in sorted(work.glob("ifd-*.npz"))])
    asked = asked_rows(pool.size)[: len(values)]
    answers = np.full(pool.size, np.nan, np.float32)
    answers[asked] = values
    known = np.random.default_rng(0).permutation(asked[np.isfinite(values)])
    audited, learned = known[:AUDITED], known[AUDITED:]
    data = TrainingSet(
        pool.features[0][learned],
        None,
        _alone(np.arange(len(learned))),
        answers[learned],
        text_dim=pool.text[0].shape[1],
    )
    settings, network = StudentConfig(), NetworkConfig.model_validate({})
    choice = choose(data, settings, network, 0)
    student = fit_student(choice.student, choice.labels, data, settings, network, 0)
    predicted = student.predict_pairs(pool.features[0], None, _alone(np.arange(pool.size)))
    audit = audit_predictions(
        {"student": predicted[audited]},
        answers[audited],
        _alone(audited),
        training_labels=data.labels,
        pairwise=False,
        student=choice.student,
    )
    told = audit.to_dict()
    return answers, predicted, {k: told[k] for k in ("trusted", "spearman", "r2")}


def _alone(rows: Array) -> Array:
    return np.stack([rows, np.zeros_like(rows)], axis=1)


def table(work: Path, answers_dir: Path) -> Iterator[Row]:
    """A row for every target set and gate."""
    learned: tuple[Array, Array, dict[str, Any]] | None = None
    every = recovery.pool_rows()
    for name in SETS:
        pool = Pool(answers_dir, name)
        kinds = np.array([row["known_bad"] for row in every[: pool.size]])
        learned = learned or learned_ifd(work, pool)
        say(f"ifd: {learned[2]}")
        draws = [recovery.asked_of_all(pool, "rds", RDS_ASKED, 0, "vectors")]
        draws += [
            recovery.asked_of_all(pool, "rds", RDS_ASKED, s, "vectors") for s in range(1, SEEDS)
        ]
        for gate, values in GATES.items():
            dropped, penalty = np.zeros(pool.size, bool), np.zeros(pool.size)
            if values is not None:
                settings = QualityConfig.model_validate(values)
                answers, predicted, told = learned
                trusted = bool(told["trusted"])
                if settings.teacher.name == "fit":
                    answers, trusted = pool.features[0][:, FIT] / 3, True
                    predicted = answers
                found = judge(answers, predicted, settings, trusted)
                dropped = found.dropped
                penalty = penalty if found.penalty is None else found.penalty
            yield _row(pool, kinds, gate, dropped, penalty, draws)


# The feature `agreement` is three times the cosine of prompt and response; length has two numbers.
FIT = -3


def _row(
    pool: Pool, kinds: Array, gate: str, dropped: Array, penalty: Array, draws: list[Any]
) -> Row:
    kept = np.flatnonzero(~dropped)
    budget = round(SHARES[0] * pool.size)
    picked = []
    for draw in draws:
        influence = draw.influence[DEFAULT]
        lowered = influence - penalty[:, None] * influence.mean(axis=1).std()
        picks = recovery.ranked(
            pool, lowered[kept].astype(np.float32), draw.bounds, "round robin", budget
        )
        picked.append(kept[picks])
    measures = np.mean([pool.measures(pool.tally(picks)) for picks in picked], axis=0)
    row: Row = {
        "target": pool.name,
        "gate": gate,
        "dropped": float(dropped.mean()),
        "dropped_bad": float(dropped[pool.bad].mean()),
        **dict(zip(recovery.MEASURES, measures.tolist(), strict=True)),
    }
    for kind in sorted(set(kinds) - {""}):
        row[kind] = float(np.mean([(kinds[picks] == kind).mean() for picks in picked]))
    return row


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ask", "table"))
    parser.add_argument("--work", type=Path, required=True, help="where IFD's answers are kept")
    parser.add_argument("--answers", type=Path, required=True, help="--work of target_recovery.py")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "ask":
        write_answers(arguments.work)
        return
    rows = list(table(arguments.work, arguments.answers))
    print(markdown_table(rows, tuple(rows[0])))
    if arguments.json:
        said = {"asked": ASKED, "rds_asked": RDS_ASKED, "teacher": SETTINGS}
        save(arguments.json, "quality_gate", said, rows, threads=1)


if __name__ == "__main__":
    main()
