"""Measures of one answer against its reference, times 100: by words, and by meaning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.errors import SettingsError
from engine.kernels.arrays import FloatArray, IndexArray
from engine.models.encoder import Encoder

__all__ = ["derangement", "rouge1", "similarity"]

_BATCH_SIZE = 32


def rouge1(answers: Sequence[str], references: Sequence[str]) -> FloatArray:
    """ROUGE-1 F (n,) x 100, by the package rouge-score without stemming; an empty answer has 0.

    Raises SettingsError when the package is missing.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise SettingsError("the evaluation needs rouge-score: pip install rouge-score") from None
    scorer = RougeScorer(["rouge1"])
    pairs = zip(references, answers, strict=True)
    return np.array([100 * scorer.score(*pair)["rouge1"].fmeasure for pair in pairs], np.float32)


def similarity(
    encoder: Encoder, answers: Sequence[str], references: Sequence[str], seed: int
) -> tuple[FloatArray, FloatArray]:
    """Cosine of the embeddings (n,) x 100, and the same with the reference of another row.

    The second is the floor: what any two texts of this kind have. With one row it is NaN.
    """
    first, second = (encoder.encode(texts, _BATCH_SIZE).vectors for texts in (answers, references))
    values = 100 * (first * second).sum(axis=1)
    if len(answers) < 2:
        return values, np.full(len(answers), np.nan, np.float32)
    return values, 100 * (first * second[derangement(len(answers), seed)]).sum(axis=1)


def derangement(n: int, seed: int) -> IndexArray:
    """A random permutation (n,) without a fixed point; n is at least 2."""
    order = np.random.default_rng(seed).permutation(n)
    others = np.empty(n, np.int64)
    others[order] = np.roll(order, 1)
    return others
