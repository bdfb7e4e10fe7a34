"""What somebody may have meant by a word that nothing is called."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["closest", "hint", "meant"]

_MAX_LISTED = 20


def closest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known word that this one is a misspelling of, if there is one; case does not matter."""
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=likeness)
    return by_folded[found[0]] if found else None


def meant(word: str, known: Iterable[str]) -> str:
    """What a sentence that names all known words goes on with."""
    close = closest(word, known)
    return f"; did you mean {close}?" if close else ""


def hint(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: what was meant, or else what there is."""
    names = list(known)
    close = closest(word, names)
    if close is not None:
        return f"did you mean {close}?"
    listed = ", ".join(names[:_MAX_LISTED]) + (", ..." if len(names) > _MAX_LISTED else "")
    return f"known: {listed or 'none'}"
