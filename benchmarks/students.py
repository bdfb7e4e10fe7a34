"""Which student predicts candidates that it has not seen, and what that costs.

    python benchmarks/students.py truth --work DIR                  # hours: models asked, resumes
    python benchmarks/students.py table --work DIR --json FILE      # minutes: students on answers
    python benchmarks/students.py growth --work DIR --json FILE     # the same at growing u
    python benchmarks/students.py verdicts --work DIR --json FILE   # the audit beside the truth
    python benchmarks/students.py scale --json FILE                 # a million rows, no model

Real rows: the demo, and both data sets of ../shared/data/corpus_small.parquet, 1,000 candidates
and 200 or 300 targets. The packaged models in float32, rows cut to 256 tokens: RDS+ and DELIFT (SE)
with language model states are asked about every row, LESS and SelectIT about 400 and 300, DELIFT
about 125 candidates with 20 targets each for training and 50 with 28 for the test. A draw is u =
5 % of the candidates (DELIFT: four fifths of those for training), all targets where a target costs
one pass; everything is judged on candidates that no draw of that teacher contains or, where all
were asked, on those that the draw does not. Means over 3 draws.

pairs     Spearman over pairs          within   the same, both less their target's mean
means     Spearman of candidates' mean influence
r2        over pairs                   top      overlap of the best 30 % by mean, chance .18
fit_s     CPU seconds of one fit, for auto with the cross-fit; predict_s of the judged pairs

Verdicts: half of the judged candidates, 100 at most, are the audit's; of the others a fifth is
picked, by round robin or for a teacher of rows the best, by `auto` and by the teacher itself. gain
is what the picks are worth to the teacher (to each target its ten best of them, or the mean score)
above random picks, as a share of what its own are worth above them. The verdict over pairs is the
one before it judged what selection uses.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from benchmarks.target_recovery import told_by
from engine import audit_predictions, select
from engine.config import (
    PACKAGED_ENCODER,
    PACKAGED_LANGUAGE_MODEL,
    FeatureName,
    ModelConfig,
    NetworkConfig,
    StudentConfig,
    TeacherConfig,
)
from engine.example import Example, content_key, order_hash
from engine.features.feature import assembled, text_lengths
from engine.kernels.product import unit_rows
from engine.kernels.ranks import order_within_targets, rank_correlation
from engine.network.training_set import TrainingSet
from engine.students.choice import choose, fit_student, targets_of
from engine.students.student import Student, student_class

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared/data/corpus_small.parquet"
DATASETS = ("demo", "superni_like", "alpaca_like")
TEACHERS = ("rds", "delift_se", "less", "selectit", "delift")
STUDENTS = ("vectors", "vector_network", "kernel", "linear", "cosine", "network")
DRAWS, SHARE, TOP = 3, 0.05, 0.3
TEN = 10
MAX_TOKENS = 256
TEXT: tuple[FeatureName, ...] = ("text", "prompt", "response", "agreement", "length")
FEATURES: dict[str, tuple[FeatureName, ...]] = {
    "text alone": ("text",),
    "default": TEXT,
    "language model": (*TEXT, "states", "losses"),
}
# Candidates asked about for training and for the test, the first and the last by hash.
ASKED = {"less": (150, 250), "selectit": (150, 150), "delift": (125, 50)}
DELIFT_TARGETS, DELIFT_TEST_TARGETS = 20, 28
MODEL = {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"}
SETTINGS: dict[str, dict[str, Any]] = {
    "less": {
        "name": "less",
        "model": MODEL,
        "max_tokens": MAX_TOKENS,
        "batch_size": 8,
        "less": {
            "lora_rank": 16,
            "lora_alpha": 64,
            "learning_rate": 2e-4,
            "warmup_epochs": 1,
            "projection_dim": 2048,
        },
    },
    "selectit": {"name": "selectit", "model": MODEL, "max_tokens": MAX_TOKENS},
    "delift": {
        "name": "delift",
        "model": MODEL,
        "max_tokens": 1024,
        "max_example_tokens": 128,
    },
}
COLUMNS = (
    "dataset",
    "teacher",
    "features",
    "u",
    "student",
    "chosen",
    "pairs",
    "within",
    "means",
    "r2",
    "top",
    "fit_s",
    "predict_s",
)
Array = NDArray[Any]


def main() -> None:
    """Do what was asked for, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("truth", "table", "growth", "verdicts", "scale"))
    parser.add_argument("--work", type=Path, help="where the answers are kept")
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--teachers", nargs="+", choices=TEACHERS, default=list(TEACHERS))
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS))
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=["default"])
    parser.add_argument(
        "--without-auto", dest="also", action="store_const", const=(), default=("auto",)
    )
    parser.add_argument(
        "--draws", type=int, default=DRAWS, help="fewer for the network's long fits"
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of scale")
    parser.add_argument("--json", type=Path, help="write the table here")
    arguments = parser.parse_args()
    if arguments.what == "truth":
        for dataset in arguments.datasets:
            write_truth(arguments.work, dataset, arguments.teachers)
        return
    rows: list[dict[str, Any]] = []
    sources = {"scale": lambda: scale(arguments.rows), "verdicts": lambda: verdicts(arguments)}
    for row in sources.get(arguments.what, lambda: table(arguments))():
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    columns = tuple(rows[0]) if arguments.what in ("scale", "verdicts") else COLUMNS
    print(markdown_table(rows, columns))
    if arguments.what == "verdicts":
        print("\n" + markdown_table(two_by_two(rows), tuple(two_by_two(rows)[0])))
    if arguments.json:
        told = {k: str(v) for k, v in vars(arguments).items() if k not in ("work", "json")}
        save(arguments.json, "students", {**told, "teachers": SETTINGS}, rows, threads=1)


# --- what the models say --------------------------------------------------------------------------


def rows_of(dataset: str) -> tuple[list[Example], list[Example]]:
    """Candidates and targets."""
    if dataset == "demo":
        sides = [
            [json.loads(line) for line in (ROOT / "demo" / name).read_text("utf-8").splitlines()]
            for name in ("corpus.jsonl", "target.jsonl")
        ]
    else:
        rows = pq.read_table(CORPUS)
        rows = rows.filter(pc.equal(rows["dataset"], dataset))
        sides = [rows.filter(pc.equal(rows["split"], s)).to_pylist() for s in ("train", "valid")]
    first, second = ([_example(row) for row in side] for side in sides)
    return first, second


def _example(row: dict[str, Any]) -> Example:
    texts = row["instruction"], row.get("input") or "", row["output"]
    key = content_key(*texts)
    return Example(str(row.get("id", key)), key, *texts)


def write_truth(work: Path, dataset: str, teachers: Sequence[str]) -> None:
    """Everything that a table needs of one data set; files that are there are kept."""
    work.mkdir(parents=True, exist_ok=True)
    sides = rows_of(dataset)
    wanted = ["features", "lm", *(t for t in teachers if t in SETTINGS)]
    for name in wanted:
        path = work / f"{dataset}-{name}.npz"
        if path.exists():
            continue
        started = time.perf_counter()
        if name == "features":
            found = _embeddings(*sides)
        elif name == "lm":
            found = _readings(*sides)
        else:
            found = _answers(name, *sides, work / f"{dataset}-{name}.prepared")
        np.savez(path, **found)
        print(f"{dataset} {name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)


def _embeddings(candidates: list[Example], targets: list[Example]) -> dict[str, Any]:
    from engine.models.encoder import Encoder

    encoder, found = Encoder(ModelConfig(path=PACKAGED_ENCODER)), {}
    for side, rows in (("c", candidates), ("t", targets)):
        for name, texts in (
            ("z", [row.text for row in rows]),
            ("x", [row.prompt for row in rows]),
            ("y", [row.output for row in rows]),
        ):
            started = time.process_time()
            found[f"{name}_{side}"] = encoder.encode(texts, 32).vectors
            found[f"s_{name}_{side}"] = np.array(time.process_time() - started)
    return found


def _readings(candidates: list[Example], targets: list[Example]) -> dict[str, Any]:
    from engine.models.language_model import LanguageModel
    from engine.models.prompt_tokenizer import TrainingRow, tokenised_row

    model, found = LanguageModel(ModelConfig(**MODEL)), {}
    mark = model.tokenize("\n##Answer:")
    for side, examples in (("c", candidates), ("t", targets)):
        rows = [tokenised_row(model.tokenizer, MAX_TOKENS, row, True)[0] for row in examples]
        asked = [row for row in rows if isinstance(row, TrainingRow)]
        assert len(asked) == len(rows), "a row without a response"
        started = time.process_time()
        whole = model.read_rows(asked, 16, True)
        found[f"s_lm_{side}"] = np.array(time.process_time() - started)
        found[f"rds_{side}"] = whole.weighted_states
        alone = [TrainingRow(mark, row.response) for row in asked]
        found[f"mean_{side}"], found[f"loss_xy_{side}"] = whole.states, whole.losses
        found[f"loss_y_{side}"] = model.read_rows(alone, 16, True).losses
    return found


def _answers(
    name: str, candidates: list[Example], targets: list[Example], prepared: Path
) -> dict[str, Any]:
    from engine.teachers.teacher import load_teacher, teacher_class

    settings, kind = TeacherConfig.model_validate(SETTINGS[name]), teacher_class(name)
    if share := kind.preparation_share(settings):
        order = sorted(candidates, key=lambda row: order_hash(0, "prepare", row.id))
        if not prepared.exists():
            kind.prepare(settings, 0, order[: max(2, round(share * len(order)))], prepared)
    teacher = load_teacher(settings, 0, prepared if share else None)
    order = np.argsort([order_hash(0, "candidate", row.id) for row in candidates])
    num_training, num_test = ASKED[name]
    asked = np.concatenate([order[:num_training], order[len(order) - num_test :]])
    found: dict[str, Any] = {"asked": asked, "num_labelled": num_training}
    started = time.process_time()
    if name == "delift":
        found |= _pairs(teacher, candidates, targets, asked, num_training)
    else:
        features = teacher.features("candidate", [candidates[i] for i in asked]).values
        if kind.pairwise:
            of_targets = teacher.features("target", targets).values
            found["S"] = np.stack(
                [
                    teacher.score(candidates[i], feature, targets, of_targets).values
                    for i, feature in zip(asked, features, strict=True)
                ]
            )
        else:
            found["S"] = features
    found["seconds"] = time.process_time() - started
    return found


def _pairs(
    teacher: Any, candidates: list[Example], targets: list[Example], asked: Array, num_training: int
) -> dict[str, Any]:
    """Scattered pairs for training, a block for the test of which 16 targets are unseen."""
    order = np.argsort([order_hash(0, "target", row.id) for row in targets])
    unseen, seen = order[-16:], order[:-16]
    test_targets = np.concatenate([unseen, seen[: DELIFT_TEST_TARGETS - 16]])
    pairs = [(c, t) for c in asked[num_training:] for t in test_targets]
    for c in asked[:num_training]:
        chooser = np.random.default_rng(order_hash(0, "candidate", candidates[c].id))
        pairs += [(c, t) for t in chooser.choice(seen, DELIFT_TARGETS, replace=False)]
    wanted = np.array(sorted(set(pairs)))
    errors = teacher.features("target", targets).values
    labels = np.full(len(wanted), np.nan, np.float32)
    for c in np.unique(wanted[:, 0]):
        some = np.flatnonzero(wanted[:, 0] == c)
        rows = [targets[t] for t in wanted[some, 1]]
        labels[some] = teacher.score(candidates[c], None, rows, errors[wanted[some, 1]]).values
    return {"pairs": wanted, "labels": labels, "audit": asked[num_training:]}


# --- students on answers --------------------------------------------------------------------------


def table(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for every data set, teacher, set of features and student."""
    shares = (SHARE,) if arguments.what == "table" else (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    for dataset in arguments.datasets:
        for teacher in arguments.teachers:
            for features in arguments.features:
                if features == "language model" and teacher in ("rds", "delift_se"):
                    continue  # that is the teacher itself
                for share in shares:
                    yield from _measured(arguments, dataset, teacher, features, share)


def _measured(
    arguments: argparse.Namespace, dataset: str, teacher: str, features: str, share: float
) -> Iterator[dict[str, Any]]:
    try:
        problem = Problem(arguments.work, dataset, teacher, FEATURES[features])
    except FileNotFoundError as missing:
        print(f"left out, not asked yet: {missing.filename}", file=sys.stderr)
        return
    if share > problem.most:
        return
    found: dict[str, list[dict[str, Any]]] = {}
    for draw in range(arguments.draws):
        known, test, labels = problem.drawn(draw, share)
        for name in (*arguments.students, *arguments.also):
            if name != "auto" and not student_class(name).learns_from(known):
                continue
            found.setdefault(name, []).append(_tried(name, known, problem, test, labels))
    for name, rows in found.items():
        numbers = [key for key, value in rows[0].items() if isinstance(value, float)]
        yield {
            "dataset": dataset,
            "teacher": teacher,
            "features": features,
            "u": share,
            "labels": int(np.mean([row["labels"] for row in rows])),
            "student": name,
            "chosen": "/".join(row["chosen"] for row in rows) if name == "auto" else None,
            **{key: float(np.mean([row[key] for row in rows])) for key in numbers},
        }


class Problem:
    """What is known of one data set by one teacher, as training sets and tests."""

    def __init__(
        self, work: Path, dataset: str, teacher: str, features: Sequence[FeatureName]
    ) -> None:
        self.teacher = teacher
        embeddings, readings = (np.load(work / f"{dataset}-{n}.npz") for n in ("features", "lm"))
        sides = zip("ct", rows_of(dataset), strict=True)
        self.features = [
            assembled(
                features,
                {
                    "text": embeddings[f"z_{side}"],
                    "prompt": embeddings[f"x_{side}"],
                    "response": embeddings[f"y_{side}"],
                    "length": text_lengths(rows),
                    "reading": np.concatenate(
                        [
                            readings[f"mean_{side}"],
                            readings[f"loss_xy_{side}"][:, None],
                            readings[f"loss_y_{side}"][:, None],
                        ],
                        axis=1,
                    ),
                },
            )
            for side, rows in sides
        ]
        self.text_dim = embeddings["z_c"].shape[1]
        self.most = 0.4
        self.vectors: list[Array] | None = None
        if teacher in ("rds", "delift_se"):
            name = "rds" if teacher == "rds" else "mean"
            self.vectors = [np.asarray(unit_rows(readings[f"{name}_{side}"])) for side in "ct"]
        else:
            self.answers = dict(np.load(work / f"{dataset}-{teacher}.npz"))
            if teacher == "less":  # rows too long have no gradient, on either side
                scored = np.isfinite(self.answers["S"]).any(axis=0)
                self.answers["S"] = self.answers["S"][:, scored]
                self.features[1] = self.features[1][scored]
            self.most = int(self.answers["num_labelled"]) / len(self.features[0])
            if teacher == "delift":  # one design, whatever the share
                self.most = SHARE

    def drawn(self, draw: int, share: float) -> tuple[TrainingSet, Array, Array]:
        """Training set, judged pairs (n, 2) of all rows, and their labels (n,)."""
        num = len(self.features[0])
        count = max(2, round(share * num))
        if self.vectors is not None:
            order = np.random.default_rng(draw).permutation(num)
            return self._by_vectors(np.sort(order[:count]), np.sort(order[count:]))
        if self.teacher == "delift":
            return self._by_pairs(draw)
        asked, num_labelled = self.answers["asked"], int(self.answers["num_labelled"])
        chosen = np.random.default_rng(draw).permutation(num_labelled)[:count]
        if share == SHARE:  # draws that share no row
            chosen = np.arange(draw * count, (draw + 1) * count)
        chosen = chosen[np.isfinite(self.answers["S"][chosen]).any(axis=1)]
        matrix, test = self.answers["S"], np.arange(num_labelled, len(asked))
        known = self._set(asked[chosen], _block(len(chosen), matrix.shape[1]), matrix[chosen])
        pairs = _block(len(test), matrix.shape[1])
        judged = np.stack([asked[test][pairs[:, 0]], pairs[:, 1]], axis=1)
        there = np.isfinite(matrix[test].ravel())
        return known, judged[there], matrix[test].ravel()[there]

    def _set(self, rows: Array, pairs: Array, labels: Array) -> TrainingSet:
        pairwise = self.teacher != "selectit"
        known = np.isfinite(labels.ravel())  # the teacher cannot score every row
        pairs, labels = pairs[known], labels.ravel()[known]
        return TrainingSet(
            self.features[0][rows],
            self.features[1] if pairwise else None,
            pairs,
            labels.ravel().astype(np.float32),
            text_dim=self.text_dim,
        )

    def _by_vectors(self, rows: Array, test: Array) -> tuple[TrainingSet, Array, Array]:
        """As the score stage: RDS+ is centred by the asked candidates, DELIFT (SE) as published."""
        assert self.vectors is not None, "of such a teacher"
        centre = self.vectors[0][rows].mean(axis=0) if self.teacher == "rds" else 0
        of_c, of_t = (vectors - centre for vectors in self.vectors)
        matrix = unit_rows(of_c) @ unit_rows(of_t).T
        self.target_vectors = of_t
        known = TrainingSet(
            self.features[0][rows],
            self.features[1],
            _block(len(rows), len(of_t)),
            matrix[rows].ravel(),
            text_dim=self.text_dim,
            candidate_vectors=of_c[rows],
            target_vectors=of_t,
        )
        pairs = _block(len(test), len(of_t))
        judged = np.stack([test[pairs[:, 0]], pairs[:, 1]], axis=1)
        return known, judged, matrix[test].ravel()

    def _by_pairs(self, draw: int) -> tuple[TrainingSet, Array, Array]:
        """Four fifths of the training candidates, others for each draw."""
        pairs, labels = self.answers["pairs"], self.answers["labels"]
        in_test = np.isin(pairs[:, 0], self.answers["audit"])
        rows = np.unique(pairs[~in_test, 0])
        kept = np.delete(rows, np.arange(draw, len(rows), 5))
        used = np.isin(pairs[:, 0], kept) & ~in_test
        numbers, c = np.unique(pairs[used, 0], return_inverse=True)
        known = self._set(numbers, np.stack([c, pairs[used, 1]], axis=1), labels[used])
        return known, pairs[in_test], labels[in_test]


def _block(num_rows: int, num_columns: int) -> Array:
    return np.argwhere(np.ones((num_rows, num_columns), bool))


def _tried(
    name: str, known: TrainingSet, problem: Problem, test: Array, labels: Array
) -> dict[str, Any]:
    # every form of the labels but for the network, whose fits are dear: auto tries them
    settings = StudentConfig(name=name, labels="raw" if name == "network" else "auto")
    network = NetworkConfig.model_validate({})
    started = time.process_time()
    choice = choose(known, settings, network, 0)
    student = fit_student(choice.student, choice.labels, known, settings, network, 0)
    fit_s = time.process_time() - started
    started = time.process_time()
    predicted = student.predict_pairs(problem.features[0], _targets(student, known), test)
    predict_s = time.process_time() - started
    within, means = order_within_targets(predicted, labels, test)
    wide = predicted.astype(np.float64), labels.astype(np.float64)
    return {
        "chosen": choice.student + ("" if choice.labels == "raw" else f" ({choice.labels})"),
        "labels": len(known.labels),
        "pairs": float(rank_correlation(*wide)),
        "within": within,
        "means": means,
        "r2": float(1 - np.square(wide[0] - wide[1]).mean() / wide[1].var()),
        "top": _top_overlap(*wide, test[:, 0]),
        "fit_s": fit_s,
        "predict_s": predict_s,
    }


def _targets(student: Student, known: TrainingSet) -> Array | None:
    return targets_of(known, student)


def _top_overlap(predicted: Array, labels: Array, rows: Array) -> float:
    _, ids = np.unique(rows, return_inverse=True)
    count = max(1, round(TOP * (ids.max() + 1)))
    best = [np.argsort(-np.bincount(ids, v), kind="stable")[:count] for v in (predicted, labels)]
    return len(np.intersect1d(*best)) / len(np.union1d(*best))


# --- verdicts -------------------------------------------------------------------------------------


def verdicts(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What the audit says of `auto` in every draw, and what its picks gain to the teacher."""
    for dataset in arguments.datasets:
        for teacher in arguments.teachers:
            try:
                problem = Problem(arguments.work, dataset, teacher, FEATURES["default"])
            except FileNotFoundError:
                continue
            for draw in range(DRAWS):
                told = _verdict(problem, *problem.drawn(draw, SHARE), draw)
                yield {"dataset": dataset, "teacher": teacher, "draw": draw, **told}


def _verdict(
    problem: Problem, known: TrainingSet, test: Array, labels: Array, draw: int
) -> dict[str, Any]:
    settings, network = StudentConfig(), NetworkConfig.model_validate({})
    choice = choose(known, settings, network, draw)
    fitted = {
        name: fit_student(
            name, choice.labels if name == choice.student else "raw", known, settings, network, draw
        )
        for name in dict.fromkeys((choice.student, "cosine", "linear"))
        if name == choice.student or student_class(name).learns_from(known)
    }
    rows = np.random.default_rng(draw).permutation(np.unique(test[:, 0]))
    audited = np.isin(test[:, 0], rows[: min(100, len(rows) // 2)])
    predicted = {
        "student" if name == choice.student else name: one.predict_pairs(
            problem.features[0], _targets(one, known), test
        )
        for name, one in fitted.items()
    }
    audit = audit_predictions(
        {name: values[audited] for name, values in predicted.items()},
        labels[audited],
        test[audited],
        quadrants=np.full(int(audited.sum()), 3),
        pairwise=known.targets is not None,
        training_labels=known.labels,
        judged_quadrant=3,
        student=choice.student,
        seed=draw,
    )
    told = told_by(audit)
    names = ("trusted_by_pairs", "trusted", "within", "means")
    rest = test[~audited], labels[~audited], predicted["student"][~audited]
    return {"chosen": choice.student, **{n: told[n] for n in names}, "gain": _gain(*rest, draw)}


def _gain(pairs: Array, truth: Array, predicted: Array, draw: int) -> float:
    """See the first lines; a pair that the teacher was not asked about is worth its least."""
    (_, c), (_, t) = (np.unique(side, return_inverse=True) for side in pairs.T)
    shape = c.max() + 1, t.max() + 1
    low = truth.min()
    kernels = [np.zeros(shape, np.float32) for _ in range(2)]
    for kernel, values in zip(kernels, (truth, predicted), strict=True):
        kernel[c, t] = values - values.min() + 1e-6
    budget = max(1, shape[0] // 5)

    def worth(picks: Array) -> float:
        whole = np.full(shape, low)
        whole[c, t] = truth
        best = np.sort(whole[picks], axis=0)
        return float((best[-TEN:] if shape[1] > 1 else best).mean())

    picked = [
        np.asarray(select(kernel.T, budget, "round_robin", seed=0).ranking)
        if shape[1] > 1
        else np.argsort(-kernel[:, 0], kind="stable")[:budget]
        for kernel in kernels
    ]
    chooser = np.random.default_rng(draw)
    chance = np.mean([worth(chooser.permutation(shape[0])[:budget]) for _ in range(200)])
    own, theirs = (worth(picks) - chance for picks in picked)
    return float(theirs / own)


def two_by_two(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both verdicts beside whether the picks gain half of what the teacher's own gain."""
    return [
        {
            "verdict": name,
            "said": "trusted" if said else "not trusted",
            "gain of .5 and more": sum(row["gain"] >= 0.5 for row in some),
            "less": sum(row["gain"] < 0.5 for row in some),
            "mean gain": float(np.mean([row["gain"] for row in some])) if some else None,
        }
        for name in ("trusted_by_pairs", "trusted")
        for said in (True, False)
        for some in [[row for row in rows if row[name] == said]]
    ]


# --- a million rows -------------------------------------------------------------------------------


def scale(num_rows: int) -> Iterator[dict[str, Any]]:
    """Synthetic rows x 200 targets: a fit with 4,096 landmarks, and prediction block by block."""
    from engine import VectorStudent, mean_influence
    from engine.kernels.product import Grid, largest_factor, product_block

    dim, size, num_targets, labelled, block = 1155, 576, 200, 50_000, 65_536
    chooser = np.random.default_rng(0)
    mixing = chooser.normal(size=(dim, size)).astype(np.float32) / dim**0.5

    def rows(start: int, count: int) -> Array:
        noise = np.random.default_rng([1, start]).normal(size=(count, dim))
        return (noise / dim**0.5).astype(np.float32)

    features = rows(0, labelled)
    vectors = np.tanh(features @ mixing)
    before = _peak()
    started, cpu = time.perf_counter(), time.process_time()
    student = VectorStudent.fit(features, vectors, max_landmarks=4096)
    yield _scaled("fit", labelled, started, cpu, before)
    del features
    targets = vectors[:num_targets]
    started, cpu, before = time.perf_counter(), time.process_time(), _peak()
    inside = 0.0
    for start in range(0, num_rows, block):
        some = rows(start, min(block, num_rows - start))
        begun = time.perf_counter()
        factors = student.candidate_factors(some)
        columns = student.target_factors(targets)
        grid = Grid.of(largest_factor(factors), largest_factor(columns), size)
        product_block(factors, columns, grid)
        inside += time.perf_counter() - begun
    row = _scaled("predict", num_rows, started, cpu, before)
    flops = 2.0 * num_rows * (4096 * (dim + size) + num_targets * size)
    plain = _matrix_product_rate()
    yield {
        **row,
        "wall_s": inside,
        "gflops": flops / inside / 1e9,
        "plain_gflops": plain,
        "ratio": flops / inside / 1e9 / plain,
    }
    del some
    size_of_means = min(num_rows, 1_000_000)
    both = [chooser.standard_normal((size_of_means, 64), np.float32) for _ in range(2)]
    started, cpu, before = time.perf_counter(), time.process_time(), _peak()
    mean_influence(_AsTheyAre(), *both)
    yield _scaled(f"means of {size_of_means:,} x {size_of_means:,}", 64, started, cpu, before)


def _scaled(what: str, rows: int, started: float, cpu: float, before: float) -> dict[str, Any]:
    return {
        "what": what,
        "rows": rows,
        "wall_s": time.perf_counter() - started,
        "cpu_s": time.process_time() - cpu,
        "gib_more": _peak() - before,
        "gflops": None,
        "plain_gflops": None,
        "ratio": None,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _matrix_product_rate() -> float:
    left = np.random.default_rng(0).standard_normal((65_536, 1155), np.float32)
    right = np.random.default_rng(1).standard_normal((1155, 4096), np.float32)
    left[:4096] @ right
    started = time.perf_counter()
    left @ right
    return 2.0 * len(left) * 1155 * 4096 / (time.perf_counter() - started) / 1e9


class _AsTheyAre(student_class("vectors")):  # type: ignore[misc]
    """Factors that are given."""

    def __init__(self) -> None:
        self.similarity, self.reads_target_vectors = "dot", False

    def candidate_factors(self, features: Array, *, threads: int | None = None) -> Array:
        return features

    def target_factors(self, targets: Array, *, threads: int | None = None) -> Array:
        return targets


if __name__ == "__main__":
    main()
