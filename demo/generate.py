"""Writes the demo corpus: demo/corpus.jsonl and demo/target.jsonl, the same bytes on every machine.

    python demo/generate.py            rewrite both files
    python demo/generate.py --check    exit 1 if the stored files are not what this script makes
    python demo/generate.py --counts   print the table of README.md

The standard library is enough. Texts written by hand are in demo/content, the skills that use them in demo/skills.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

from planting import KINDS, plant
from skills import SKILLS, Item, Skill

SEED = "nn-cift-demo-1"
DEMO_DIR = Path(__file__).resolve().parent
REWORDED_SHARE = 20  # one corpus row in so many is another row of its skill in slightly other words

Row = dict[str, str]
Pools = dict[str, list[Item]]

POLITE_FORMS = (
    "Hi! {}", "Hello, could you help me? {}", "Quick question: {}", "{} Thanks!", "{} Thank you in advance.", "Please help. {}",
    "One more thing: {}", "{} Be precise, please.", "I have a small task for you. {}", "{} Take your time.",
)


def rank(*parts: str) -> str:
    """A seeded hash: the order of everything that must look random but stay stable."""
    return hashlib.sha256(":".join((SEED, *parts)).encode()).hexdigest()


def make_pools() -> Pools:
    """All items of every skill, with repeated prompts left out."""
    pools: Pools = {}
    for skill in SKILLS:
        unique = {item.prompt: item for item in reversed(skill.make(Random(f"{SEED}:{skill.name}")))}
        pools[skill.name] = list(reversed(unique.values()))
    return pools


def target_contents(skill: Skill, items: list[Item]) -> set[str]:
    """The contents that a skill reserves for the target, picked by hash.

    One for every row of the target where content is plentiful, else a share of it in proportion to the rows.
    """
    contents = {item.content for item in items}
    share = -(-len(contents) * skill.num_target // (skill.num_target + skill.num_corpus))
    reserved = skill.num_target if len(contents) >= 4 * skill.num_target else share
    return set(sorted(contents, key=rank)[:reserved])


def choose_rows(pools: Pools) -> tuple[Pools, Pools]:
    """The items of the corpus and of the target, which share no content in any skill."""
    reserved = {skill.name: target_contents(skill, pools[skill.name]) for skill in SKILLS}
    anywhere = set().union(*reserved.values())
    corpus, target = {}, {}
    for skill in SKILLS:
        num_reworded = skill.num_corpus // REWORDED_SHARE
        free = [item for item in pools[skill.name] if item.content not in anywhere]
        kept = take(free, skill.num_corpus - num_reworded, skill.name)
        corpus[skill.name] = kept + reworded(kept, num_reworded, Random(f"{SEED}:reworded:{skill.name}"))
        target[skill.name] = take([i for i in pools[skill.name] if i.content in reserved[skill.name]], skill.num_target, skill.name)
    return corpus, target


def take(items: list[Item], count: int, name: str) -> list[Item]:
    """The first `count` items: a skill lists its best choice first."""
    if len(items) < count:
        raise ValueError(f"skill {name!r} offers {len(items)} items, needed {count}: add content or lower its count in skills/__init__.py")
    return items[:count]


def reworded(items: list[Item], count: int, rng: Random) -> list[Item]:
    """Near-duplicates, as every real corpus has them: the same request with a greeting or a word of thanks."""
    return [replace(item, instruction=rng.choice(POLITE_FORMS).format(item.instruction)) for item in rng.sample(items, count)]


def rows_of(skill: Skill, items: list[Item], id_prefix: str) -> list[tuple[str, int]]:
    """Ids for the items of a skill, numbered in hash order: (id, position in items)."""
    order = sorted(range(len(items)), key=lambda position: rank(skill.name, items[position].prompt))
    return [(f"{id_prefix}{skill.prefix}-{number:04d}", position) for number, position in enumerate(order, 1)]


def as_row(row_id: str, skill: Skill, item: Item) -> Row:
    """An item as a row of the target; the corpus adds `planted`."""
    return {"id": row_id, "instruction": item.instruction, "input": item.input, "output": item.output, "skill": skill.name}


def build() -> tuple[list[Row], list[Row]]:
    """The rows of the corpus and of the target, in shuffled order."""
    corpus, target = choose_rows(make_pools())
    planted = plant(corpus, SEED)
    corpus_rows: list[Row] = []
    target_rows: list[Row] = []
    for skill in SKILLS:
        for row_id, position in rows_of(skill, corpus[skill.name], ""):
            item, kind = planted.get((skill.name, position), (corpus[skill.name][position], ""))
            corpus_rows.append({**as_row(row_id, skill, item), "planted": kind})
        for row_id, position in rows_of(skill, target[skill.name], "target-"):
            target_rows.append(as_row(row_id, skill, target[skill.name][position]))
    return shuffled(corpus_rows), shuffled(target_rows)


def shuffled(rows: list[Row]) -> list[Row]:
    """Rows in the order of the hash of their id."""
    return sorted(rows, key=lambda row: rank("order", row["id"]))


def as_jsonl(rows: list[Row]) -> bytes:
    """One JSON object a line, in UTF-8."""
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()


def counts_table(corpus: list[Row], target: list[Row]) -> str:
    """Rows by skill and by kind of planted row, as a Markdown table."""
    cells = Counter((row["skill"], row["planted"]) for row in corpus)
    in_corpus, in_target = (Counter(row["skill"] for row in rows) for rows in (corpus, target))
    lines = [f"| skill | corpus | target | {' | '.join(KINDS)} |", "|---|---:|---:|" + "---:|" * len(KINDS)]
    for skill in SKILLS:
        spoiled = " | ".join(str(cells[skill.name, kind]) for kind in KINDS)
        lines.append(f"| {skill.name} | {in_corpus[skill.name]} | {in_target[skill.name]} | {spoiled} |")
    totals = " | ".join(str(sum(row["planted"] == kind for row in corpus)) for kind in KINDS)
    return "\n".join((*lines, f"| all | {len(corpus)} | {len(target)} | {totals} |"))


def main() -> int:
    """Writes, checks or counts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the stored files and write nothing")
    parser.add_argument("--counts", action="store_true", help="print the number of rows by skill and write nothing")
    arguments = parser.parse_args()
    corpus, target = build()
    files = {DEMO_DIR / "corpus.jsonl": as_jsonl(corpus), DEMO_DIR / "target.jsonl": as_jsonl(target)}
    if arguments.counts:
        print(counts_table(corpus, target))
        return 0
    if arguments.check:
        stale = [path.name for path, content in files.items() if not path.is_file() or path.read_bytes() != content]
        for name in stale:
            print(f"demo/{name} is not what demo/generate.py makes: run python demo/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for path, content in files.items():
        path.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
