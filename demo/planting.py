"""Plants rows of known low value in the corpus: a tenth of it, spread over all skills and three kinds.

- `wrong_answer`: the skill's own wrong twin of the output (a slip, a false label, a bug, a false fact);
- `empty_talk`: fluent sentences that never answer;
- `other_answer`: the right output of another row, taken from the same skill or from a different one in turn.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from skills import Item

PLANTED_SHARE = 10  # one row in so many
KINDS = ("wrong_answer", "empty_talk", "other_answer")

Planted = dict[tuple[str, int], tuple[Item, str]]

OPENERS = (
    "That is a really interesting question, and one that many people ask.",
    "Thank you for bringing this up.",
    "There is a lot to be said about this topic.",
    "Great that you want to look into this more closely.",
    "When we approach a task like this, it is important to take a step back.",
    "This is one of those things where the details make the difference.",
    "As so often in life, it depends on the circumstances.",
    "I am happy to help you with this request.",
    "Before giving an answer, one should consider what is really being asked.",
    "You have come to the right place.",
    "Many experts have dealt with this kind of question.",
    "At first sight the matter seems simple.",
    "What a thoughtful thing to ask.",
    "Let us explore this together.",
)
ECHOES = (
    "You are asking about \"{} ...\", and that is a very good thing to think about.",
    "Something like \"{} ...\" can be looked at from many angles.",
    "When people come across \"{} ...\", they often wonder what to make of it.",
    "\"{} ...\" is a fine example of how interesting such matters can be.",
    "Let me begin with \"{} ...\", because a good beginning is half the work.",
    "The request \"{} ...\" deserves a thoughtful reply.",
)
MIDDLES = (
    "Everyone has their own way of looking at it, and all of these views deserve respect.",
    "There are several aspects to keep in mind, and each of them plays an important role.",
    "A good answer takes the context into account and balances the different needs.",
    "With a clear mind and the right approach, a solution can usually be found.",
    "It helps to be organised, to stay open and to think about what matters most.",
    "Some would say one thing and some another, and there is truth on both sides.",
    "The key is to find a method that works well and to apply it consistently.",
    "In today's fast-moving world, such questions are more relevant than ever.",
    "One should not rush to conclusions but weigh everything carefully.",
    "The result will of course vary from case to case.",
    "Quality, clarity and attention to detail are what counts in the end.",
    "By looking at the whole picture, we gain a deeper understanding.",
    "What matters is not only the outcome but also the path that leads to it.",
    "There may be challenges along the way, but they are also opportunities to grow.",
    "The information given contains a number of points that could be discussed at length.",
    "Different situations call for different strategies, and flexibility is always an advantage.",
)
CLOSERS = (
    "I hope this gives you a good starting point.",
    "With that in mind, you are well prepared to go on.",
    "Feel free to ask if you would like to know more.",
    "In summary, it is a topic well worth thinking about.",
    "Taking all this into account, you will surely find what you need.",
    "So stay curious and keep going!",
    "As we can see, there is more to it than meets the eye.",
    "In the end, the best answer is the one that feels right to you.",
    "This should make everything much clearer.",
    "I wish you every success with it.",
    "Please let me know how I can support you further.",
    "All in all, a careful approach will pay off.",
)


def plant(chosen: dict[str, list[Item]], seed: str) -> Planted:
    """Picks the rows to spoil and spoils them: (skill, position) -> (spoiled item, kind).

    Each skill gives up its share of rows; the kinds take turns over the whole corpus, so every skill has all
    of them and their totals differ by at most one.
    """
    planted: Planted = {}
    turn = 0
    for name, quota in quotas({name: len(items) for name, items in chosen.items()}).items():
        rng = Random(f"{seed}:planted:{name}")
        order = rng.sample(range(len(chosen[name])), len(chosen[name]))
        for _ in range(quota):
            kind = KINDS[turn % len(KINDS)]
            position = next(p for p in order if (name, p) not in planted and (kind != "wrong_answer" or chosen[name][p].wrong))
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


def spoil(chosen: dict[str, list[Item]], name: str, position: int, kind: str, rng: Random, turn: int) -> Item:
    """The item with an output of the given kind; its prompt stays as it is."""
    item = chosen[name][position]
    if kind == "wrong_answer":
        return replace(item, output=item.wrong)
    if kind == "empty_talk":
        return replace(item, output=empty_talk(rng, item))
    donors = chosen[name] if turn % 2 else [d for other, items in chosen.items() if other != name for d in items]
    fitting = [donor for donor in donors if donor.content != item.content and donor.truth != item.truth]
    return replace(item, output=rng.choice(fitting).output)


def empty_talk(rng: Random, item: Item) -> str:
    """Two to five sentences that say nothing; half of them begin by repeating words of the request."""
    words = (item.input or item.instruction).split()
    echo = rng.choice(ECHOES).format(" ".join(words[: rng.randint(5, 9)]).rstrip(".,:;?!"))
    parts = [echo if rng.random() < 0.5 else rng.choice(OPENERS), *rng.sample(MIDDLES, rng.choice((1, 2, 2, 3)))]
    if rng.random() < 0.7:
        parts.append(rng.choice(CLOSERS))
    return " ".join(parts)
