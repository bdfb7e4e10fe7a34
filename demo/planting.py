"""Plants rows of known low value: a tenth of the corpus, spread over all skills and three kinds.

- `wrong_answer`: the item's own wrong twin (a slip, a false label, a bug, a false fact);
- `empty_talk`: fluent sentences that never answer;
- `other_answer`: the right output of another row, of the same skill or of a different one in turn.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from skills import Item
from skills.content import phrases, pick

PLANTED_SHARE = 10  # one row in so many
KINDS = ("wrong_answer", "empty_talk", "other_answer")

Planted = dict[tuple[str, int], tuple[Item, str]]


def plant(chosen: dict[str, list[Item]], seed: str) -> Planted:
    """Picks the rows to spoil and spoils them: (skill, position) -> (spoiled item, kind).

    Each skill gives up its share of rows; the kinds take turns over the whole corpus, so every
    skill has all of them and their totals differ by at most one.
    """
    planted: Planted = {}
    turn = 0
    for name, quota in quotas({name: len(items) for name, items in chosen.items()}).items():
        rng = Random(f"{seed}:planted:{name}")
        order = rng.sample(range(len(chosen[name])), len(chosen[name]))
        for _ in range(quota):
            kind = KINDS[turn % len(KINDS)]
            position = next(
                p
                for p in order
                if (name, p) not in planted and (kind != "wrong_answer" or chosen[name][p].wrong)
            )
            planted[name, position] = (spoil(chosen, name, position, kind, rng, turn), kind)
            turn += 1
    return planted


def quotas(sizes: dict[str, int]) -> dict[str, int]:
    """How many rows of every skill are planted: shares rounded by largest remainder."""
    total = sum(sizes.values()) // PLANTED_SHARE
    shares = {name: size // PLANTED_SHARE for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: -(sizes[name] % PLANTED_SHARE))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def spoil(
    chosen: dict[str, list[Item]], name: str, position: int, kind: str, rng: Random, turn: int
) -> Item:
    """The item with an output of the given kind; its prompt stays as it is."""
    item = chosen[name][position]
    if kind == "wrong_answer":
        return replace(item, output=item.wrong)
    if kind == "empty_talk":
        return replace(item, output=empty_talk(rng, item))
    if turn % 2:
        donors = chosen[name]
    else:
        donors = [donor for other, items in chosen.items() if other != name for donor in items]
    fitting = [d for d in donors if d.content != item.content and d.truth != item.truth]
    return replace(item, output=rng.choice(fitting).output)


def empty_talk(rng: Random, item: Item) -> str:
    """Two to five sentences that say nothing; half of them begin by repeating the request."""
    words = (item.input or item.instruction).split()[: rng.randint(5, 9)]
    quoted = " ".join(words).rstrip(".,:;?!")
    echo = pick(rng, "empty_echoes", quoted=quoted)
    opener = echo if rng.random() < 0.5 else pick(rng, "empty_openers")
    parts = [opener, *rng.sample(phrases("empty_middles"), rng.choice((1, 2, 2, 3)))]
    if rng.random() < 0.7:
        parts.append(pick(rng, "empty_closers"))
    return " ".join(parts)
