"""What a side of the corpus lost or left unread, in the words that a person reads on stderr.

`tell` says it; `refuse` ends a job whose corpus is mostly bad, before anything is paid.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from engine.artifacts.files import read_table
from engine.corpus.paths import unread_files
from engine.corpus.problems import kind_of
from engine.corpus.tables import Side, rejections_path
from engine.errors import InputError
from engine.terminal.progress import say

__all__ = ["media_of", "no_rows_pass", "refuse_mostly_bad", "tell"]

NUM_REASONS, NUM_FILES = 3, 5


def tell(side: Side) -> int:
    """Say what was taken for what, and what is lost; returns how many files were not read."""
    unread = unread_files(side.config)
    if unread:
        names = ", ".join(unread[:NUM_FILES]) + (", ..." if len(unread) > NUM_FILES else "")
        say(f"  {side.name}: {len(unread):,} files were not read: {names}", unread_files=unread)
    for names_of, rows in _read_as(side):
        ours, theirs = " and ".join(names_of), " and ".join(names_of.values())
        columns = ", ".join(f"{our}: {their}" for our, their in names_of.items())
        say(
            f"  {side.name}: missing column {ours} in {rows:,} rows; {theirs} was read in its "
            f"place (columns: {{{columns}}} says so for good)"
        )
    renamed = sum(map(len, side.renamed.values()))
    if renamed:
        say(
            f"  {side.name}: {renamed:,} rows have the id of another row that came before: theirs "
            "are ID@HASH now",
            rows_renamed=renamed,
        )
    media = media_of(side)
    if media:
        listed = ", ".join(f"{number:,} {name}" for name, number in media.items())
        say(
            f"  {side.name}: {listed} are not read, only the text beside them "
            "(corpus.media: refuse sets such rows aside)",
            media=media,
        )
    bad = sum(part.usage.get("rejected", 0) for part in side.parts)
    if bad:
        listed = "; ".join(f"{number:,} of them: {reason}" for reason, number in _reasons(side))
        say(
            f"  {side.name}: {bad:,.0f} of {_considered(side):,} rows are bad and lie in the "
            f"quarantine: {listed}",
            rows_refused=int(bad),
        )
    repeated = sum(map(len, side.dropped.values()))
    if repeated:
        say(
            f"  {side.name}: {repeated:,} rows have an id that came before, and are set aside "
            "(corpus.equal_ids: rename keeps those that are other rows)",
            rows_repeated=repeated,
        )
    return len(unread)


def media_of(side: Side) -> dict[str, int]:
    """Images and the like of rows that stay, by type."""
    found = (name.partition(" ") for name in sorted(side.usage))
    return {name: int(side.usage[f"media {name}"]) for what, _, name in found if what == "media"}


def refuse_mostly_bad(side: Side) -> None:
    """Raise InputError where more rows are bad than `max_bad_share` allows."""
    bad, rows = int(side.usage.get("rejected", 0)), _considered(side)
    most = side.config.max_bad_share
    if rows and bad / rows > most:
        listed = "; ".join(f"{number:,} of them: {reason}" for reason, number in _reasons(side))
        raise InputError(
            f"{bad:,} of {rows:,} rows of {_path(side)} are bad, more than the share of "
            f"max_bad_share {most:g}: {listed}; mend them, or raise max_bad_share to go on with "
            f"the other {rows - bad:,}"
        )


def no_rows_pass(side: Side) -> str:
    """Why the filter lets no row pass."""
    sentence = f"no rows in {_path(side)} pass the filter `where`: {_read(side):,} were read"
    for name in sorted(side.usage):
        kind, is_one, column = name.removeprefix("where ").partition(": ")
        if not (name.startswith("where ") and is_one):
            continue
        wanted = side.config.where[column]
        for choice in wanted if isinstance(wanted, tuple) else (wanted,):
            if kind_of(choice) != kind:
                sentence += f"; {column} holds {kind}"
                sentence += f': write "{choice}"' if kind == "text" else ""
                break
    return sentence


def _read(side: Side) -> int:
    return int(side.usage["rows_read"])


def _considered(side: Side) -> int:
    return _read(side) - int(side.usage["filtered_out"])


def _path(side: Side) -> str:
    path = side.config.path
    return path if isinstance(path, str) else ", ".join(path)


def _read_as(side: Side) -> Iterator[tuple[dict[str, str], int]]:
    for name, rows in sorted(side.usage.items()):
        if name.startswith("read as "):
            yield json.loads(name.removeprefix("read as ")), int(rows)


def _reasons(side: Side) -> Sequence[tuple[str, int]]:
    """The commonest reasons, numbers in them left out."""
    found: Counter[str] = Counter()
    for file in side.files:
        for pair in pc.value_counts(
            read_table(rejections_path(file), columns=["reason"])["reason"]
        ):
            kind = re.sub(r"\[\d+\]", "[...]", pair["values"].as_py())
            found[kind[:200]] += pair["counts"].as_py()
    return found.most_common(NUM_REASONS)
