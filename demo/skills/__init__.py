"""The skills of the demo corpus, each with its share of the two files.

The target leans to arithmetic, Python, sentiment, summaries and extraction, while the corpus is
nearly even. This difference is what a selection can gain from.
"""

from __future__ import annotations

from .arithmetic import make_arithmetic
from .classification import make_classification
from .dates import make_dates
from .explanations import make_explanations
from .extraction import make_extraction
from .grammar import make_grammar
from .how_to import make_how_to
from .item import Item, Skill
from .python_functions import make_python_functions
from .rewriting import make_rewriting
from .sentiment import make_sentiment
from .summaries import make_summaries
from .unit_conversion import make_unit_conversion

__all__ = ["SKILLS", "Item", "Skill"]

SKILLS = (
    Skill("arithmetic", "arith", 120, 36, make_arithmetic),
    Skill("python", "python", 85, 32, make_python_functions),
    Skill("sentiment", "senti", 95, 32, make_sentiment),
    Skill("summary", "summ", 65, 26, make_summaries),
    Skill("extraction", "extract", 85, 26, make_extraction),
    Skill("unit_conversion", "unit", 90, 8, make_unit_conversion),
    Skill("rewriting", "rewrite", 80, 8, make_rewriting),
    Skill("how_to", "howto", 75, 6, make_how_to),
    Skill("explanation", "explain", 80, 8, make_explanations),
    Skill("dates", "date", 80, 6, make_dates),
    Skill("grammar", "grammar", 70, 6, make_grammar),
    Skill("classification", "class", 75, 6, make_classification),
)
