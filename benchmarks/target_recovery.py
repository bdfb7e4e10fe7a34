"""Does a selection find what a target set asks for? Six single-topic target sets and a mixed one.

    python benchmarks/target_recovery.py ask --work DIR                # 2 h on a core, resumes
    python benchmarks/target_recovery.py table --work DIR --json FILE  # 1 h on a core, resumes
    python benchmarks/target_recovery.py baselines --work DIR --json FILE  # needs no `ask`
    python benchmarks/target_recovery.py losses --work DIR  # 1 h on a core, resumes; then
    python benchmarks/target_recovery.py baselines --losses --work DIR --json FILE

The pool is the 48,125 rows of ../shared/data/corpus.parquet with its overlay of rows known to be
bad (a tenth of every category). RDS+ and DELIFT (SE), both with the states of the packaged language
model (bfloat16, rows cut to 128 tokens), are asked about every row, so that what a student makes of
a few can be compared with the teacher itself. Draws, students, audit and selection are the engine's
own, with its defaults; of three draws the means, and `auto` chooses the student at the first. 100
of the candidates asked about are the audit's.

right     share of the picks in a category of the target set (for six sets words alone do it)
mix_error distance of the picks' category shares from the target set's, half the sum of all
          |difference|: 0 is the same mix, 1 disjoint
bad       share of the picks that are known to be bad; the pool has 0.099
redundant mean cosine of a pick to the nearest other pick
overlap   Jaccard overlap with what the teacher itself picks by the same objective
worth     how well the picks cover the targets to the teacher; what itself picks has 1
_gap      of the first three: the student's less the teacher's own, with the 95 % interval of a
          bootstrap over picks (JSON)
asked     picks that the teacher had been asked about, beside asked_by_chance

Variants: how rows that were asked about and targets enter the matrix. `predictions` are made
without a row's own answer, `as fitted` with it, `answers replace` takes the answer. Targets are
what the student makes of them (`both sides`) or the teacher's exact vectors. `not stretched`:
expected scores, see engine/students/vectors.py. A second look asks about twice the budget.
Baselines: engine/selection/baselines.py, which need no teacher; balanced draws take as many rows of
each of the corpus' sources. With --losses also the rows whose responses the packaged language model
finds hardest, and those in the middle; one pass of a row, cut as above.
Verdicts: what the audit said of each draw, what it would have said when it judged pairs, and
whether the subset (round robin, 2 %) is `as_good` as the teacher's: no measure worse by over .03.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from engine import audit_predictions, select
from engine.artifacts.files import atomic_path, read_json, write_json
from engine.audit.predictions import Audit
from engine.config import (
    PACKAGED_ENCODER,
    PACKAGED_LANGUAGE_MODEL,
    FeatureName,
    ModelConfig,
    NetworkConfig,
    StudentConfig,
)
from engine.example import Example, content_key, order_hash
from engine.features.feature import assembled, text_lengths
from engine.kernels.product import unit_rows
from engine.models.prompt_tokenizer import TrainingRow, tokenised_row
from engine.network.training_set import TrainingSet
from engine.selection import baselines
from engine.selection.select import Tail
from engine.students.choice import choose, fit_student, targets_of
from engine.students.student import ProductStudent
from engine.students.vectors import PredictedVectors, VectorStudent
from engine.terminal.progress import say

DATA = Path(__file__).resolve().parents[2] / "shared/data"
CHUNK, MAX_TOKENS = 1024, 128
ENCODER = {"path": PACKAGED_ENCODER, "dtype": "bfloat16"}
MODEL = {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"}

TARGETS = "targets.npz"
# method and objective in the table, by the engine's name
BASELINES = {
    "random": ("random", "random"),
    "balanced": ("random, balanced by source", "random"),
    "length": ("longest responses", "top"),
    "tf_idf": ("TF-IDF", "top mean"),
    "tf_idf_round_robin": ("TF-IDF", "round robin"),
    "bm25": ("BM25", "top mean"),
    "bm25_round_robin": ("BM25", "round robin"),
    "cosine": ("cosine", "round robin"),
    "perplexity_middle": ("perplexity", "middle"),
    "perplexity_top": ("perplexity", "top"),
}
SETS = (
    "gsm8k",
    "code",
    "sentiment",
    "commonsense",
    "summarization",
    "general",
    "mixed_math_code_sentiment_summ",
)
FEATURES: tuple[FeatureName, ...] = ("text", "prompt", "response", "agreement", "length")
TEACHERS = ("rds", "delift_se")
ASKED = (0.004, 0.02)  # shares of the candidates, those of the audit included
AUDITED = 100
SEEDS, BOOTSTRAP = 3, 1000
SHARES = (0.02, 0.05)  # budgets
LOOK = 2.0  # second look: budgets of the shortlist
OBJECTIVES = (
    "top mean",
    "facility location",
    "cover again",
    "round robin",
    "mutual information 2",
    "mutual information 1",
)
INFORMATION = "facility_location_mutual_information"
_BY_ROWS: dict[str, tuple[str, Tail | None]] = {
    "facility location": ("facility_location", "by_mean_influence"),
    "cover again": ("facility_location", "cover_again"),
    "round robin": ("round_robin", None),
    "mutual information 2": (INFORMATION, "by_mean_influence"),
}
NEIGHBOURS = 64
FLOOR, RELEVANT_SHARE = 0.5, 0.1  # of mutual information in form 1
MEASURES = ("right", "mix_error", "bad")
AS_GOOD = 0.03
GENERAL, MIXED = "general", "mixed_math_code_sentiment_summ"

Array = NDArray[Any]
Row = dict[str, Any]


# --- the data -------------------------------------------------------------------------------------


def pool_rows() -> list[Row]:
    """The corpus in an order of hashes, a tenth of every category with a bad output."""
    rows = pq.read_table(DATA / "corpus.parquet").to_pylist()
    bad = {row["id"]: row for row in pq.read_table(DATA / "corpus_known_bad.parquet").to_pylist()}
    for row in rows:
        found = bad.get(row["id"])
        row["known_bad"] = found["kind"] if found else ""
        row["output"] = found["bad_output"] if found else row["output"]
    return sorted(rows, key=lambda row: order_hash(0, "pool", row["id"]))


def target_rows() -> list[Row]:
    """All target sets, with their name as `set`."""
    sets = sorted((DATA / "targets").glob("*.parquet"))
    return [{**row, "set": path.stem} for path in sets for row in pq.read_table(path).to_pylist()]


def example_of(row: Row) -> Example:
    """A row as the engine reads it."""
    texts = row["instruction"], row["input"] or "", row["output"]
    return Example(row["id"], content_key(*texts), *texts)


# --- what the models say --------------------------------------------------------------------------


def write_answers(work: Path, backwards: bool) -> None:
    """Embeddings and states of all rows, a file per CHUNK rows; files that are there are kept.

    Chunks follow a hash of the rows, so that any number of them is a random part of the pool. A
    second process may go backwards.
    """
    from engine.models.encoder import Encoder
    from engine.models.language_model import LanguageModel

    work.mkdir(parents=True, exist_ok=True)
    pool, targets = pool_rows(), target_rows()
    jobs = [("targets", targets), *((f"rows-{name}", rows) for name, rows in _chunks(pool))]
    encoder = Encoder(ModelConfig(**ENCODER), MAX_TOKENS)
    model = LanguageModel(ModelConfig(**MODEL))
    for name, rows in reversed(jobs) if backwards else jobs:
        path = work / f"{name}.npz"
        if path.exists():
            continue
        examples = [example_of(row) for row in rows]
        read = [tokenised_row(model.tokenizer, MAX_TOKENS, row, True)[0] for row in examples]
        asked = [row for row in read if isinstance(row, TrainingRow)]
        assert len(asked) == len(read), "a row without a response"
        states = model.read_rows(asked, 16, losses=False)
        found: dict[str, Any] = {"rds": states.weighted_states, "delift_se": states.states}
        for side, texts in (
            ("text", [row.text for row in examples]),
            ("prompt", [row.prompt for row in examples]),
            ("response", [row.output for row in examples]),
        ):
            found[side] = encoder.encode(texts, 32).vectors
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, **found)
        say(f"{name}: {len(rows)} rows")


def _chunks(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    for start in range(0, len(rows), CHUNK):
        yield f"{start // CHUNK:03d}", rows[start : start + CHUNK]


def text_vectors(work: Path, pool: list[Row], targets: list[Row]) -> tuple[Array, Array]:
    """Embeddings of whole texts, (M, 384) and (N, 384): those of `ask`, else a file per CHUNK."""
    from engine.models.encoder import Encoder

    work.mkdir(parents=True, exist_ok=True)
    encoder, found = None, []
    for name, rows in (*((f"rows-{n}", some) for n, some in _chunks(pool)), ("targets", targets)):
        path = work / f"{name}.npz"
        if not path.exists():
            path = work / f"text-{name}.npz"
        if not path.exists():
            encoder = encoder or Encoder(ModelConfig(**ENCODER), MAX_TOKENS)
            vectors = encoder.encode([example_of(row).text for row in rows], 32).vectors
            with atomic_path(path) as partial, partial.open("wb") as file:
                np.savez(file, text=vectors)
            say(f"{path.name}: {len(rows)} rows")
        found.append(np.load(path)["text"])
    return np.concatenate(found[:-1]), found[-1]


def write_losses(work: Path, rows: Sequence[Row] | None = None) -> None:
    """Mean loss of every response given its prompt, a file per CHUNK rows; resumes."""
    from engine.models.language_model import LanguageModel

    work.mkdir(parents=True, exist_ok=True)
    model = LanguageModel(ModelConfig(**MODEL))
    for name, some in _chunks(list(rows or pool_rows())):
        path = work / f"losses-{name}.npz"
        if path.exists():
            continue
        read = [
            tokenised_row(model.tokenizer, MAX_TOKENS, example_of(row), True)[0] for row in some
        ]
        asked = [row for row in read if isinstance(row, TrainingRow)]
        assert len(asked) == len(read), "a row without a response"
        losses = model.read_rows(asked, 16, losses=True).losses
        with atomic_path(path) as partial, partial.open("wb") as file:
            np.savez(file, losses=losses)
        say(f"{path.name}: {len(some)} rows")


def read_losses(work: Path, count: int) -> Array:
    """What `losses` wrote of all rows, (M,)."""
    files = sorted(work.glob("losses-*.npz"))
    losses = _joined(files)["losses"] if files else np.empty(0)
    if len(losses) != count:
        sys.exit(f"{len(losses)} of {count} losses in {work}: run `losses --work {work}` first")
    return losses


# --- the pool -------------------------------------------------------------------------------------


class Rows:
    """Candidates, and the targets of one set.

    Attributes:
        text: embeddings of the whole text, (M, 384) and (N, 384); the free cosine.
        kinds: category and known badness of a candidate as one number, (M,).
        wanted: shares of the categories in the target set.
    """

    def __init__(
        self, name: str, rows: list[Row], targets: list[Row], text: tuple[Array, Array]
    ) -> None:
        self.name, self.text = name, text
        self.examples = ([example_of(row) for row in rows], [example_of(row) for row in targets])
        of_targets = [row["category"] for row in targets]
        names = sorted({row["category"] for row in rows} | set(of_targets))
        category = np.array([names.index(row["category"]) for row in rows])
        self.bad = np.array([bool(row["known_bad"]) for row in rows])
        self.kinds = 2 * category + self.bad
        self.wanted = np.array([of_targets.count(one) for one in names]) / len(of_targets)

    @property
    def size(self) -> int:
        """M."""
        return len(self.kinds)

    def tally(self, picks: Array) -> Array:
        """Number of picks of each kind, (K,)."""
        return np.bincount(self.kinds[picks], minlength=2 * len(self.wanted))

    def measures(self, tallies: Array) -> Array:
        """right, mix_error and bad of tallies (..., K): (..., 3)."""
        shares = tallies / tallies.sum(axis=-1, keepdims=True)
        by_category = shares[..., ::2] + shares[..., 1::2]
        return np.stack(
            [
                by_category[..., self.wanted > 0].sum(axis=-1),
                np.abs(by_category - self.wanted).sum(axis=-1) / 2,
                shares[..., 1::2].sum(axis=-1),
            ],
            axis=-1,
        )


class Pool(Rows):
    """What was read of the rows so far, one target set at a time.

    Attributes:
        features: what students read, (M, F) and (N, F).
        vectors: the teachers', (M, 576) and (N, 576), not centred.
    """

    def __init__(self, work: Path, name: str) -> None:
        self.work = work
        targets, candidates = target_rows(), pool_rows()
        files = sorted(work.glob("rows-*.npz"))
        places = [range(int(f.stem[5:]) * CHUNK, (int(f.stem[5:]) + 1) * CHUNK) for f in files]
        rows = [candidates[i] for places_of in places for i in places_of if i < len(candidates)]
        columns = [i for i, row in enumerate(targets) if row["set"] == name]
        sides = (_joined(files), {k: v[columns] for k, v in _joined([work / TARGETS]).items()})
        text = sides[0]["text"], sides[1]["text"]
        super().__init__(name, rows, [targets[i] for i in columns], text)
        self.features = tuple(
            assembled(
                FEATURES,
                {
                    **{of: side[of] for of in ("text", "prompt", "response")},
                    "length": text_lengths(examples),
                },
            )
            for side, examples in zip(sides, self.examples, strict=True)
        )
        self.vectors = {name: tuple(side[name] for side in sides) for name in TEACHERS}

    def keep(self, rows: Array, columns: Array) -> None:
        """Leave out all other candidates and targets."""
        for name in ("features", "text", "examples"):
            sides = zip(getattr(self, name), (rows, columns), strict=True)
            kept = [
                [of[i] for i in some] if isinstance(of, list) else of[some] for of, some in sides
            ]
            setattr(self, name, tuple(kept))
        self.bad, self.kinds = self.bad[rows], self.kinds[rows]
        self.vectors = {
            name: (of_rows[rows], of_columns[columns])
            for name, (of_rows, of_columns) in self.vectors.items()
        }

    @cached_property
    def similar(self) -> scipy.sparse.csr_array:
        """Cosines of candidates to their nearest candidates, cut at FLOOR, (M, M)."""
        import faiss

        path = self.work / f"similar-{self.size}.npz"
        if not path.exists():
            both = self.text[0], self.text[0]
            cosines, ids = faiss.knn(*both, NEIGHBOURS, metric=faiss.METRIC_INNER_PRODUCT)
            with atomic_path(path) as partial, partial.open("wb") as file:
                np.savez(file, cosines=cosines, ids=ids)
        found = np.load(path)
        values = np.maximum((found["cosines"] - FLOOR) / (1 - FLOOR), 0)
        starts = np.arange(0, values.size + 1, NEIGHBOURS)
        return scipy.sparse.csr_array(
            (values.ravel(), found["ids"].ravel(), starts), shape=(self.size, self.size)
        )


def _joined(files: list[Path]) -> dict[str, Array]:
    loaded = [np.load(file) for file in files]
    return {name: np.concatenate([one[name] for one in loaded]) for name in loaded[0].files}


# --- teachers and their students ------------------------------------------------------------------


@dataclass(frozen=True)
class Learned:
    """What a student made of one draw: influence (M, N) by the form of asked rows and of targets.

    Attributes:
        influence: by variant, `DEFAULT` among them.
        asked: candidates that the teacher was asked about, those of the audit included.
        bounds: lowest and highest of the labels that were learned from.
        student: which one `auto` took.
        audit: verdict and headline numbers.
    """

    influence: dict[str, Array]
    asked: Array
    bounds: tuple[float, float]
    student: str
    audit: dict[str, Any]


DEFAULT = "predictions, both sides"
AS_FITTED, REPLACED = "as fitted, both sides", "answers replace, both sides"
EXACT, EXPECTED = "predictions, exact targets", "not stretched, both sides"
OTHERS = (AS_FITTED, REPLACED, EXACT, EXPECTED)


def full_teacher(pool: Pool, teacher: str, centred: bool = True) -> Array:
    """The influence (M, N) of the teacher asked about everything."""
    centre = pool.vectors[teacher][0].mean(axis=0) if centred and teacher == "rds" else 0
    of_c, of_t = (unit_rows(vectors - centre) for vectors in pool.vectors[teacher])
    return np.asarray(of_c @ of_t.T, np.float32)


def asked_of_all(pool: Pool, teacher: str, share: float, seed: int, name: str) -> Learned:
    """As the engine does it: `share` of the candidates asked, some of them kept for the audit."""
    order = np.random.default_rng([seed, 1]).permutation(pool.size)
    asked = order[: round(share * pool.size)]
    num_audited = min(AUDITED, len(asked) // 3)
    known_rows = asked[num_audited:]
    vectors = pool.vectors[teacher]
    centre = vectors[0][known_rows].mean(axis=0) if teacher == "rds" else 0
    of_c, of_t = (np.asarray(unit_rows(some - centre), np.float32) for some in vectors)
    vectors_too = of_c[known_rows], of_t
    return learned(pool, asked, num_audited, of_c[asked] @ of_t.T, seed, name, vectors_too)


def learned(
    pool: Pool,
    asked: Array,
    num_audited: int,
    answers: Array,
    seed: int,
    name: str,
    vectors: tuple[Array, Array] | None = None,
) -> Learned:
    """A student of the answers (A, N), those of the audit first."""
    audited, known_rows = asked[:num_audited], asked[num_audited:]
    known = TrainingSet(
        pool.features[0][known_rows],
        pool.features[1],
        _block(*answers[num_audited:].shape),
        answers[num_audited:].ravel(),
        text_dim=pool.text[0].shape[1],
        candidate_vectors=vectors and vectors[0],
        target_vectors=vectors and vectors[1],
    )
    settings, network = StudentConfig(name=name), NetworkConfig.model_validate({})
    choice = choose(known, settings, network, seed)
    students = {
        name: fit_student(name, "raw", known, settings, network, seed)
        for name in dict.fromkeys((choice.student, "cosine", "linear"))
    }
    student = students[choice.student]
    assert isinstance(student, ProductStudent), "of whole blocks no network is the best"
    as_fitted = np.asarray(student.candidate_factors(pool.features[0]))
    factors = as_fitted.copy()
    if student.left_out_factors is not None:
        factors[known_rows] = student.left_out_factors
    columns = np.asarray(student.target_factors(targets_of(known, student)))
    influence = {DEFAULT: factors @ columns.T, AS_FITTED: as_fitted @ columns.T}
    influence[REPLACED] = influence[AS_FITTED].copy()
    influence[REPLACED][asked] = answers
    if isinstance(student, PredictedVectors):
        assert vectors is not None, "it has learned them"
        influence[EXACT] = factors @ unit_rows(vectors[1]).T
    if isinstance(student, VectorStudent):
        plain = copy.copy(student)
        plain.stretch = 0.0
        expected = plain.predict(pool.features[0])
        expected[known_rows] = plain.left_out_factors
        influence[EXPECTED] = expected @ columns.T
    pairs = _block(*answers[:num_audited].shape)
    named = {"student": student, **{k: v for k, v in students.items() if k != choice.student}}
    audit = audit_predictions(
        {
            name: one.predict_pairs(pool.features[0][audited], targets_of(known, one), pairs)
            for name, one in named.items()
        },
        answers[:num_audited].ravel(),
        pairs,
        quadrants=np.full(len(pairs), 3),
        training_labels=known.labels,
        judged_quadrant=3,
        student=choice.student,
        seed=seed,
    )
    bounds = float(known.labels.min()), float(known.labels.max())
    told = {**told_by(audit), "stretch": getattr(student, "stretch", None)}
    return Learned(influence, asked, bounds, choice.student, told)


def told_by(audit: Audit) -> dict[str, Any]:
    """The verdict, and `trusted_by_pairs`: what it was when pairs were judged (by point values)."""
    found, scores = audit.to_dict(), audit.fidelity.quadrants[3].scores
    own, cosine = scores["student"], scores.get("cosine")
    return {
        "within": found["spearman"],
        "within_r2": found["r2"],
        "means": found["means"],
        "pairs": own.spearman,
        "trusted": found["trusted"],
        "trusted_by_pairs": bool(
            (own.r2 or 0) > 0
            and (cosine is None or (own.spearman or 0) > (cosine.spearman or 0))
            and (found["means"] or 0) > 0
        ),
        "first reason": found["reasons"][0],
    }


def _block(num_rows: int, num_columns: int) -> Array:
    return np.argwhere(np.ones((num_rows, num_columns), bool))


# --- selection ------------------------------------------------------------------------------------


def ranked(
    pool: Pool,
    influence: Array,
    bounds: tuple[float, float],
    objective: str,
    budget: int | None = None,
) -> Array:
    """Picks, best first; by default of the largest budget, whose heads are the smaller ones'."""
    low, high = bounds
    kernel = np.maximum((influence - low) / (high - low), 0).astype(np.float32)
    means = influence.mean(axis=1, dtype=np.float64)
    budget = budget or round(SHARES[-1] * pool.size)
    if objective == "top mean":
        return select(means[None, :], budget, "top_mean", mean_influence=means).ranking
    if objective == "mutual information 1":
        relevance = kernel.max(axis=1)
        low = np.quantile(relevance, 1 - RELEVANT_SHARE)
        relevance = np.maximum((relevance - low) / (relevance.max() - low), 0)
        settings = {"form": 1, "query": relevance, "mean_influence": means}
        return select(pool.similar, budget, INFORMATION, **settings).ranking
    name, tail = _BY_ROWS[objective]
    return select(kernel.T, budget, name, seed=0, zero_gain_tail=tail, mean_influence=means).ranking


def without_teacher(pool: Pool) -> Iterator[tuple[str, str, list[Array]]]:
    """(method, objective, rankings) of what needs no teacher."""
    budget = round(SHARES[-1] * pool.size)
    drawn = [np.random.default_rng(seed).permutation(pool.size)[:budget] for seed in range(SEEDS)]
    yield "random", "random", drawn
    cosines = pool.text[0] @ pool.text[1].T
    for objective in OBJECTIVES:
        bounds = float(cosines.min()), float(cosines.max())
        yield "cosine", objective, [ranked(pool, cosines, bounds, objective)]
    yield "TF-IDF", "top", [np.argsort(-_tf_idf(pool), kind="stable")[:budget]]


def rows_of_baselines(
    pool: Rows, names: Sequence[str], sources: list[str], losses: Array | None
) -> Iterator[Row]:
    """The rows of some of the engine's baselines; what is drawn is drawn SEEDS times."""
    budget = round(SHARES[-1] * pool.size)
    for name in names:
        rankings = []
        for seed in range(SEEDS if name in ("random", "balanced") else 1):
            hashes = [order_hash(seed, "baseline", row.id) for row in pool.examples[0]]
            known = baselines.Pool(
                np.array(hashes, np.uint64), *pool.examples, *pool.text, losses, sources, seed
            )
            rankings.append(baselines.ranking(name, known, budget))
        yield from table_rows(pool, *BASELINES[name], rankings)


def _tf_idf(pool: Rows) -> Array:
    """Mean of the five best cosines to the targets, by words: (M,)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows, targets = ([f"{e.prompt} {e.output}" for e in side] for side in pool.examples)
    vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=2)
    weights = vectorizer.fit_transform(rows)
    similarity = (weights @ vectorizer.transform(targets).T).toarray()
    return np.asarray(np.sort(similarity, axis=1)[:, -5:].mean(axis=1))


# --- the table ------------------------------------------------------------------------------------


def rows_of_set(pool: Pool, shares: Sequence[float]) -> Iterator[Row]:
    """All rows of one target set; those that no share changes only beside the usual ones."""
    if shares != ASKED:
        for method, objective, rankings in without_teacher(pool):
            if method == "cosine" and objective in ("round robin", "cover again"):
                yield from table_rows(pool, method, objective, rankings)
        for teacher in TEACHERS:
            for share in shares:
                yield from _rows_of_students(pool, teacher, share, full_teacher(pool, teacher))
        return
    for method, objective, rankings in without_teacher(pool):
        yield from table_rows(pool, method, objective, rankings)
    published = full_teacher(pool, "rds", centred=False)
    bounds = float(published.min()), float(published.max())
    found = [ranked(pool, published, bounds, "round robin")]
    yield from table_rows(pool, "RDS+, everything, as published", "round robin", found)
    for teacher in TEACHERS:
        whole = full_teacher(pool, teacher)
        bounds = float(whole.min()), float(whole.max())
        for objective in OBJECTIVES:
            found = [ranked(pool, whole, bounds, objective)]
            yield from table_rows(pool, f"{teacher}, everything", objective, found)
        for share in shares:
            yield from _rows_of_students(pool, teacher, share, whole)


def _rows_of_students(pool: Pool, teacher: str, share: float, whole: Array) -> Iterator[Row]:
    """What students of one teacher pick; all forms and objectives where most was asked."""
    draws = [asked_of_all(pool, teacher, share, 0, "auto")]
    chosen = draws[0].student  # comparing contenders takes most of the time: once
    draws += [asked_of_all(pool, teacher, share, seed, chosen) for seed in range(1, SEEDS)]
    most, method = share == ASKED[-1], f"{teacher}, {share:.1%} asked"
    limits = float(whole.min()), float(whole.max())
    for variant in (DEFAULT, *OTHERS) if most else (DEFAULT,):
        objectives = OBJECTIVES if variant == DEFAULT and most else ("round robin", "cover again")
        for objective in objectives:
            used = [draw for draw in draws if variant in draw.influence]
            picked = [
                ranked(pool, draw.influence[variant], draw.bounds, objective) for draw in used
            ]
            truth = Truth(whole, ranked(pool, whole, limits, objective))
            rows = list(table_rows(pool, method, objective, picked, truth, used))
            yield from ({**row, "variant": variant} for row in rows)
            if variant == DEFAULT and objective == "round robin":
                for seed, draw in enumerate(draws):
                    yield verdict_row(pool, teacher, seed, draw, picked[seed], truth)
            if variant == DEFAULT and objective in ("round robin", "cover again") and most:
                looked = [
                    second_look(pool, ranking, whole, draw.bounds, objective)
                    for ranking, draw in zip(picked, draws, strict=True)
                ]
                row = next(table_rows(pool, method, objective, looked, truth))
                yield {**row, "variant": f"second look at {LOOK:g}"}


def second_look(
    pool: Pool, ranking: Array, whole: Array, bounds: tuple[float, float], objective: str
) -> Array:
    """The smallest budget out of LOOK times as many, by the teacher's answers alone."""
    budget = round(SHARES[0] * pool.size)
    shortlist = np.sort(ranking[: round(LOOK * budget)])
    return shortlist[ranked(pool, whole[shortlist], bounds, objective, budget)]


@dataclass(frozen=True)
class Truth:
    """The teacher asked about everything: its influence (M, N), and what it picks."""

    influence: Array
    ranking: Array

    def worth(self, picks: Array) -> float:
        """How well the picks cover the targets to the teacher; 1 is what its own picks do."""
        low = self.influence.min()
        both = (picks, self.ranking[: len(picks)])
        own, theirs = ((self.influence[some].max(axis=0) - low).sum() for some in both)
        return float(own / theirs)

    def overlap(self, picks: Array) -> float:
        """Jaccard overlap with the teacher's own picks."""
        both = len(np.intersect1d(picks, self.ranking[: len(picks)]))
        return both / (2 * len(picks) - both)


def table_rows(
    pool: Rows,
    method: str,
    objective: str,
    rankings: list[Array],
    truth: Truth | None = None,
    draws: Sequence[Learned] = (),
) -> Iterator[Row]:
    """A row for each budget: means over the rankings, and how far they are from the teacher's.

    Intervals are 95 % ones of a bootstrap over picks, within each ranking.
    """
    if not rankings:
        return
    for share in SHARES:
        budget = round(share * pool.size)
        heads = [ranking[:budget] for ranking in rankings]
        own, own_draws = _resampled(pool, heads)
        row: Row = {
            "table": "recovery",
            "target": pool.name,
            "method": method,
            "variant": None,
            "objective": objective,
            "picks": budget,
            **dict(zip(MEASURES, own.tolist(), strict=True)),
            "redundant": float(np.mean([_redundancy(pool.text[0][head]) for head in heads])),
        }
        if truth is not None:
            other, other_draws = _resampled(pool, [truth.ranking[: len(heads[0])]])
            bounds = np.quantile(own_draws - other_draws, (0.025, 0.975), axis=0)
            for place, name in enumerate(MEASURES):
                row[f"{name}_gap"] = float((own - other)[place])
                row[f"{name}_gap_interval"] = bounds[:, place].tolist()
            row["overlap"] = float(np.mean([truth.overlap(head) for head in heads]))
            row["worth"] = float(np.mean([truth.worth(head) for head in heads]))
        if draws:
            pairs = zip(heads, draws, strict=True)
            row["asked"] = float(np.mean([np.isin(h, d.asked).sum() for h, d in pairs]))
            row["asked_by_chance"] = budget * len(draws[0].asked) / pool.size
        yield row


def _resampled(pool: Rows, heads: list[Array]) -> tuple[Array, Array]:
    """Measures (3,), and (BOOTSTRAP, 3) of picks drawn anew; means over the heads."""
    tallies = [pool.tally(head) for head in heads]
    chooser = np.random.default_rng(len(heads))
    drawn = [
        chooser.multinomial(len(h), t / len(h), BOOTSTRAP)
        for h, t in zip(heads, tallies, strict=True)
    ]
    return (
        np.mean([pool.measures(one) for one in tallies], axis=0),
        np.mean([pool.measures(one) for one in drawn], axis=0),
    )


def _redundancy(vectors: Array) -> float:
    """Mean cosine of a pick to the nearest other pick."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    return float(cosines.max(axis=1).mean())


def verdict_row(
    pool: Pool, teacher: str, seed: int, draw: Learned, ranking: Array, truth: Truth
) -> Row:
    """What the audit said of one draw, and what its subset was like."""
    budget = round(SHARES[0] * pool.size)
    own, other = (pool.measures(pool.tally(r[:budget])) for r in (ranking, truth.ranking))
    worse = (own - other) * np.array([-1, 1, 1])
    return {
        "table": "verdicts",
        "target": pool.name,
        "teacher": teacher,
        "asked": len(draw.asked),
        "seed": seed,
        "student": draw.student,
        **draw.audit,
        **dict(zip((f"{name}_worse" for name in MEASURES), worse.tolist(), strict=True)),
        "worth": truth.worth(ranking[:budget]),
        "as_good": bool((worse <= AS_GOOD).all()),
    }


def by_method(rows: list[Row]) -> list[Row]:
    """The sets together: `five` are the single tasks but for the general one, bad and so on all."""
    found: list[Row] = []
    names = ("method", "variant", "objective", "picks")
    for key in dict.fromkeys(tuple(row[name] for name in names) for row in rows):
        some = [row for row in rows if tuple(row[name] for name in names) == key]
        by_set = {row["target"]: row for row in some}
        five = [row["right"] for name, row in by_set.items() if name not in (GENERAL, MIXED)]
        told: Row = dict(zip(names, key, strict=True))
        told["right, five"] = float(np.mean(five)) if five else None
        told["right, general"] = by_set.get(GENERAL, {}).get("right")
        told["right, mixed"] = by_set.get(MIXED, {}).get("right")
        told["mix_error, mixed"] = by_set.get(MIXED, {}).get("mix_error")
        for name in ("bad", "redundant", "overlap", "worth", "asked", "asked_by_chance"):
            there = [row[name] for row in some if name in row]
            told[name] = float(np.mean(there)) if there else None
        found.append(told)
    return found


def beside_the_teacher(rows: list[Row]) -> list[Row]:
    """Round robin and cover again, set by set: learned less the teacher, and the cosine."""
    found: list[Row] = []
    for row in rows:
        if row["variant"] != DEFAULT or row["picks"] != min(r["picks"] for r in rows):
            continue
        if row["objective"] not in ("round robin", "cover again"):
            continue
        same = ("target", "objective", "picks")
        free = next(
            r
            for r in rows
            if r["method"] == "cosine" and all(r[name] == row[name] for name in same)
        )
        told = {name: row[name] for name in ("method", "objective", "target")}
        for name in MEASURES:
            low, high = row[f"{name}_gap_interval"]
            told[name] = row[name]
            told[f"{name}, learned - teacher"] = (
                f"{row[f'{name}_gap']:+.3f} ({low:+.3f} to {high:+.3f})"
            )
            told[f"{name}, cosine"] = free[name]
        found.append(told)
    return found


def verdicts(rows: list[Row]) -> list[Row]:
    """How often the verdict, and that over pairs, went with a subset as good as the teacher's."""
    judged = [row for row in rows if row["table"] == "verdicts"]
    found: list[Row] = []
    for verdict in ("trusted_by_pairs", "trusted"):
        for said in (True, False):
            some = [row for row in judged if row[verdict] == said]
            good = sum(row["as_good"] for row in some)
            told: Row = {"verdict": verdict, "said": "trusted" if said else "not trusted"}
            told |= {"subset as good": good, "subset worse": len(some) - good}
            found.append(told)
    return found


def table(work: Path, sets: Sequence[str], shares: Sequence[float], to: Path | None) -> None:
    """The rows of every set, a file each; files that are there are kept."""
    suffix = "" if shares == ASKED else f"-{'-'.join(map(str, shares))}"
    rows: list[Row] = []
    for name in sets:
        path = work / f"table-{name}{suffix}.json"
        if not path.exists():
            started = time.perf_counter()
            found = list(rows_of_set(Pool(work, name), shares))
            write_json(path, {"rows": found})
            say(f"{name}: {time.perf_counter() - started:.0f} s")
        rows += read_json(path)["rows"]
    found = [row for row in rows if row["table"] == "recovery"]
    for some in (by_method(found), beside_the_teacher(found), verdicts(rows)):
        print(markdown_table(some, tuple(some[0])), "\n")
    if to:
        said = {"shares": SHARES, "asked": shares, "as_good": AS_GOOD, "max_tokens": MAX_TOKENS}
        save(to, "target_recovery", said, rows, threads=1)


def baseline_table(work: Path, sets: Sequence[str], with_losses: bool, to: Path | None) -> None:
    """The rows of every set and baseline, files for each set; those that are there are kept."""
    rows, targets = pool_rows(), target_rows()
    losses = read_losses(work, len(rows)) if with_losses else None
    of_rows, of_targets = text_vectors(work, rows, targets)
    sources = [row["source"] for row in rows]
    by_losses = [name for name in BASELINES if name.startswith("perplexity")]
    asked = {"baselines": [name for name in BASELINES if name not in by_losses]}
    if with_losses:
        asked["perplexity"] = by_losses
    found: list[Row] = []
    for name in sets:
        places = [i for i, row in enumerate(targets) if row["set"] == name]
        pool = Rows(name, rows, [targets[i] for i in places], (of_rows, of_targets[places]))
        for kind, names in asked.items():
            path = work / f"{kind}-{name}.json"
            if not path.exists():
                started = time.perf_counter()
                some = list(rows_of_baselines(pool, names, sources, losses))
                write_json(path, {"rows": some})
                say(f"{name}, {kind}: {time.perf_counter() - started:.0f} s")
            found += read_json(path)["rows"]
    told = by_method(found)
    columns = [name for name in told[0] if any(row[name] is not None for row in told)]
    print(markdown_table(told, columns), "\n")
    least = min(row["picks"] for row in found)
    columns = ["target", "method", "objective", *MEASURES]
    print(markdown_table([row for row in found if row["picks"] == least], columns))
    if to:
        said = {"shares": SHARES, "seeds": SEEDS, "max_tokens": MAX_TOKENS}
        save(to, "target_recovery-baselines", said, found, threads=1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ask", "table", "baselines", "losses"))
    parser.add_argument("--work", type=Path, required=True, help="where answers and rows are kept")
    parser.add_argument("--backwards", action="store_true", help="ask: a second process does so")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--asked", nargs="+", type=float, default=ASKED, help="table: shares")
    parser.add_argument("--losses", action="store_true", help="baselines: those of perplexity too")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "ask":
        write_answers(arguments.work, arguments.backwards)
    elif arguments.what == "losses":
        write_losses(arguments.work)
    elif arguments.what == "baselines":
        baseline_table(arguments.work, arguments.sets, arguments.losses, arguments.json)
    else:
        table(arguments.work, arguments.sets, tuple(arguments.asked), arguments.json)


if __name__ == "__main__":
    main()
