"""Drift: may a fitted student judge rows that arrived after it was fitted?

Two looks, one free and one paid for. Distance: how far each new row lies from the nearest row that
the student learned from, beside how far rows of its own run lie that it did not learn from either.
Audit: the student's usual audit, on labels of some new rows. A student that fails one of them
should be fitted again on a sample of old and new rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engine.artifacts.files import read_json, save_array, write_json
from engine.artifacts.parts import finish_part
from engine.artifacts.rows import VectorParts
from engine.artifacts.run_directory import Artifact
from engine.audit.audit import Labels, audit, labels_of
from engine.config import Config
from engine.kernels.arrays import DoubleArray, FloatArray, IndexArray
from engine.runtime.stage import Stage, StageContext, StageResult

__all__ = ["STAGE", "distance_drift", "run"]

REFERENCE_ROWS = 2000  # of the run, that the student did not learn from
CHUNK_ROWS = 8192
FAR = 0.95  # quantile of their distances beyond which a row is far


def run(context: StageContext) -> StageResult:
    """Write drift.json, with the verdict and what it rests on, and every new row's distance."""
    path, distances = context.directory / "drift.json", context.directory / "distances.npy"
    counts = context.executor.call(_judge, context, path, distances)
    return StageResult(
        parts={
            "drift": [finish_part(context.directory, path, 1)],
            "distances": [finish_part(context.directory, distances, counts.pop("rows"))],
        },
        counts=counts,
        columns={
            "distances.npy": "float32 (new rows,): 1 - cosine to the nearest row learned from",
            "drift.json": "shares, the audit on new rows in the form of fidelity.json, the verdict",
        },
    )


def distance_drift(
    new: FloatArray, reference: FloatArray, training: FloatArray
) -> tuple[dict[str, float], FloatArray]:
    """How new rows (n, D) lie to training rows beside reference rows: what to say, distances (n,).

    Embeddings of unit length. `far_share` is the share of new rows beyond the 95 % quantile of the
    reference, 0.05 without drift; `ks` the largest difference of the two distribution functions.
    """
    ours, theirs = _distances(new, training), _distances(reference, training)
    threshold = float(np.quantile(theirs, FAR))
    told = {
        "far_share": float((ours > threshold).mean()),
        "far_distance": threshold,
        "median_distance": float(np.median(ours)),
        "median_distance_of_run": float(np.median(theirs)),
        "ks": _kolmogorov_smirnov(ours, theirs),
    }
    return told, ours


def _distances(rows: FloatArray, training: FloatArray) -> FloatArray:
    import faiss

    similarity, _ = faiss.knn(rows, training, 1, metric=faiss.METRIC_INNER_PRODUCT)
    distances: FloatArray = np.clip(1 - similarity[:, 0], 0, 2)
    return distances


def _kolmogorov_smirnov(one: FloatArray, other: FloatArray) -> float:
    places = np.sort(np.concatenate((one, other)))
    shares: list[DoubleArray] = [
        np.searchsorted(np.sort(values), places, side="right") / len(values)
        for values in (one, other)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def _judge(context: StageContext, path: Path, distances_path: Path) -> dict[str, Any]:
    import faiss

    settings, inputs = context.config.drift, context.inputs
    faiss.omp_set_num_threads(1)
    learned = labels_of(inputs["run-score"])
    known = VectorParts(inputs["run-embed"], "candidates")
    training = np.unique(learned.pairs[learned.quadrants == 0, 0])
    reference = _reference_rows(len(known), training, context.config.seed)
    told, distances = _look(
        VectorParts(inputs["embed"], "candidates"), known.take(reference), known.take(training)
    )
    save_array(distances_path, distances)
    reasons = []
    if told["far_share"] > settings.max_far_share:
        reasons.append(
            f"{told['far_share']:.0%} of the new rows lie farther from what the student learned "
            "from than 95 % of the run's own rows do, more than drift.max_far_share "
            f"{settings.max_far_share:g}"
        )
    audited = settings.audit_candidates and not context.config.teacher.facts.is_given
    found = _audit(context, learned) if audited else None
    if found is not None and not found["trusted"]:
        reasons.append(f"on new rows {found['reasons'][0]}")
    refit = bool(reasons)
    write_json(path, {"refit": refit, "reasons": reasons, **told, "audit": found})
    judged = {} if found is None else {name: found.get(name) for name in ("spearman", "r2")}
    return {
        "rows": len(distances),
        "refit": refit,
        "reasons": reasons,
        "far_share": told["far_share"],
        "ks": told["ks"],
        "audited": None if found is None else len(labels_of(inputs["score"]).scores),
        "trusted": None if found is None else found["trusted"],
        **judged,
    }


def _look(
    new: VectorParts, reference: FloatArray, training: FloatArray
) -> tuple[dict[str, float], FloatArray]:
    rows = [
        new.block(start, min(start + CHUNK_ROWS, len(new)))
        for start in range(0, len(new), CHUNK_ROWS)
    ]
    return distance_drift(np.concatenate(rows), reference, training)


def _reference_rows(count: int, training: IndexArray, seed: int) -> IndexArray:
    """Some rows of the run that the student did not learn from; all rows if it learned from all."""
    others = np.setdiff1d(np.arange(count), training)
    pool = others if len(others) else np.arange(count)
    drawn = np.random.default_rng(seed % 2**64).permutation(len(pool))[:REFERENCE_ROWS]
    return np.sort(pool[drawn])


def _audit(context: StageContext, learned: Labels) -> dict[str, Any]:
    """The student's audit on labels of new rows, which are numbered after those of the run."""
    inputs = context.inputs
    run, new = inputs["run-score"], inputs["score"]
    asked = labels_of(new)
    kept = learned.quadrants == 0
    labels = Labels(
        pairs=np.concatenate((learned.pairs[kept], asked.pairs)),
        scores=np.concatenate((learned.scores[kept], asked.scores)),
        quadrants=np.concatenate((learned.quadrants[kept], asked.quadrants)),
    )
    groups = [name for name in run.manifest["parts"] if name.startswith("vectors-")]
    both_scores = run.with_groups(**{name: [(run, name), (new, name)] for name in groups})
    fit = inputs["run-fit"]
    return audit(
        inputs["embed-both"],
        both_scores,
        labels,
        fit.path("student"),
        read_json(fit.path("choice")),
        _as_fitted(context.config, fit),
        bool(inputs["run-sample"].counts["pairwise"]),
    )


def _as_fitted(config: Config, fit: Artifact) -> Config:
    """The settings with the targets' side as the run's fit had it."""
    student = config.student.model_copy(update={"targets": fit.counts["targets"]})
    return config.model_copy(update={"student": student})


STAGE = Stage(
    name="drift",
    directory="5-drift",
    run=run,
    settings=("seed", "drift", "features"),
    reads=("ingest", "embed", "score"),
    version=1,
)
