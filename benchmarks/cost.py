"""What NN-CIFT saves: the publication's cost table, with every stage charged, on this machine.

    python benchmarks/cost.py --quality DIR --json FILE --markdown FILE    # half an hour, one core

(a) *Measured*: the evaluations that benchmarks/quality.py left in DIR, in which each teacher really
was asked about everything. The full teacher is charged its answers and the selection; NN-CIFT every
stage, the audit too. (b) *Projected* to M = N = 1,000 and to the published 15,000 x 5,000 from unit
costs of random rows of ../shared/data/corpus_small.parquet, with 95 % bootstrap intervals. What is
asked at those sizes is counted by the sample stage's own code. Each teacher is charged in its unit:
DELIFT by the pair, the others by the point, whose share is u and not u squared.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.fidelity import TEACHERS
from benchmarks.provenance import ROOT, markdown_table, save
from benchmarks.small_model import NUM_LAYERS, write_small_model
from benchmarks.unit_costs import (
    Prices,
    UnitCost,
    encoder_price,
    network_prices,
    selection_seconds,
    teacher_prices,
)
from engine.artifacts.files import read_json
from engine.config import (
    PACKAGED_ENCODER,
    EmbeddingConfig,
    NetworkConfig,
    SampleConfig,
    TeacherConfig,
)
from engine.example import Example, content_key
from engine.teachers.designs import Draw, Side, draw_pairs, draw_points
from engine.teachers.less import LessSettings
from engine.teachers.teacher import teacher_class
from engine.terminal.progress import say

CORPUS = ROOT.parent / "shared/data/corpus_small.parquet"
SIZES = ((1_000, 1_000), (15_000, 5_000))  # the second is the publication's
FRACTION, BUDGET = 0.05, 0.3
# Seconds, Phi-3 on MixInstruct (arXiv 2502.09969), full teacher and NN-CIFT, and the cut over all
# four pairs of model and data set.
PUBLISHED = {
    "selectit": (7_047, 65, "99.0-99.1 %"),
    "less": (12_338, 78, "99.3-99.4 %"),
    "delift_se": (216, 48, "77.8-78.1 %"),
    "delift": (67_379, 215, "99.7 %"),
}
PUBLISHED_SMALL = "54.6-98.0 %"

Row = dict[str, Any]


# --- (a) measured --------------------------------------------------------------------------------

STAGES = {"sample": "3-sample", "score": "4-teacher", "fit": "5-student"} | {
    "predict": "6-influence",
    "select": "7-selection",
}


def charged(folder: Path) -> float:
    """CPU seconds of a stage's workers; of one that does not record them, its wall seconds."""
    manifest = read_json(folder / "manifest.json")
    return float(manifest["usage"].get("cpu_seconds", manifest["wall_seconds"]))


def measured(run: Path, teacher: str) -> Row | None:
    """One teacher of one evaluation; None where it was not asked about everything."""
    names = {"delift_se": "delift-se"}
    subsets = run / "evaluation/subsets"
    full, learned = (subsets / f"{p}{names.get(teacher, teacher)}" for p in ("", "nn-"))
    learned = learned.with_name(learned.name + "-0")
    if not (full / "7-selection/manifest.json").is_file() or not learned.is_dir():
        return None
    counts = read_json(full / "3-sample/manifest.json")["counts"]
    mine = read_json(learned / "3-sample/manifest.json")["counts"]
    everything = charged(full / STAGES["score"]) + charged(full / STAGES["select"])
    stages = {name: charged(learned / folder) for name, folder in STAGES.items()}
    stages = {"embed": charged(run / "2-embeddings"), **stages}
    return {
        "dataset": run.name,
        "teacher": teacher,
        "pairs": counts["pairs"],
        "labelled": mine["pairs"] / counts["pairs"],
        "full_s": everything,
        "nn_cift_s": sum(stages.values()),
        "reduction": 1 - sum(stages.values()) / everything,
        "teacher_reduction": 1 - stages["score"] / charged(full / STAGES["score"]),
        **{f"{name}_s": seconds for name, seconds in stages.items()},
    }


# --- (b) projected -------------------------------------------------------------------------------


def draw(teacher: str, size: tuple[int, int], audited: bool, **sample: Any) -> Draw:
    """What the sample stage would ask about, for rows of random hashes."""
    chooser = np.random.default_rng(0)
    sides = [Side(chooser.integers(2**63, size=n).astype(np.uint64)) for n in size]
    kind, settings = teacher_class(teacher), SampleConfig(**{"fraction": FRACTION, **sample})
    drawn = (
        draw_pairs(*sides, settings, kind.unit)
        if kind.pairwise
        else draw_points(sides[0], settings)
    )
    kept = np.ones(len(drawn.quadrant), bool) if audited else drawn.quadrant <= 1
    return Draw(drawn.candidates[kept], drawn.targets[kept], drawn.quadrant[kept])


def asked(teacher: str, drawn: Draw | None, size: tuple[int, int]) -> dict[str, int]:
    """Answers by kind: of a sample, or, without one, of everything."""
    kind = teacher_class(teacher)
    if drawn is None:
        counts = {"candidate": size[0], "target": size[1], "pair": size[0] * size[1]}
    else:
        counts = {
            "candidate": len(np.unique(drawn.candidates)),
            "target": len(np.unique(drawn.targets)),
            "pair": len(drawn.quadrant),
        }
    if not kind.pairwise:
        return {"candidate": counts["candidate"]}
    return {k: n for k, n in counts.items() if k == "pair" or k in kind.feature_sides}


def projection(
    name: str, config: TeacherConfig, prices: Prices, shared: Prices, epochs: float,
    select_s: Mapping[tuple[int, int], float], size: tuple[int, int], fit: NetworkConfig,
) -> Row:  # fmt: skip
    """Full teacher and NN-CIFT at a size; intervals from the bootstrap of all unit costs."""
    kind, chooser = teacher_class(config.name), np.random.default_rng(1)
    drawn = {key: cost.draws(chooser) for key, cost in {**prices, **shared}.items()}
    means = {key: np.array([cost.mean]) for key, cost in {**prices, **shared}.items()}
    passes = config.own(LessSettings, "less").warmup_epochs
    warmup = passes * kind.preparation_share(config) * size[0]
    training = int((draw(config.name, size, False).quadrant == 0).sum())
    steps = epochs * -int(-training * (1 - fit.validation_fraction) // fit.batch_size)
    rows = size[0] + (size[1] if kind.pairwise else 0)
    pairs = size[0] * (size[1] if kind.pairwise else 1)

    def teacher_seconds(of: Mapping[str, Any], counts: Mapping[str, int]) -> Any:
        answers = sum(of[k] * n for k, n in counts.items())
        return answers + (of["warmup"] * warmup if warmup else 0.0)

    def total(of: Mapping[str, Any], audit: bool) -> dict[str, Any]:
        sample = asked(config.name, draw(config.name, size, audit), size)
        return {
            "embed": of["embed"] * rows,
            "teacher": teacher_seconds(of, sample),
            "fit": of["step"] * steps,
            "predict": of["predicted"] * pairs,
            "select": select_s[size],
        }

    def full(of: Mapping[str, Any]) -> Any:
        return teacher_seconds(of, asked(config.name, None, size)) + select_s[size]

    parts = {key: float(np.squeeze(value)) for key, value in total(means, True).items()}
    ours, everything = sum(parts.values()), float(full(means)[0])
    spread = 1 - sum(total(drawn, True).values()) / full(drawn)
    without = 1 - float(sum(total(means, False).values())[0]) / everything
    seconds, learned, cut = PUBLISHED[config.name]
    published = size == SIZES[1]
    return {
        "teacher": name,
        "M": size[0],
        "N": size[1] if kind.pairwise else None,
        "full_s": everything,
        "full_interval": np.quantile(full(drawn), [0.025, 0.975]).tolist(),
        "nn_cift_s": ours,
        "reduction": 1 - ours / everything,
        "interval": np.quantile(spread, [0.025, 0.975]).tolist(),
        "without_audit": without,
        **{f"{key}_s": value for key, value in parts.items()},
        "published_s": f"{seconds} to {learned}" if published else None,
        "published": cut if published else None,
    }


# --- what is timed -------------------------------------------------------------------------------


def random_rows(split: str, count: int) -> list[Example]:
    """Rows of both data sets, by hash, at their full lengths."""
    table = pq.read_table(CORPUS)
    rows = table.filter(pc.equal(table["split"], split)).to_pylist()
    rows.sort(key=lambda row: hashlib.sha1(row["id"].encode()).digest())
    found = []
    for row in rows[:count]:
        texts = (row["instruction"], row["input"], row["output"])
        found.append(Example(row["id"], content_key(*texts), *texts))
    return found


def teachers(small: Path) -> dict[str, TeacherConfig]:
    """By the name of the row; all in float32 on one thread."""

    def of(name: str, **model: Any) -> TeacherConfig:
        values = {**TEACHERS[name].get("model", {}), "dtype": "float32", "threads": 1, **model}
        return TeacherConfig.model_validate({**TEACHERS[name], "model": values})

    found = {name: of(name) for name in ("delift", "less", "selectit", "delift_se")}
    found["delift_se, encoder of the network"] = of("delift_se", path=PACKAGED_ENCODER)
    for name in ("delift", "less", "selectit"):
        found[f"small model: {name}"] = of(name, path=str(small))
    found["small model: delift_se"] = of("delift_se", path=PACKAGED_ENCODER)
    return found


def fitted_epochs(runs: Sequence[Path]) -> dict[str, float]:
    """Epochs of all members together that the measured fits took, by teacher."""
    found: dict[str, list[int]] = {}
    for run in runs:
        for path in run.glob("evaluation/subsets/nn-*/5-student/manifest.json"):
            teacher = path.parts[-3].removeprefix("nn-").rsplit("-", 1)[0].replace("-", "_")
            found.setdefault(teacher, []).append(int(read_json(path)["counts"]["epochs"]))
    return {teacher: float(np.mean(epochs)) for teacher, epochs in found.items()}


def small_row(name: str, full: Row, small: Row) -> Row:
    """The published alternative: a small model asked about everything in the teacher's place."""
    return {
        "teacher": name,
        "M": full["M"],
        "N": full["N"],
        "full_s": full["full_s"],
        "small_model_s": small["full_s"],
        "reduction": 1 - small["full_s"] / full["full_s"],
        "published": PUBLISHED_SMALL if full["published"] else None,
    }


MEASURED = (
    "dataset", "teacher", "pairs", "labelled", "full_s", "nn_cift_s", "reduction",
    "teacher_reduction", "embed_s", "score_s", "fit_s", "predict_s", "select_s",
)  # fmt: skip
PROJECTED = (
    "teacher", "M", "N", "full_s", "full_interval", "nn_cift_s", "reduction", "interval",
    "without_audit", "embed_s", "teacher_s", "fit_s", "predict_s", "select_s", "published_s",
    "published",
)  # fmt: skip
SMALL = ("teacher", "M", "N", "full_s", "small_model_s", "reduction", "published")
UNITS = ("teacher", "unit", "cpu_s", "interval", "chunks")


def unit_rows(name: str, prices: Prices) -> list[Row]:
    """What was timed, for the table."""
    chooser = np.random.default_rng(2)

    def interval(cost: UnitCost) -> list[float] | None:
        few = len(cost.units) < 3
        return None if few else np.quantile(cost.draws(chooser), [0.025, 0.975]).tolist()

    return [
        {
            "teacher": name,
            "unit": unit,
            "cpu_s": cost.mean,
            "interval": interval(cost),
            "chunks": len(cost.units),
        }
        for unit, cost in prices.items()
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quality", type=Path, required=True, help="--work of quality.py")
    parser.add_argument("--rows", type=int, default=24, help="timed on each side")
    parser.add_argument("--pairs-of", type=int, default=5, help="candidates of timed pairs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    arguments = parser.parse_args()
    runs = [path for path in sorted(arguments.quality.iterdir()) if (path / "evaluation").is_dir()]
    found = [measured(run, teacher) for run in runs for teacher in PUBLISHED]
    real = [row for row in found if row is not None]
    epochs = fitted_epochs(runs)
    candidates = random_rows("train", arguments.rows)
    targets = random_rows("valid", arguments.rows)
    fit = NetworkConfig.model_validate({})
    say("timing the network")
    embed = encoder_price(EmbeddingConfig.model_validate({}), [*candidates, *targets])
    shared = {"embed": embed, **network_prices(fit, dim=384)}
    select_s = {size: selection_seconds(*size, BUDGET) for size in SIZES}
    units = unit_rows("NN-CIFT", shared)
    projected: dict[tuple[str, tuple[int, int]], Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        configs = teachers(write_small_model(Path(folder)))
        for name, config in configs.items():
            say(f"timing {name}")
            prices = teacher_prices(config, candidates, targets, arguments.pairs_of)
            units += unit_rows(name, prices)
            for size in SIZES:
                projected[name, size] = projection(
                    name, config, prices, shared, epochs[config.name], select_s, size, fit
                )
    big = [name for name in configs if not name.startswith("small model")]
    rows = [projected[name, size] for name in big for size in SIZES]
    small = [
        small_row(name, projected[name, size], projected[f"small model: {name}", size])
        for name in PUBLISHED
        for size in SIZES
    ]
    tables = {
        "Measured": (real, MEASURED),
        "Projected": (rows, PROJECTED),
        "A small model in the teacher's place, projected": (small, SMALL),
        "Unit costs": (units, UNITS),
    }
    text = "\n\n".join(f"## {t}\n\n{markdown_table(*table)}" for t, table in tables.items())
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        said = {"rows": arguments.rows, "fraction": FRACTION, "budget": BUDGET, "epochs": epochs}
        said |= {"teachers": TEACHERS, "small_model": f"first {NUM_LAYERS} of 30 layers"}
        save(arguments.json, "cost", said, [*real, *rows, *small, *units], threads=1)


if __name__ == "__main__":
    main()
