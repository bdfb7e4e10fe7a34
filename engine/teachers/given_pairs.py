"""The user's own scores of pairs of a candidate and a target; see given.py."""

from __future__ import annotations

from engine.config import GivenConfig
from engine.teachers.given import GivenTeacher

__all__ = ["GivenPairsTeacher"]


class GivenPairsTeacher(GivenTeacher):
    """Scores of pairs out of a file."""

    name = "given_pairs"
    unit = "pair"
    pairwise = True
    default_objective = None
    Settings = GivenConfig  # of the section `given`, which becomes its own when settings are read
