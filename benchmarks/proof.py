"""Do selected rows train a better model? Seven target sets, from a large and partly bad pool.

    python benchmarks/proof.py subsets --answers DIR --work DIR2   # minutes a set
    python benchmarks/proof.py train --work DIR2                   # many hours, resumes
    python benchmarks/proof.py table --work DIR2 --json FILE

The pool is corpus.parquet with a tenth of every category made bad, as in target_recovery.py, whose
`ask --work DIR` has filled DIR: rows whose response has at most RESPONSE_TOKENS, cut to MAX_TOKENS
from the head of the prompt. Of each target set a hash draws 100 rows that select and 100 others
that test, seen by nothing else. A subset is BUDGET rows, or as many rows as have the tokens of
BUDGET random ones (`tokens`). It trains LoRA adapters of the packaged instruct model, rank 8, two
epochs, as `jobs/evaluate.py` does; judged by the log-probability of the test answers, a token, and
by how many of them greedy decoding would give word for word. Every training is a line of
trainings.parquet in DIR2 as soon as it is finished, and none is done twice; the subsets are in
subsets.json, so that any machine can go on with the trainings.

Arms: `zero-shot`; `random` (another subset for every seed), `balanced` over sources, `longest`,
`BM25`, `cosine`, the last two with targets in turn. `rds`, `delift_se`: the teacher asked about
every row; `NN-CIFT ...`: asked about 5 % of them, the audit's included, the rest learned, a draw
for every seed; `+ gate`: without the fifth whose prompt and response fit worst; `+ second look`:
the teacher asked about the best two budgets. All but `longest` by round robin.

Differences are those of `engine.evaluation.compare`: paired by test row, bootstrap over test rows
and seeds, p corrected by Holm over the arms of a set.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import target_recovery as recovery
from benchmarks.provenance import markdown_table, save
from engine.artifacts.files import atomic_path, read_json, write_json
from engine.config import PACKAGED_LANGUAGE_MODEL, ModelConfig
from engine.config.evaluation import FineTuningConfig
from engine.evaluation.compare import LEVEL, MIN_SEEDS, difference, holm
from engine.evaluation.fine_tune import fit_adapter
from engine.evaluation.prompts import PromptBuilder
from engine.example import order_hash
from engine.models.lora import LoraModel
from engine.models.prompt_tokenizer import PromptTokenizer, TrainingRow
from engine.selection import baselines
from engine.terminal.progress import say

Array = NDArray[Any]
Row = dict[str, Any]

BUDGET, ASKED, LOOK, DROPPED = 150, 0.05, 2, 0.2
MAX_TOKENS, RESPONSE_TOKENS, TEST_TOKENS = 160, 128, 320
NUM_TARGETS = NUM_TESTS = 100
LONGEST = 4 * BUDGET  # rows that a ranking has, for subsets by tokens
TRAINING = FineTuningConfig(quantization=None, epochs=2, batch_size=8)
MODEL = {"path": PACKAGED_LANGUAGE_MODEL}
STYLE: Literal["chat", "plain"] = "chat"
ZERO_SHOT, RANDOM = "zero-shot", "random"
FIT = -3  # the feature `agreement`, three times the cosine; length has two numbers
SUBSETS, TRAININGS = "subsets.json", "trainings.parquet"

# Seeds of each arm, on all sets; then on three of them alone.
CORE = {
    ZERO_SHOT: 1,
    RANDOM: 5,
    "cosine": 3,
    "rds": 3,
    "NN-CIFT rds": 3,
    "NN-CIFT rds + gate": 3,
}
FURTHER = {
    "balanced": 2,
    "longest": 2,
    "BM25": 2,
    "RDS+ as published": 2,
    "NN-CIFT rds + second look": 2,
    "delift_se": 2,
    "NN-CIFT delift_se": 2,
}
FURTHER_SETS = ("gsm8k", "general", recovery.MIXED)
BY_TOKENS = (RANDOM, "cosine", "rds", "NN-CIFT rds")
TEACHER_OF = {
    "NN-CIFT rds": "rds",
    "NN-CIFT rds + gate": "rds",
    "NN-CIFT rds + second look": "rds",
    "NN-CIFT delift_se": "delift_se",
}
BY_WORDS = {"balanced": "balanced", "longest": "length", "BM25": "bm25_round_robin"}


def arms_of(name: str) -> dict[str, int]:
    """The arms of a target set, with their numbers of seeds."""
    return {**CORE, **FURTHER} if name in FURTHER_SETS else CORE


# --- subsets --------------------------------------------------------------------------------------


def training_rows(rows: Sequence[Row], tokenizer: PromptTokenizer, longest: int) -> list[Any]:
    """Each row as ids, None where its response does not fit."""
    builder = PromptBuilder(tokenizer, STYLE, "")
    return [builder.training_row(recovery.example_of(row), longest) for row in rows]


def split(rows: Sequence[Row]) -> tuple[list[int], list[int]]:
    """Positions of the rows of a target set that select, and of those that test."""
    order = sorted(range(len(rows)), key=lambda i: order_hash(0, "proof", rows[i]["id"]))
    return order[:NUM_TARGETS], order[NUM_TARGETS : NUM_TARGETS + NUM_TESTS]


class Choosing:
    """Who picks what for one target set: positions among the pool's rows, best first."""

    def __init__(self, pool: recovery.Pool, sources: Sequence[str]) -> None:
        self.pool, self.sources = pool, sources
        self._learned: dict[tuple[str, int], recovery.Learned] = {}

    def ranking(self, arm: str, seed: int) -> tuple[Array, int]:
        """LONGEST picks, and how many rows a teacher was asked about for them."""
        pool = self.pool
        if arm == RANDOM or arm == "cosine" or arm in BY_WORDS:
            return self._baseline(BY_WORDS.get(arm, arm), seed), 0
        if arm == "RDS+ as published":
            return self._picked(recovery.full_teacher(pool, "rds", centred=False)), pool.size
        teacher = arm.split()[-1] if arm.startswith("NN-CIFT") and "+" not in arm else "rds"
        if not arm.startswith("NN-CIFT"):
            return self._picked(self.teacher(arm)), pool.size
        draw = self._draw(teacher, seed)
        influence, bounds = draw.influence[recovery.DEFAULT], draw.bounds
        if arm.endswith("gate"):
            fits = pool.features[0][:, FIT]
            kept = np.flatnonzero(fits >= np.quantile(fits, DROPPED))
            picks = recovery.ranked(pool, influence[kept], bounds, "round robin", LONGEST)
            return kept[picks], len(draw.asked)
        picks = recovery.ranked(pool, influence, bounds, "round robin", LONGEST)
        if arm.endswith("second look"):
            listed = np.sort(picks[: LOOK * BUDGET])
            whole = self.teacher(teacher)[listed]
            again = recovery.ranked(pool, whole, bounds, "round robin", len(listed))
            return listed[again], len(np.union1d(draw.asked, listed))
        return picks, len(draw.asked)

    def teacher(self, name: str) -> Array:
        """The influence (M, N) of the teacher asked about everything."""
        return recovery.full_teacher(self.pool, name)

    def _picked(self, influence: Array) -> Array:
        bounds = float(influence.min()), float(influence.max())
        return recovery.ranked(self.pool, influence, bounds, "round robin", LONGEST)

    def _draw(self, teacher: str, seed: int) -> recovery.Learned:
        key = teacher, seed
        if key not in self._learned:
            name = self._learned[teacher, 0].student if (teacher, 0) in self._learned else "auto"
            self._learned[key] = recovery.asked_of_all(self.pool, teacher, ASKED, seed, name)
        return self._learned[key]

    def _baseline(self, name: str, seed: int) -> Array:
        candidates, targets = self.pool.examples
        hashes = [order_hash(seed, "baseline", row.id) for row in candidates]
        known = baselines.Pool(
            np.array(hashes, np.uint64),
            candidates,
            targets,
            *self.pool.text,
            sources=self.sources,
            seed=seed,
        )
        return baselines.ranking(name, known, LONGEST)


def write_subsets(answers: Path, work: Path, sets: Sequence[str]) -> None:
    """subsets.json: of each set and arm, for each seed, the rows by rows and by tokens."""
    path = work / SUBSETS
    found = read_json(path) if path.exists() else {}
    rows = recovery.pool_rows()
    tokenizer = _tokenizer()
    sizes = np.array(
        [0 if r is None else r.size for r in training_rows(rows, tokenizer, MAX_TOKENS)]
    )
    fits = np.array([len(tokenizer.tokenize(row["output"])) <= RESPONSE_TOKENS for row in rows])
    places = np.flatnonzero((sizes > 0) & fits)
    for name in sets:
        if name in found:
            continue
        pool = recovery.Pool(answers, name)
        targets = [row for row in recovery.target_rows() if row["set"] == name]
        pool.keep(places, np.array(split(targets)[0]))
        choosing = Choosing(pool, [rows[i]["source"] for i in places])
        budget = _tokens_of_random(choosing, sizes[places])
        of_set: dict[str, list[Row]] = {}
        for arm, seeds in arms_of(name).items():
            if arm == ZERO_SHOT:
                continue
            of_set[arm] = []
            for seed in range(seeds if arm == RANDOM or arm.startswith("NN-CIFT") else 1):
                started = time.process_time()
                picks, asked = choosing.ranking(arm, seed)
                by_tokens = picks[np.cumsum(sizes[places][picks]) <= budget]
                of_set[arm].append(
                    {
                        "rows": places[picks[:BUDGET]].tolist(),
                        "by_tokens": places[by_tokens].tolist(),
                        "asked": asked,
                        "bad": float(pool.bad[picks[:BUDGET]].mean()),
                        "right": float(pool.measures(pool.tally(picks[:BUDGET]))[0]),
                        "cpu_seconds": time.process_time() - started,
                    }
                )
            first = of_set[arm][0]
            say(f"{name}, {arm}: right {first['right']:.3f}, bad {first['bad']:.3f}")
        found[name] = of_set
        write_json(path, found)


def _tokens_of_random(choosing: Choosing, sizes: Array) -> float:
    """Tokens of BUDGET rows, the mean over the random subsets."""
    drawn = [choosing.ranking(RANDOM, seed)[0][:BUDGET] for seed in range(CORE[RANDOM])]
    return float(np.mean([sizes[picks].sum() for picks in drawn]))


def _tokenizer() -> PromptTokenizer:
    from engine.models.language_model import LanguageModel

    return LanguageModel(ModelConfig.model_validate(MODEL)).tokenizer


# --- trainings ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """One training and its test, or the untrained model's."""

    target: str
    arm: str
    axis: str
    seed: int
    rows: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What is never done twice."""
        return self.target, self.arm, self.axis, self.seed


def wanted(subsets: Mapping[str, Any]) -> Iterator[Training]:
    """All trainings, the first seeds of the core arms first, so that any prefix is a table."""
    found = []
    for target, arms in subsets.items():
        for arm, seeds in arms_of(target).items():
            for seed in range(seeds):
                if arm == ZERO_SHOT:
                    found.append(Training(target, arm, "rows", seed, ()))
                    continue
                subset = arms[arm][min(seed, len(arms[arm]) - 1)]
                found.append(Training(target, arm, "rows", seed, tuple(subset["rows"])))
                if arm in BY_TOKENS and seed < MIN_SEEDS:
                    rows = tuple(subset["by_tokens"])
                    found.append(Training(target, arm, "tokens", seed, rows))
    order = {"rows": 0, "tokens": 1}
    yield from sorted(found, key=lambda t: (order[t.axis], t.arm not in CORE, t.seed))


class Trainer:
    """One model for all trainings: adapters start anew, what they stand beside stays loaded."""

    def __init__(
        self, model: Mapping[str, Any], rows: Sequence[Row], targets: Sequence[Row]
    ) -> None:
        config = ModelConfig.model_validate(model)
        settings = TRAINING
        self.model = LoraModel(
            config, settings.lora_rank, settings.lora_alpha, settings.lora_dropout, None, seed=0
        )
        self.rows, self.targets = rows, targets

    @cached_property
    def _tests(self) -> dict[str, list[TrainingRow]]:
        found: dict[str, list[TrainingRow]] = {}
        for name in dict.fromkeys(row["set"] for row in self.targets):
            of_set = [row for row in self.targets if row["set"] == name]
            tests = [of_set[i] for i in split(of_set)[1]]
            read = training_rows(tests, self.model.tokenizer, TEST_TOKENS)
            found[name] = [row for row in read if row is not None]
        return found

    def done(self, training: Training) -> Row:
        """Train, and read the test rows."""
        started, cpu = time.perf_counter(), time.process_time()
        chosen = [self.rows[i] for i in training.rows]
        read = training_rows(chosen, self.model.tokenizer, MAX_TOKENS)
        rows = {row["id"]: ids for row, ids in zip(chosen, read, strict=True) if ids is not None}
        if rows:
            fit_adapter(self.model, rows, TRAINING, training.seed, 8 * MAX_TOKENS)
        else:
            self.model.reset(training.seed)  # adapters that do nothing yet
        values, exact = self.model.read_answers(self._tests[training.target], 8, 4 * TEST_TOKENS)
        return {
            "target": training.target,
            "arm": training.arm,
            "axis": training.axis,
            "seed": training.seed,
            "rows": len(rows),
            "tokens": sum(ids.size for ids in rows.values()) * TRAINING.epochs,
            "log_likelihood": values.tolist(),
            "exact": exact.tolist(),
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - cpu,
        }


def train(
    work: Path,
    make_trainer: Callable[[], Trainer],
    sets: Sequence[str],
    most: int | None = None,
) -> int:
    """Do the trainings that trainings.parquet lacks; returns how many were done."""
    subsets = {name: arms for name, arms in read_json(work / SUBSETS).items() if name in sets}
    path, trainer = work / TRAININGS, None
    done: list[Row] = pq.read_table(path).to_pylist() if path.exists() else []
    known = {(row["target"], row["arm"], row["axis"], row["seed"]) for row in done}
    missing = [training for training in wanted(subsets) if training.key not in known]
    for number, training in enumerate(missing[:most], 1):
        trainer = trainer or make_trainer()
        row = trainer.done(training)
        done.append(row)
        with atomic_path(path) as partial:
            pq.write_table(pa.Table.from_pylist(done), partial)
        say(
            f"{number} of {len(missing)}: {', '.join(map(str, training.key))}: "
            f"{np.mean(row['log_likelihood']):.3f} nats, {row['seconds']:.0f} s"
        )
    return len(missing[:most])


# --- the table ------------------------------------------------------------------------------------


def compared(trainings: Sequence[Row], subsets: Mapping[str, Any]) -> list[Row]:
    """A line for each set, axis and arm: measures, and differences to random and to its teacher."""
    found: list[Row] = []
    for target, axis in dict.fromkeys((row["target"], row["axis"]) for row in trainings):
        some = [row for row in trainings if (row["target"], row["axis"]) == (target, axis)]
        arms = {
            arm: [row for row in some if row["arm"] == arm]
            for arm in dict.fromkeys(row["arm"] for row in some)
        }
        values = {arm: np.array([r["log_likelihood"] for r in rows]) for arm, rows in arms.items()}
        lines = []
        for arm, rows in arms.items():
            line: Row = {"target": target, "axis": axis, "arm": arm, "seeds": len(rows)}
            line["log_likelihood"] = float(values[arm].mean())
            line["exact"] = float(np.mean([row["exact"] for row in rows]))
            line["tokens"] = float(np.mean([row["tokens"] for row in rows]))
            chosen = subsets.get(target, {}).get(arm, [])
            for name in ("asked", "right", "bad", "cpu_seconds"):
                line[name] = float(np.mean([one[name] for one in chosen])) if chosen else None
            for name, other in (("random", RANDOM), ("teacher", TEACHER_OF.get(arm))):
                if other is None or other == arm or other not in values:
                    continue
                told = difference(values[arm], values[other])
                line[f"less_{name}"], line[f"less_{name}_interval"] = told.value, told.interval
                if name == "random":
                    line["p"] = told.p
            lines.append(line)
        family = [line for line in lines if "p" in line]
        for line, p in zip(family, holm([line["p"] for line in family]), strict=True):
            least = min(line["seeds"], len(arms[RANDOM]))
            line["p"] = p
            line["differs"] = p < LEVEL and least >= MIN_SEEDS
        found += lines
    return found


def _shown(line: Row) -> Row:
    """A line of the printed table."""
    shown = {name: line.get(name) for name in ("target", "axis", "arm", "seeds")}
    for name in ("log_likelihood", "exact", "tokens", "asked", "right", "bad"):
        shown[name] = line.get(name)
    for other in ("random", "teacher"):
        if f"less_{other}" in line:
            low, high = line[f"less_{other}_interval"]
            star = "*" if other == "random" and line.get("differs") else ""
            shown[f"less {other}"] = (
                f"{line[f'less_{other}']:+.3f}{star} ({low:+.3f} to {high:+.3f})"
            )
    return shown


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("subsets", "train", "table"))
    parser.add_argument("--work", type=Path, required=True, help="subsets, trainings")
    parser.add_argument("--answers", type=Path, help="--work of target_recovery.py")
    parser.add_argument("--sets", nargs="+", choices=recovery.SETS, default=list(recovery.SETS))
    parser.add_argument("--dtype", default="float32", help="of the model")
    parser.add_argument("--most", type=int, help="trainings to do now")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    work = arguments.work
    if arguments.what == "subsets":
        if arguments.answers is None:
            sys.exit("subsets needs --answers, the --work of target_recovery.py ask")
        write_subsets(arguments.answers, work, arguments.sets)
    elif arguments.what == "train":
        model = {**MODEL, "dtype": arguments.dtype}
        train(
            work,
            lambda: Trainer(model, recovery.pool_rows(), recovery.target_rows()),
            arguments.sets,
            arguments.most,
        )
    else:
        rows = pq.read_table(work / TRAININGS).to_pylist()
        lines = compared(rows, read_json(work / SUBSETS))
        shown = [_shown(line) for line in lines]
        columns = list(dict.fromkeys(name for line in shown for name in line))
        print(markdown_table(shown, columns))
        if arguments.json:
            settings = {"budget": BUDGET, "max_tokens": MAX_TOKENS, "asked": ASKED}
            settings |= {"training": TRAINING.model_dump(mode="json"), "trainings": len(rows)}
            save(arguments.json, "proof", settings, lines, threads=1)


if __name__ == "__main__":
    main()
