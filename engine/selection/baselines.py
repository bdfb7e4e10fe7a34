"""What a selection has to beat: ways to choose rows that need no influence.

    random              rows drawn by hash
    balanced            as many from each source, drawn by hash
    length              the longest responses
    bm25, tf_idf        words shared with the targets: the best by mean
    ..._round_robin     the same, the targets taking turns
    cosine              embeddings, the targets taking turns
    perplexity_middle   responses that, given the prompt, are neither easy nor hard to predict
    perplexity_top      those that a language model predicts worst

`ranking` takes rows and targets and gives picks, best first; the picks of a smaller budget are the
head of a larger one's. They are arms of `jobs/evaluate.py`, and rows of
benchmarks/target_recovery.py. Sources: BM25 and TF-IDF as bm25s (its defaults: Lucene's BM25, k1
1.5, b 0.75) and scikit-learn have them, words of two characters and more, none left out; perplexity
as in arXiv 2309.04564.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import SettingsError
from engine.example import Example
from engine.kernels.arrays import FloatArray, IndexArray
from engine.selection.select import select

__all__ = ["BASELINES", "NEED_TARGETS", "Pool", "ranking", "require"]


@dataclass(frozen=True)
class Pool:
    """What a baseline may look at; what it does not need may be left out.

    Attributes:
        hashes: a uniform hash of each candidate, (M,) uint64: what rows are drawn by.
        candidates, targets: M and N rows.
        embeddings, target_embeddings: unit vectors, (M, D) and (N, D).
        losses: mean loss of each candidate's response given its prompt, (M,); NaN: not known.
        sources: where each candidate is from, M names.
        seed: of the order of turns, and of the permutation that breaks ties.
    """

    hashes: NDArray[np.uint64]
    candidates: Sequence[Example] = ()
    targets: Sequence[Example] = ()
    embeddings: FloatArray | None = None
    target_embeddings: FloatArray | None = None
    losses: FloatArray | None = None
    sources: Sequence[str] = ()
    seed: int = 0


Baseline = Callable[[Pool, int], IndexArray]


def ranking(name: str, pool: Pool, budget: int) -> IndexArray:
    """Row numbers of the picks of a baseline, (budget,) int64, best first.

    Memory of those that compare words or embeddings: M x N x 4 bytes. Raises SettingsError where a
    library is not installed, and where there are no words to compare.
    """
    require([name])
    return np.asarray(BASELINES[name](pool, budget), np.int64)


def require(names: Sequence[str]) -> None:
    """Raise SettingsError, before anything is paid for, where one needs what is not installed."""
    for name in names:
        if name.startswith("bm25") and find_spec("bm25s") is None:
            raise SettingsError(f"{name} needs bm25s: pip install bm25s")


# --- by hash --------------------------------------------------------------------------------------


def random(pool: Pool, budget: int) -> IndexArray:
    """The rows of the smallest hashes."""
    return np.argsort(pool.hashes, kind="stable")[:budget]


def balanced(pool: Pool, budget: int) -> IndexArray:
    """The next row of each source in turn; a source that has none left gives way to the others."""
    order = np.argsort(pool.hashes, kind="stable")
    taken: dict[str, int] = {}
    turns = np.empty(len(order), np.int64)
    for row in order.tolist():
        source = pool.sources[row]
        turns[row] = taken[source] = taken.get(source, -1) + 1
    return np.lexsort((pool.hashes, turns))[:budget]


# --- by the row alone -----------------------------------------------------------------------------


def length(pool: Pool, budget: int) -> IndexArray:
    """The rows with most characters in their response."""
    return _best(pool, [len(row.output) for row in pool.candidates], budget)


def perplexity_top(pool: Pool, budget: int) -> IndexArray:
    """The rows of the highest losses; those without one come last."""
    losses = _losses(pool)
    known = np.isfinite(losses)
    lowest = losses[known].min(initial=0.0)
    return _best(pool, np.where(known, losses, lowest - 1), budget)


def perplexity_middle(pool: Pool, budget: int) -> IndexArray:
    """The rows whose loss has the middle place in the order of all; those without come last."""
    losses = _losses(pool)
    known = np.flatnonzero(np.isfinite(losses))
    places = np.empty(len(known))
    places[np.lexsort((pool.hashes[known], losses[known]))] = np.arange(len(known))
    closeness = np.full(len(losses), -float(len(losses)))
    closeness[known] = -np.abs(places - (len(known) - 1) / 2)
    return _best(pool, closeness, budget)


def _losses(pool: Pool) -> FloatArray:
    assert pool.losses is not None, "perplexity needs the losses"
    return pool.losses


# --- by the targets -------------------------------------------------------------------------------


def bm25(pool: Pool, budget: int) -> IndexArray:
    """The rows of the best mean BM25 score, every target a query."""
    return _best(pool, _bm25(pool).mean(axis=1, dtype=np.float64), budget)


def bm25_round_robin(pool: Pool, budget: int) -> IndexArray:
    """The targets take their best row by BM25 in turn."""
    return _in_turn(pool, _bm25(pool), budget)


def tf_idf(pool: Pool, budget: int) -> IndexArray:
    """The rows of the best mean cosine with the targets by TF-IDF."""
    return _best(pool, _tf_idf(pool).mean(axis=1, dtype=np.float64), budget)


def tf_idf_round_robin(pool: Pool, budget: int) -> IndexArray:
    """The targets take their best row by TF-IDF in turn."""
    return _in_turn(pool, _tf_idf(pool), budget)


def cosine(pool: Pool, budget: int) -> IndexArray:
    """The targets take their best row by the cosine of the embeddings in turn."""
    assert pool.embeddings is not None and pool.target_embeddings is not None
    return _in_turn(pool, pool.embeddings @ pool.target_embeddings.T, budget)


def _texts(rows: Sequence[Example]) -> list[str]:
    return [f"{row.prompt} {row.output}" for row in rows]


def _bm25(pool: Pool) -> FloatArray:
    """BM25 of every row for every target, (M, N)."""
    import bm25s

    said: dict[str, Any] = {"stopwords": None, "show_progress": False}
    words = bm25s.tokenize(_texts(pool.candidates), **said)
    if not len(words.vocab):
        raise SettingsError("bm25: the candidates hold no word of two characters: leave it out")
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    scores = np.zeros((len(pool.candidates), len(pool.targets)), np.float32)
    queries = bm25s.tokenize(_texts(pool.targets), return_ids=False, **said)
    for column, query in enumerate(queries):
        known = [word for word in query if word in words.vocab]
        if known:
            scores[:, column] = index.get_scores(known)
    return scores


def _tf_idf(pool: Pool) -> FloatArray:
    """Cosine of every row with every target by words, (M, N)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    try:
        weights = vectorizer.fit_transform(_texts(pool.candidates))
    except ValueError:  # what it says of an empty vocabulary
        raise SettingsError(
            "tf_idf: the candidates hold no word of two characters: leave it out"
        ) from None
    found = weights @ vectorizer.transform(_texts(pool.targets)).T
    return np.asarray(found.toarray(), np.float32)


def _best(pool: Pool, scores: ArrayLike, budget: int) -> IndexArray:
    values = np.asarray(scores, np.float64)
    kernel = values[None, :].astype(np.float32)
    return select(kernel, budget, "top_mean", seed=pool.seed, mean_influence=values).ranking


def _in_turn(pool: Pool, scores: FloatArray, budget: int) -> IndexArray:
    """The targets in turn; once no row has anything for any of them, by mean."""
    means = scores.mean(axis=1, dtype=np.float64)
    kernel = np.maximum(scores, 0).T
    return select(kernel, budget, "round_robin", seed=pool.seed, mean_influence=means).ranking


BASELINES: dict[str, Baseline] = {
    function.__name__: function
    for function in (
        random,
        balanced,
        length,
        perplexity_middle,
        perplexity_top,
        bm25,
        bm25_round_robin,
        tf_idf,
        tf_idf_round_robin,
        cosine,
    )
}
NEED_TARGETS = ("bm25", "bm25_round_robin", "tf_idf", "tf_idf_round_robin", "cosine")
