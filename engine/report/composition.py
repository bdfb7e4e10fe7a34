"""What the pool and the subset are made of, by a column that names groups of rows.

Read from the columns that ingest carries along, in one pass over the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.artifacts.rows import TableParts, read_extra
from engine.artifacts.run_directory import Artifact
from engine.errors import SettingsError

__all__ = ["Composition", "Group", "Mix", "composition"]

USUAL_COLUMNS = ("source", "category", "dataset", "task", "topic")
FEW_VALUES = 200  # of a column that nobody named: more are hardly groups
MAX_VALUES = 10_000  # counted apart, of a column that somebody named: a bound for memory
NUM_GROUPS = 12
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Rows of one value; "" are those without any. `in_targets` is None if no target has it."""

    name: str
    in_pool: int
    selected: int
    in_targets: int | None


@dataclass(frozen=True)
class Mix:
    """Half the sum of all |share in these rows - share in the targets|: 0 is the same mix, 1 none.

    Attributes:
        pool, selected: of all candidates, and of the picks.
        free: of what the cosine and round robin pick; None where that is not known.
    """

    pool: float
    selected: float
    free: float | None


@dataclass(frozen=True)
class Composition:
    """The largest groups of the pool, largest first, and the others together.

    Attributes:
        is_named: whether the settings name the column.
        num_others: how many groups `others` holds.
        num_pool, num_selected, num_targets: all rows of each; None if no target has the column.
        mix: how far each is from the targets' mix; None if no target has the column.
    """

    column: str
    is_named: bool
    groups: list[Group]
    others: Group | None
    num_others: int
    num_pool: int
    num_selected: int
    num_targets: int | None
    mix: Mix | None

    @property
    def largest_share(self) -> float:
        """Of any line in the pool, the subset or the targets: what fills the width of a bar."""
        lines = [*self.groups, *([self.others] if self.others else [])]
        shares = [line.in_pool / self.num_pool for line in lines]
        if self.num_selected:
            shares += [line.selected / self.num_selected for line in lines]
        if self.num_targets:
            shares += [(line.in_targets or 0) / self.num_targets for line in lines]
        return max(shares) or 1.0


def composition(
    corpus: Artifact,
    ranking: Rows,
    named: str | None,
    of_quotas: str | None,
    free: Rows | None = None,
) -> Composition | None:
    """Count the groups of the candidates and of the picks (B,); None where no column has groups.

    `free` are the picks of the cosine and round robin.

    Memory: one part of the corpus, and 4 bytes a row for each column that it might be. Raises
    SettingsError for a named column that no candidate has.
    """
    column = named or of_quotas
    columns = _read(corpus, "candidates", (column,) if column else USUAL_COLUMNS)
    if column is None:
        column = next((name for name in USUAL_COLUMNS if columns[name].has_groups), None)
        if column is None:
            return None
    found = columns[column]
    if named is not None and not found.is_there:
        there = sorted({name for extra in next(_extras(corpus, "candidates")) for name in extra})
        raise SettingsError(
            f"report.composition_column: no column {named!r} among the candidates' extra columns; "
            f"found {', '.join(there[:20]) or 'no extra columns'}"
        )
    values, codes = list(found.kinds), found.codes()
    in_pool = np.bincount(codes, minlength=len(values))
    selected = np.bincount(codes[ranking], minlength=len(values))
    in_targets, num_targets = _in_targets(corpus, column, values)
    order = sorted(range(len(values)), key=lambda kind: (-int(in_pool[kind]), values[kind]))

    def count(numbers: NDArray[np.int64], kinds: Sequence[int]) -> int:
        return int(numbers[list(kinds)].sum())

    def group(name: str, kinds: Sequence[int]) -> Group:
        of_targets = None if in_targets is None else count(in_targets, kinds)
        return Group(name, count(in_pool, kinds), count(selected, kinds), of_targets)

    # one group more takes no more room than the line that would stand for it
    shown = order if len(order) <= NUM_GROUPS + 1 else order[:NUM_GROUPS]
    rest = order[len(shown) :]
    return Composition(
        column=column,
        is_named=named is not None,
        groups=[group(values[kind], [kind]) for kind in shown],
        others=group("", rest) if rest else None,
        num_others=len(rest),
        num_pool=len(codes),
        num_selected=len(ranking),
        num_targets=num_targets,
        mix=_mix(codes, ranking, free, in_targets, num_targets),
    )


def _mix(
    codes: NDArray[np.int32],
    ranking: Rows,
    free: Rows | None,
    in_targets: NDArray[np.int64] | None,
    num_targets: int | None,
) -> Mix | None:
    if in_targets is None or not num_targets or not len(ranking):
        return None
    wanted, elsewhere = in_targets / num_targets, 1 - in_targets.sum() / num_targets

    def distance(rows: NDArray[np.int32]) -> float:
        shares = np.bincount(rows, minlength=len(wanted)) / max(len(rows), 1)
        # targets of groups that the pool has not
        return float(np.abs(shares - wanted).sum() + elsewhere) / 2

    of_free = None if free is None else distance(codes[free])
    return Mix(distance(codes), distance(codes[ranking]), of_free)


@dataclass
class _Column:
    """The values of one column, numbered as they come; one that `may_give_up` has few or none."""

    may_give_up: bool
    kinds: dict[str, int] = field(default_factory=dict)
    pieces: list[NDArray[np.int32]] = field(default_factory=list)
    is_there: bool = False

    @property
    def has_groups(self) -> bool:
        return self.is_there and 2 <= len(self.kinds) <= FEW_VALUES

    def add(self, values: list[str | None]) -> None:
        kinds = self.kinds
        if self.may_give_up and len(kinds) > FEW_VALUES:
            return
        self.is_there = self.is_there or any(value is not None for value in values)
        numbers = []
        for value in values:
            name = value or ""
            name = name if name in kinds or len(kinds) < MAX_VALUES else "other"
            numbers.append(kinds.setdefault(name, len(kinds)))
        self.pieces.append(np.array(numbers, dtype=np.int32))

    def codes(self) -> NDArray[np.int32]:
        return np.concatenate(self.pieces)


def _read(corpus: Artifact, side: str, names: Sequence[str]) -> dict[str, _Column]:
    columns = {name: _Column(may_give_up=len(names) > 1) for name in names}
    for extras in _extras(corpus, side):
        for name, column in columns.items():
            column.add([_value(extra, name) for extra in extras])
    return columns


def _extras(corpus: Artifact, side: str) -> Iterator[list[dict[str, object]]]:
    for table in TableParts(corpus, side).iter_parts(["extra"]):
        yield [read_extra(text) for text in table["extra"].to_pylist()]


def _value(extra: dict[str, object], name: str) -> str | None:
    value = extra.get(name)
    return None if value is None else str(value)


def _in_targets(
    corpus: Artifact, column: str, values: Sequence[str]
) -> tuple[NDArray[np.int64] | None, int | None]:
    """Targets in each of the candidates' groups, and in all groups; None without such a column."""
    if "targets" not in corpus.manifest["parts"]:
        return None, None
    found = _read(corpus, "targets", (column,))[column]
    if not found.is_there:
        return None, None
    counts = np.bincount(found.codes(), minlength=len(found.kinds))
    own = dict(zip(found.kinds, counts.tolist(), strict=True))
    return np.array([own.get(value, 0) for value in values], dtype=np.int64), int(counts.sum())
