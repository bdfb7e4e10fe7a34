"""What a trial's student selects, beside what the teacher itself, the cosine and chance select."""

from __future__ import annotations

import numpy as np

from engine.kernels.arrays import FloatArray, IndexArray
from engine.selection.select import select
from engine.study.data import StudyData

__all__ = ["num_of_share", "random_ranking", "subset_agreement"]

_RANDOM = 4  # key of a random stream


def num_of_share(share: float, num_candidates: int) -> int:
    """Rows of a subset that is a share v of the candidates."""
    return max(1, round(share * num_candidates))


def subset_agreement(
    data: StudyData, influence: FloatArray, shares: tuple[float, ...], seed: int
) -> tuple[dict[str, float], IndexArray]:
    """How far subsets by predicted influence (M, N) are those of the teacher, for each share v.

    `overlap v` is their Jaccard overlap, `value v` what the student's subset is worth under the
    teacher's own matrix, over what the teacher's is; `cosine overlap v` and so on the same of the
    cosine of the embeddings, where there are targets, and of rows drawn at random. Facility
    location over the targets, labels scaled to 0..1; the best rows for a teacher of rows. Also
    returns the student's ranking, up to the largest share.
    """
    labels = np.asarray(data.labels)
    truth = _unit_scale(np.where(np.isfinite(labels), labels, np.nanmean(labels)))
    most, pairwise = num_of_share(max(shares), len(truth)), data.pairwise
    best, mine = (_ranking(m, most, pairwise) for m in (truth, _unit_scale(influence)))
    rankings = {"": mine}
    if pairwise:
        sides = [np.asarray(side) for side in (data.candidates, data.targets)]
        left, right = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)
        rankings["cosine "] = _ranking(_unit_scale(left @ right.T), most, pairwise)
    rankings["random "] = random_ranking(len(truth), seed)
    found = {}
    for share in shares:
        count = num_of_share(share, len(truth))
        theirs = best[:count]
        for name, ranking in rankings.items():
            mine = ranking[:count]
            shared = len(np.intersect1d(mine, theirs)) / len(np.union1d(mine, theirs))
            worth, most_worth = (_value(truth[some], pairwise) for some in (mine, theirs))
            found[f"{name}overlap {share:g}"] = shared
            found[f"{name}value {share:g}"] = worth / max(most_worth, 1e-12)
    return found, rankings[""]


def random_ranking(num_candidates: int, seed: int) -> IndexArray:
    """All candidates in an order of chance."""
    return np.random.default_rng([seed, _RANDOM]).permutation(num_candidates)


def _unit_scale(matrix: FloatArray) -> FloatArray:
    low, high = matrix.min(), matrix.max()
    scaled: FloatArray = ((matrix - low) / max(high - low, 1e-12)).clip(0, 1)
    return scaled


def _ranking(matrix: FloatArray, budget: int, pairwise: bool) -> IndexArray:
    if not pairwise:
        return np.argsort(-matrix[:, 0], kind="stable")[:budget]
    ranking: IndexArray = select(
        np.ascontiguousarray(matrix.T, dtype=np.float32), budget, mean_influence=matrix.mean(axis=1)
    ).ranking
    return ranking


def _value(rows: FloatArray, pairwise: bool) -> float:
    """Facility location of some rows; for a teacher of rows their sum."""
    return float(rows.max(axis=0).sum() if pairwise else rows.sum())
