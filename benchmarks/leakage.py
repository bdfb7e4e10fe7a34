"""Does ingest find what may not be trained on, and what is said twice? Planted leaks, time, groups.

    python benchmarks/leakage.py planted --work DIR --json FILE      # minutes
    python benchmarks/leakage.py scale --work DIR --json FILE        # a quarter of an hour
    python benchmarks/leakage.py duplicates --work DIR --json FILE   # minutes

planted: the pool is the 48,125 rows of ../shared/data/corpus.parquet, protected are its 1,200
single-topic target rows. For each kind of leak, each protected row that the kind changes is planted
once, a kind at a time.

exact            the row as it is
case and space   other case, doubled spaces, no punctuation but that of numbers, another answer
word order       the prompt's clauses in another order, another answer
words swapped    neighbouring words changed places, 15 % of them
20-word quote    20 words in a row of its text, in the middle of the prompt of a row of the pool
numbers in words every number of the prompt up to 999,999 spelled out
other numbers    every such number raised by 1 to 9

found     planted rows that are told, and by what: the first of exact, 13-gram and near
dropped   those that the defaults leave out of the candidates
short     planted rows of protected rows whose prompt is below 13 words: found, of how many

pool: rows of the pool itself that are told. The corpus was built without its targets' texts, so a
row that is told shares a passage (the P3 collection shows one under many templates) or is a false
alarm: `passages` have a run of at least 25 words in common with the protected row, `below_25` are
the most that can be false alarms. `templates count` is without the rule on common phrases.

scale: the screening of ingest alone, over parsed tables in parts of 20,000 rows, by the local
executor: one process and one thread. Rows are made by recombination: the first half of the words of
one row's instruction, input and output, the second half of another's, both drawn at random; so are
the 10,000 protected ones, of the target rows. Near duplicates are not looked for in a million
recombined rows, whose halves recur twenty times and more without a pair being near: that is the
worst case of the join, and took more than ten minutes. `rss_gib` is the most that the process held.

duplicates: groups of near duplicates in the pool by threshold; MinHash is datasketch's
(`pip install datasketch`: 128 permutations, its own LSH, pairs verified by Jaccard) on the same
sets, `pairs_found` the share of rows with a twin that it finds a twin of. Then the selection that
costs nothing, TF-IDF's cosine with targets in turn, of 2 % of the pool, from all rows and without
near duplicates: redundant is the mean cosine of a pick to the nearest other pick, near_twins the
picks that have a near duplicate among the picks, mix_error half the sum of |differences| of
category shares to the target set.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from engine import select
from engine.artifacts.parts import finish_part
from engine.config import parse_config
from engine.corpus import protected
from engine.corpus.screening import screen
from engine.corpus.tables import PARSED, Side
from engine.corpus.word_hashes import Words, texts
from engine.example import content_key, order_hash
from engine.kernels.set_join import count_members, join_leaders
from engine.kernels.words import hash_shingles
from engine.runtime.local import LocalExecutor

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TARGETS = ("code", "commonsense", "general", "gsm8k", "sentiment", "summarization")
COLUMNS = ("id", "instruction", "input", "output")
PART = 20_000
MOST_NEAR = 100_000  # recombined rows; see scale
SEED = 7

Row = dict[str, Any]


# --- rows and tables ------------------------------------------------------------------------------


def read(path: Path) -> list[Row]:
    """All rows of a parquet file."""
    rows: list[Row] = pq.read_table(path).to_pylist()
    return rows


def prompt_of(row: Row) -> str:
    """Instruction and input."""
    return f"{row['instruction']} {row['input']}".strip()


def target_rows() -> list[Row]:
    """The rows of the single-topic target sets, in their order."""
    return [row for name in TARGETS for row in read(DATA / "targets" / f"{name}.parquet")]


def as_side(name: str, rows: Iterator[Row], folder: Path) -> Side:
    """Rows as ingest has them after parsing; a part at a time."""
    files, parts, batch = [], [], []
    for number, row in enumerate(rows):
        batch.append(
            {
                **{column: row[column] for column in COLUMNS},
                "key": content_key(row["instruction"], row["input"], row["output"]),
                "extra": "{}",
                "file": name,
                "line": number + 1,
                "id_hash": order_hash(0, row["id"]),
            }
        )
        if len(batch) == PART:
            files.append(_write(folder / name / f"{len(files):05d}.parquet", batch))
            batch = []
    if batch:
        files.append(_write(folder / name / f"{len(files):05d}.parquet", batch))
    for file in files:
        parts.append(finish_part(folder, file, pq.read_metadata(file).num_rows))
    config = parse_config({"corpus": {"path": name}}).corpus
    return Side(name, config, files, parts, [0] * len(files), folder / "none", {})


def _write(path: Path, rows: Sequence[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=PARSED), path)
    return path


def settings(**more: Any) -> Any:
    """Settings of a run with some corpus."""
    return parse_config({"corpus": {"path": "rows"}, **more})


# --- planted leaks --------------------------------------------------------------------------------

_ONES = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen",
)
_TENS = re.findall(r"\S+", "- - twenty thirty forty fifty sixty seventy eighty ninety")
_NUMBER = re.compile(r"(?<!\d)\d{1,6}(?!\d)")


def spelled(number: int) -> str:
    """A number below a million in English words."""
    for size, word in ((1000, "thousand"), (100, "hundred")):
        if number >= size:
            rest = f" {spelled(number % size)}" if number % size else ""
            return f"{spelled(number // size)} {word}{rest}"
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f" {_ONES[number % 10]}" if number % 10 else "")


def folded(text: str, draw: random.Random) -> str:
    """Other case, doubled spaces, no punctuation."""
    words = re.sub(r"(?<!\d)[.,;:!?\"'()](?!\d)", " ", text).split()
    return "  ".join(draw.choice((word.upper(), word.title(), word.lower())) for word in words)


def reordered(text: str, draw: random.Random) -> str:
    """The clauses in another order."""
    clauses = re.split(r"(?<=[.?!,;:])\s+", text)
    draw.shuffle(clauses)
    return " ".join(clauses)


def swapped(text: str, draw: random.Random) -> str:
    """Some neighbouring words in each other's place."""
    words, place = text.split(), 0
    while place < len(words) - 1:
        if draw.random() < 0.15:
            words[place : place + 2] = reversed(words[place : place + 2])
            place += 1
        place += 1
    return " ".join(words)


def quoted(row: Row, host: Row, draw: random.Random) -> str:
    """Twenty words of a row inside another row's prompt."""
    words, around = f"{prompt_of(row)} {row['output']}".split(), prompt_of(host).split()
    if len(words) < 20:
        return prompt_of(row)
    first, middle = draw.randrange(len(words) - 19), len(around) // 2
    return " ".join([*around[:middle], *words[first : first + 20], *around[middle:]])


Make = Callable[[Row, Row, random.Random], str]
KINDS: dict[str, Make] = {
    "exact": lambda row, host, draw: prompt_of(row),
    "case and space": lambda row, host, draw: folded(prompt_of(row), draw),
    "word order": lambda row, host, draw: reordered(prompt_of(row), draw),
    "words swapped": lambda row, host, draw: swapped(prompt_of(row), draw),
    "20-word quote": quoted,
    "numbers in words": lambda row, host, draw: _NUMBER.sub(
        lambda m: spelled(int(m[0])), prompt_of(row)
    ),
    "other numbers": lambda row, host, draw: _NUMBER.sub(
        lambda m: str(int(m[0]) + draw.randint(1, 9)), prompt_of(row)
    ),
}


def plant(kind: str, tests: Sequence[Row], pool: Sequence[Row]) -> list[Row]:
    """A row for each protected row that the kind changes; its id names that row's place."""
    draw, made = random.Random(SEED), []
    for number, row in enumerate(tests):
        host = pool[draw.randrange(len(pool))]
        prompt = KINDS[kind](row, host, draw)
        if prompt == prompt_of(row) and kind != "exact":
            continue
        output = row["output"] if kind == "exact" else host["output"]
        made.append(
            {"id": f"planted-{number}", "instruction": prompt, "input": "", "output": output}
        )
    return made


def leaks_of(pool: Side, tests: Side, folder: Path) -> list[Row]:
    """What the screening tells of the pool, by the defaults."""
    config = settings(duplicates="keep", protect="tests")
    result = screen(LocalExecutor(), folder, config, pool, {"protect": [tests]})
    return read(folder / result.parts["leaks"][0].path)


def planted(work: Path) -> list[Row]:
    """What is told of the pool, and of each kind of planted rows."""
    pool, tests = read(DATA / "corpus.parquet"), target_rows()
    short = [len(prompt_of(row).split()) < 13 for row in tests]
    protected_side = as_side("tests", iter(tests), work)
    base = as_side("pool", iter(pool), work)
    lines = [pool_line("pool", leaks_of(base, protected_side, work))]
    with _templates_count():
        lines.append(pool_line("pool, templates count", leaks_of(base, protected_side, work)))
    for kind in KINDS:
        made = plant(kind, tests, pool)
        own = as_side(f"planted-{kind.replace(' ', '-')}", iter(made), work)
        both = Side(
            "pool",
            base.config,
            [*base.files, *own.files],
            [*base.parts, *own.parts],
            [0] * (len(base.files) + len(own.files)),
            base.duplicates,
            {},
        )
        told = {r["id"]: r for r in leaks_of(both, protected_side, work) if r["file"] == own.name}
        by = Counter(row["kind"] for row in told.values())
        brief = [row["id"] for row in made if short[int(row["id"].removeprefix("planted-"))]]
        lines.append(
            {
                "kind": kind,
                "planted": len(made),
                "found": len(told),
                "missed": len(made) - len(told),
                **{name: by[name] for name in ("exact", "13-gram", "near")},
                "dropped": sum(row["dropped"] for row in told.values()),
                "short": f"{sum(name in told for name in brief)} of {len(brief)}",
            }
        )
        print(lines[-1], file=sys.stderr)
    return lines


class _templates_count:  # noqa: N801
    """Every 13 words count, those of templates too."""

    def __enter__(self) -> None:
        self._before, protected.OWN_WORDS = protected.OWN_WORDS, 0

    def __exit__(self, *error: object) -> None:
        protected.OWN_WORDS = self._before


def pool_line(name: str, told: Sequence[Row]) -> Row:
    """How many rows of the pool are told, and how many of them share no passage."""
    by = Counter(row["kind"] for row in told)
    runs = np.array([longest_run(row["text"], row["protected_text"]) for row in told])
    return {
        "kind": name,
        "told": len(told),
        **{kind: by[kind] for kind in ("exact", "13-gram", "near")},
        "dropped": sum(row["dropped"] for row in told),
        "passages": int((runs >= 25).sum()),
        "below_25": int((runs < 25).sum()),
    }


def longest_run(one: str, other: str) -> int:
    """Words in a row that two texts have in common, at most."""
    first, second = (Words.of(pa.chunked_array([[text]])).hashes.tolist() for text in (one, other))
    where: dict[int, list[int]] = {}
    for place, word in enumerate(second):
        where.setdefault(word, []).append(place)
    best, before = 0, dict[int, int]()
    for word in first:
        now = {place: before.get(place - 1, 0) + 1 for place in where.get(word, ())}
        best, before = max([best, *now.values()]), now
    return best


# --- time and memory ------------------------------------------------------------------------------


def recombined(rows: Sequence[Row], count: int, seed: int) -> Iterator[Row]:
    """Rows of a first and a second half of two rows' texts."""
    names = ("instruction", "input", "output")
    halves = []
    for row in rows:
        words = [row[name].split(" ") for name in names]
        cut = [(w[: (len(w) + 1) // 2], w[(len(w) + 1) // 2 :]) for w in words]
        halves.append([(" ".join(a), " ".join(b)) for a, b in cut])
    first, second = np.random.default_rng(seed).integers(len(rows), size=(2, count))
    for number, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        parts = zip(names, halves[i], halves[j], strict=True)
        yield {"id": str(number), **{name: f"{a[0]} {b[1]}".strip() for name, a, b in parts}}


def scale_one(work: Path, num_rows: int, num_protected: int, what: str) -> Row:
    """One screening, in this process, whose peak of memory is then its own."""
    pool = read(DATA / "corpus.parquet")
    rows = iter(pool) if num_rows == len(pool) else recombined(pool, num_rows, SEED)
    candidates = as_side(f"rows-{num_rows}", rows, work)
    tests = as_side(f"tests-{num_protected}", recombined(target_rows(), num_protected, 1), work)
    del pool, rows
    folder = work / f"scale-{num_rows}-{what}"
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    duplicates = {"leaks": "keep", "near duplicates": "near", "exact duplicates": "exact"}[what]
    sets = {"protect": [tests]} if what == "leaks" else {}
    config = settings(duplicates=duplicates, protect="tests")
    before, cpu, wall = _peak_gib(), time.process_time(), time.perf_counter()
    result = screen(LocalExecutor(), folder, config, candidates, sets)
    return {
        "rows": num_rows,
        "protected": num_protected if sets else 0,
        "what": what,
        "wall_s": round(time.perf_counter() - wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "rss_gib": round(_peak_gib(), 2),
        "rss_before_gib": round(before, 2),
        "found": sum(sum(part.rows for part in parts) for parts in result.parts.values()),
    }


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def scale(work: Path, sizes: Sequence[int]) -> list[Row]:
    """Each screening in a process of its own."""
    lines = []
    for num_rows in sizes:
        whats = ["leaks", "exact duplicates"]
        if num_rows <= MOST_NEAR:
            whats.append("near duplicates")
        for what in whats:
            command = [sys.executable, __file__, "one", "--work", str(work), "--what", what]
            command += ["--rows", str(num_rows)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            lines.append(json.loads(done.stdout.splitlines()[-1]))
            print(lines[-1], file=sys.stderr)
    return lines


# --- duplicates -----------------------------------------------------------------------------------


def duplicates() -> list[Row]:
    """Groups by threshold, by MinHash, and what a selection makes of them."""
    pool = pq.read_table(DATA / "corpus.parquet")
    words = Words.of(texts(pool))
    sets = hash_shingles(words.hashes, words.starts, protected.SHINGLE)
    counts = np.zeros(1 << 24, np.uint8)
    count_members(sets[0], counts)
    order = np.arange(len(pool))
    sources, lines, kept = np.array(pool["source"].to_pylist()), [], {}
    join_leaders(sets[0], sets[1][:100], order[:99], counts, 0.5)  # compiles
    for threshold in (0.6, 0.7, 0.8, 0.9):
        started = time.perf_counter()
        leader, _ = join_leaders(*sets, order, counts, threshold)
        seconds = time.perf_counter() - started
        gone = leader != order
        kept[threshold] = leader
        sizes = np.unique(leader[gone], return_counts=True)[1] + 1
        common = Counter(sources[gone].tolist()).most_common(4)
        lines.append(
            {
                "threshold": threshold,
                "seconds": round(seconds, 2),
                "groups": len(sizes),
                "largest": int(sizes.max()),
                "left_out": int(gone.sum()),
                "share": round(float(gone.mean()), 3),
                "from_p3": int(sum(str(s).startswith("p3_") for s in sources[gone])),
                "most": ", ".join(f"{name} {number}" for name, number in common),
            }
        )
        print(lines[-1], file=sys.stderr)
    lines += by_minhash(sets, kept[0.8])
    return lines + selections(pool, kept[0.8])


def by_minhash(sets: tuple[Any, Any], leader: Any) -> list[Row]:
    """The same rows by datasketch, if it is installed."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        return []
    members, starts = sets
    started = time.perf_counter()
    index, found = MinHashLSH(threshold=0.8, num_perm=128), np.zeros(len(leader), dtype=bool)
    rows = [members[a:b] for a, b in pairwise(starts)]
    empty = MinHash(num_perm=128, hashfunc=lambda value: value & 0xFFFFFFFF)
    for number, row in enumerate(rows):
        hashed = empty.copy()
        hashed.update_batch(row.tolist())
        own = set(row.tolist())
        for other in index.query(hashed):
            theirs = rows[other].tolist()
            shared = len(own.intersection(theirs))
            if shared / (len(own) + len(theirs) - shared) >= 0.8:
                found[number] = True
                break
        if not found[number]:
            index.insert(number, hashed)
    exact = leader != np.arange(len(leader))
    lines = [
        {
            "threshold": "0.8 by MinHash",
            "seconds": round(time.perf_counter() - started, 2),
            "left_out": int(found.sum()),
            "pairs_found": round(float((found & exact).sum() / exact.sum()), 3),
        }
    ]
    print(lines, file=sys.stderr)
    return lines


def selections(pool: pa.Table, leader: Any) -> list[Row]:
    """The cosine with targets in turn, from all rows and from those that stay."""
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    vectors = vectorizer.fit_transform(texts(pool).to_pylist())
    stay, lines = np.flatnonzero(leader == np.arange(len(pool))), []
    categories, sources = (np.array(pool[name].to_pylist()) for name in ("category", "source"))
    for name in ("mixed_math_code_sentiment_summ", "general", "commonsense", "summarization"):
        target = pq.read_table(DATA / "targets" / f"{name}.parquet")
        cosines = (vectors @ vectorizer.transform(texts(target).to_pylist()).T).toarray()
        mix, budget = Counter(target["category"].to_pylist()), len(pool) // 50
        for which, rows in (("all", np.arange(len(pool))), ("without", stay)):
            kernel = np.ascontiguousarray(cosines[rows].T, dtype=np.float32)
            means = kernel.mean(axis=0, dtype=np.float64)
            picks = rows[select(kernel, budget, "round_robin", mean_influence=means).ranking]
            own = (vectors[picks] @ vectors[picks].T).toarray()
            np.fill_diagonal(own, -1)
            shares = Counter(categories[picks].tolist())
            off = [abs(shares[c] / len(picks) - mix[c] / len(target)) for c in {*shares, *mix}]
            groups = Counter(leader[picks].tolist()).values()
            lines.append(
                {
                    "target": name,
                    "pool": which,
                    "picks": len(picks),
                    "redundant": round(float(own.max(axis=1).mean()), 3),
                    "near_twins": sum(number for number in groups if number > 1),
                    "sources": len(set(sources[picks].tolist())),
                    "mix_error": round(sum(off) / 2, 3),
                }
            )
            print(lines[-1], file=sys.stderr)
    return lines


# --- command line ---------------------------------------------------------------------------------

PLANTED = ("kind", "planted", "found", "missed", "exact", "13-gram", "near", "dropped", "short")
POOL = ("kind", "told", "exact", "13-gram", "near", "dropped", "passages", "below_25")
SCALE = ("rows", "protected", "what", "wall_s", "cpu_s", "rss_before_gib", "rss_gib", "found")
GROUPS = ("threshold", "seconds", "groups", "largest", "left_out", "share", "from_p3", "most")
PICKS = ("target", "pool", "picks", "redundant", "near_twins", "sources", "mix_error")


def main() -> None:
    """Measure, print as tables, keep as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["planted", "scale", "duplicates", "one"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[48_125, 1_000_000])
    parser.add_argument("--rows", type=int, default=48_125)
    parser.add_argument("--what", dest="one", default="leaks")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    if options.what == "one":
        print(json.dumps(scale_one(work, options.rows, 10_000, options.one)))
        return
    if options.what == "planted":
        lines, tables = planted(work), [PLANTED, POOL]
    elif options.what == "scale":
        lines, tables = scale(work, options.sizes), [SCALE]
    else:
        lines, tables = (
            duplicates(),
            [GROUPS, ("threshold", "seconds", "left_out", "pairs_found"), PICKS],
        )
    for columns in tables:
        shown = [line for line in lines if columns[1] in line and columns[-1] in line]
        if shown:
            print(f"{markdown_table(shown, columns)}\n")
    if options.json is not None:
        made = {"seed": SEED, "sizes": options.sizes if options.what == "scale" else None}
        save(options.json, f"leakage: {options.what}", made, lines, threads=1)


if __name__ == "__main__":
    main()
