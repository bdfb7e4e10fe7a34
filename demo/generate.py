"""Writes the demo corpus: demo/corpus.jsonl and demo/target.jsonl, the same bytes on every machine.

    python demo/generate.py            rewrite both files
    python demo/generate.py --check    exit 1 if the stored files are not what this script makes
    python demo/generate.py --counts   print the table of README.md

The standard library is enough. Texts written by hand are in demo/content, the skills that use them
in demo/skills.
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
from skills.content import pick

SEED = "nn-cift-demo-1"
DEMO_DIR = Path(__file__).resolve().parent
REWORDED_SHARE = 20  # one corpus row in so many is another row of its skill, slightly reworded

Row = dict[str, str]
Pools = dict[str, list[Item]]


def rank(*parts: str) -> str:
    """A seeded hash: the order of everything that must look random but stay stable."""
    return hashlib.sha256(":".join((SEED, *parts)).encode()).hexdigest()


def make_pools() -> Pools:
    """All items of every skill, with repeated prompts left out."""
    pools: Pools = {}
    for skill in SKILLS:
        unique = {
            item.prompt: item for item in reversed(skill.make(Random(f"{SEED}:{skill.name}")))
        }
        pools[skill.name] = list(reversed(unique.values()))
    return pools


def target_contents(skill: Skill, items: list[Item]) -> set[str]:
    """The contents that a skill reserves for the target, picked by hash.

    One for every row of the target where content is plentiful, else a share in proportion to the
    rows.
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
        corpus[skill.name] = kept + reworded(
            kept, num_reworded, Random(f"{SEED}:reworded:{skill.name}")
        )
        held = [item for item in pools[skill.name] if item.content in reserved[skill.name]]
        target[skill.name] = take(held, skill.num_target, skill.name)
    return corpus, target


def take(items: list[Item], count: int, name: str) -> list[Item]:
    """The first `count` items: a skill lists its best choice first."""
    if len(items) < count:
        raise ValueError(
            f"skill {name!r} offers {len(items)} items, needed {count}: "
            "add to demo/content or lower its count in demo/skills/__init__.py"
        )
    return items[:count]


def reworded(items: list[Item], count: int, rng: Random) -> list[Item]:
    """Near-duplicates, as real corpora have them: the same request with a greeting or thanks."""
    return [
        replace(item, instruction=pick(rng, "polite_forms", request=item.instruction))
        for item in rng.sample(items, count)
    ]


def rows_of(skill: Skill, items: list[Item], id_prefix: str) -> list[tuple[str, int]]:
    """Ids for the items of a skill, numbered in hash order: (id, position in items)."""
    order = sorted(range(len(items)), key=lambda place: rank(skill.name, items[place].prompt))
    return [
        (f"{id_prefix}{skill.prefix}-{number:04d}", place) for number, place in enumerate(order, 1)
    ]


def as_row(row_id: str, skill: Skill, item: Item) -> Row:
    """An item as a row of the target; the corpus adds `planted`."""
    texts = {"instruction": item.instruction, "input": item.input, "output": item.output}
    return {"id": row_id, **texts, "skill": skill.name}


def build() -> tuple[list[Row], list[Row]]:
    """The rows of the corpus and of the target, in shuffled order."""
    corpus, target = choose_rows(make_pools())
    planted = plant(corpus, SEED)
    corpus_rows: list[Row] = []
    target_rows: list[Row] = []
    for skill in SKILLS:
        for row_id, position in rows_of(skill, corpus[skill.name], ""):
            whole = corpus[skill.name][position]
            item, kind = planted.get((skill.name, position), (whole, ""))
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
    lines = [f"| skill | corpus | target | {' | '.join(KINDS)} |", "|---|---:|---:|---:|---:|---:|"]
    for name in (skill.name for skill in SKILLS):
        spoiled = " | ".join(str(cells[name, kind]) for kind in KINDS)
        lines.append(f"| {name} | {in_corpus[name]} | {in_target[name]} | {spoiled} |")
    totals = " | ".join(str(sum(row["planted"] == kind for row in corpus)) for kind in KINDS)
    return "\n".join((*lines, f"| all | {len(corpus)} | {len(target)} | {totals} |"))


def main() -> int:
    """Writes, checks or counts; returns the exit code."""
    parser = argparse.ArgumentParser(description="Write the demo corpus.")
    parser.add_argument("--check", action="store_true", help="compare with the stored files only")
    parser.add_argument("--counts", action="store_true", help="print the rows by skill only")
    arguments = parser.parse_args()
    corpus, target = build()
    files = {"corpus.jsonl": as_jsonl(corpus), "target.jsonl": as_jsonl(target)}
    if arguments.counts:
        print(counts_table(corpus, target))
        return 0
    if arguments.check:
        return check(files)
    for name, content in files.items():
        (DEMO_DIR / name).write_bytes(content)
    return 0


def check(files: dict[str, bytes]) -> int:
    """Compares the stored files with what they should be; 1 when one of them differs."""
    stored = {path.name: path.read_bytes() for path in DEMO_DIR.glob("*.jsonl")}
    stale = [name for name, content in files.items() if stored.get(name) != content]
    for name in stale:
        print(f"demo/{name} is not what demo/generate.py makes: run python demo/generate.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
