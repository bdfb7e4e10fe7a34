"""NN-CIFT: choose what to train a language model on, for a few per cent of the cost.

The pipeline in order, one package per step (engine/README.md is the map):

    corpus      1 ingest   rows of any format; bad ones to a quarantine
    embedding   2 embed    sentence embeddings on an actor pool
    teachers    3 sample   which pairs the teacher is asked about
                4 score    its answers, kept for ever
    students    5 fit      a student learns them, the InfluenceNetwork or another; an audit says
                           how well
    influence   6 predict  all pairs, in tiles
    selection   7 select   greedy over an objective
    report      8 report   what was picked, whether to trust it, what it cost

`run` does all of it, `score_new` adds new rows to a finished run; the other names are parts for use
on arrays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.audit.predictions import audit_predictions
    from engine.influence.predict import mean_influence, predict_influence, top_candidates
    from engine.network.fit import fit_network
    from engine.network.influence_network import InfluenceNetwork
    from engine.selection.select import select
    from engine.stages.additions import score_new
    from engine.stages.pipeline import run
    from engine.students.vectors import VectorStudent

__all__ = [
    "InfluenceNetwork",
    "VectorStudent",
    "audit_predictions",
    "fit_network",
    "mean_influence",
    "predict_influence",
    "run",
    "score_new",
    "select",
    "top_candidates",
]

# Loaded when first used: a job that reports a typo in its settings should not import torch first.
_HOME = {
    "InfluenceNetwork": "engine.network.influence_network",
    "VectorStudent": "engine.students.vectors",
    "audit_predictions": "engine.audit.predictions",
    "fit_network": "engine.network.fit",
    "mean_influence": "engine.influence.predict",
    "predict_influence": "engine.influence.predict",
    "run": "engine.stages.pipeline",
    "score_new": "engine.stages.additions",
    "select": "engine.selection.select",
    "top_candidates": "engine.influence.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
