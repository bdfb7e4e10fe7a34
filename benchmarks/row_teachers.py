"""Which bad rows a teacher of rows sees, itself and through a student.

    python benchmarks/row_teachers.py ask --work DIR                # after students.py truth
    python benchmarks/row_teachers.py table --work DIR --json FILE

DIR is the --work of benchmarks/students.py, whose `truth` has read the rows of the demo and of both
data sets of ../shared/data/corpus_small.parquet (packaged models, bfloat16, rows cut to 256
tokens). The demo has its planted rows. In the other two `ask` gives 60 rows of 1,000 a bad answer,
20 of each kind: that of another row of the same category, that of a row of another category, or the
first quarter of their own. SelectIT was asked about 300 rows of each and about the bad ones.

auc       chance that a bad row has a worse score than one that nobody made bad
asked     share of the rows that a student (`auto`) learned from, 1: the teacher itself; a student
          is judged on the rows that it did not learn from, means over 3 draws
order     Spearman with the teacher on those rows
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.provenance import markdown_table, save
from benchmarks.students import (
    CORPUS,
    DATASETS,
    FEATURES,
    MAX_TOKENS,
    MODEL,
    ROOT,
    SETTINGS,
    rows_of,
)
from engine.config import (
    PACKAGED_ENCODER,
    ModelConfig,
    NetworkConfig,
    StudentConfig,
    TeacherConfig,
)
from engine.example import Example, content_key, order_hash
from engine.features.feature import Source, assembled, text_lengths
from engine.kernels.ranks import rank_correlation
from engine.network.training_set import TrainingSet
from engine.students.choice import choose, fit_student

KINDS = ("swap_within", "swap_across", "truncate")
PER_KIND, DRAWS, SHARES = 20, 3, (0.05, 0.1)
TEACHERS = ("ifd, perplexity", "ifd, loss", "fit", "selectit")

Array = NDArray[Any]


# --- bad rows -------------------------------------------------------------------------------------


def planted(dataset: str) -> tuple[list[Example], list[str]]:
    """The candidates with bad rows among them, and each one's kind, "" for a good one."""
    import json

    rows, _ = rows_of(dataset)
    if dataset == "demo":
        lines = (ROOT / "demo/corpus.jsonl").read_text("utf-8").splitlines()
        return rows, [json.loads(line)["planted"] for line in lines]
    import pyarrow.parquet as pq

    categories = {row["id"]: row["category"] for row in pq.read_table(CORPUS).to_pylist()}
    order = sorted(range(len(rows)), key=lambda i: order_hash(0, "planted", rows[i].id))
    kinds = [""] * len(rows)
    bad = list(rows)
    for place, i in enumerate(order[: PER_KIND * len(KINDS)]):
        kind = KINDS[place % len(KINDS)]
        others = [
            j
            for j in order[PER_KIND * len(KINDS) :]
            if (categories[rows[j].id] == categories[rows[i].id]) == (kind == "swap_within")
            and rows[j].output.strip() != rows[i].output.strip()
        ]
        answer = rows[i].output
        if kind == "truncate":
            answer = answer[: max(1, len(answer) // 4)]
        elif others:
            answer = rows[others[place % len(others)]].output
        if answer.strip() == rows[i].output.strip():
            continue  # nothing to swap with, or nothing left out
        kinds[i] = kind
        texts = rows[i].instruction, rows[i].input, answer
        bad[i] = Example(rows[i].id, content_key(*texts), *texts)
    return bad, kinds


def write_answers(work: Path) -> None:
    """What the models say of the bad rows; files that are there are kept."""
    from engine.models.encoder import Encoder
    from engine.models.language_model import LanguageModel
    from engine.models.prompt_tokenizer import TrainingRow, tokenised_row
    from engine.teachers.teacher import load_teacher

    for dataset in DATASETS[1:]:
        path = work / f"{dataset}-planted.npz"
        if path.exists():
            continue
        rows, kinds = planted(dataset)
        places = np.array([i for i, kind in enumerate(kinds) if kind])
        some = [rows[i] for i in places]
        model = LanguageModel(ModelConfig(**MODEL))
        mark = model.tokenize("\n##Answer:")
        read = [tokenised_row(model.tokenizer, MAX_TOKENS, row, True)[0] for row in some]
        asked = [row for row in read if isinstance(row, TrainingRow)]
        assert len(asked) == len(read), "a row without a response"
        encoder = Encoder(ModelConfig(path=PACKAGED_ENCODER))
        selectit = load_teacher(TeacherConfig.model_validate(SETTINGS["selectit"]), 0)
        np.savez(
            path,
            places=places,
            loss_xy=model.read_rows(asked, 16, True).losses,
            loss_y=model.read_rows([TrainingRow(mark, r.response) for r in asked], 16, True).losses,
            z=encoder.encode([row.text for row in some], 32).vectors,
            y=encoder.encode([row.output for row in some], 32).vectors,
            selectit=selectit.features("candidate", some).values[:, 0],
        )
        print(f"{dataset}: {len(some)} bad rows", file=sys.stderr, flush=True)


# --- who sees them --------------------------------------------------------------------------------


class Rows:
    """Candidates with bad ones among them: badness by teacher (M,), NaN where nobody asked."""

    def __init__(self, work: Path, dataset: str) -> None:
        rows, kinds = planted(dataset)
        self.kinds = np.array(kinds)
        embedded, read = (dict(np.load(work / f"{dataset}-{n}.npz")) for n in ("features", "lm"))
        answers = np.load(work / f"{dataset}-selectit.npz")
        rated = np.full(len(rows), np.nan)
        rated[answers["asked"]] = answers["S"][:, 0]
        sources: dict[Source, Any] = {
            "text": embedded["z_c"],
            "prompt": embedded["x_c"],
            "response": embedded["y_c"],
        }
        losses = [read["loss_xy_c"].astype(np.float64), read["loss_y_c"].astype(np.float64)]
        if dataset != "demo":
            bad = np.load(work / f"{dataset}-planted.npz")
            places = bad["places"]
            sources["text"][places], sources["response"][places] = bad["z"], bad["y"]
            losses[0][places], losses[1][places] = bad["loss_xy"], bad["loss_y"]
            rated[places] = bad["selectit"]
        self.features = assembled(FEATURES["default"], {**sources, "length": text_lengths(rows)})
        self.text_dim = sources["text"].shape[1]
        cosine = np.einsum("nd,nd->n", sources["prompt"], sources["response"])
        badness = (np.exp(losses[0] - losses[1]), losses[0] / losses[1], -cosine, -rated)
        self.badness = dict(zip(TEACHERS, badness, strict=True))

    def auc(self, badness: Array, rows: Array, kind: str) -> float | None:
        """Chance that a bad row of this kind, among some rows, is worse than a good one."""
        known = rows[np.isfinite(badness[rows])]
        bad, good = (badness[known[self.kinds[known] == name]] for name in (kind, ""))
        if not len(bad):
            return None
        return float((bad[:, None] > good).mean() + (bad[:, None] == good).mean() / 2)


def table(work: Path) -> Iterator[dict[str, Any]]:
    """A row for every data set, teacher and share."""
    for dataset in DATASETS:
        rows = Rows(work, dataset)
        kinds = sorted(set(rows.kinds) - {""})
        everything = np.arange(len(rows.kinds))
        for teacher in TEACHERS:
            badness = rows.badness[teacher]
            told = {kind: rows.auc(badness, everything, kind) for kind in kinds}
            yield from _told(dataset, teacher, 1.0, told, None)
            if teacher == "fit":
                continue  # every row has its score
            for share in SHARES:
                found = [_learned(rows, badness, share, draw, kinds) for draw in range(DRAWS)]
                means = {kind: _mean([auc[kind] for auc, _ in found]) for kind in kinds}
                yield from _told(dataset, teacher, share, means, _mean([o for _, o in found]))


def _told(
    dataset: str, teacher: str, share: float, aucs: dict[str, Any], order: float | None
) -> Iterator[dict[str, Any]]:
    for kind, auc in aucs.items():
        row = {"dataset": dataset, "teacher": teacher, "asked": share, "kind": kind}
        yield {**row, "auc": auc, "order": order}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _learned(
    rows: Rows, badness: Array, share: float, draw: int, kinds: list[str]
) -> tuple[dict[str, float | None], float]:
    known = np.random.default_rng(draw).permutation(np.flatnonzero(np.isfinite(badness)))
    count = round(share * len(badness))
    asked, rest = known[:count], known[count:]
    pairs = np.stack([np.arange(count), np.zeros(count, np.int64)], axis=1)
    labels = badness[asked].astype(np.float32)
    data = TrainingSet(rows.features[asked], None, pairs, labels, text_dim=rows.text_dim)
    settings, network = StudentConfig(), NetworkConfig.model_validate({})
    choice = choose(data, settings, network, draw)
    student = fit_student(choice.student, choice.labels, data, settings, network, draw)
    numbers = np.arange(len(badness))
    both = np.stack([numbers, np.zeros_like(numbers)], axis=1)
    predicted = student.predict_pairs(rows.features, None, both).astype(np.float64)
    order = float(rank_correlation(predicted[rest], badness[rest].astype(np.float64)))
    return {kind: rows.auc(predicted, rest, kind) for kind in kinds}, order


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ask", "table"))
    parser.add_argument("--work", type=Path, required=True, help="--work of students.py")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "ask":
        write_answers(arguments.work)
        return
    rows = list(table(arguments.work))
    print(markdown_table(rows, tuple(rows[0])))
    if arguments.json:
        settings = {"per_kind": PER_KIND, "shares": SHARES, "max_tokens": MAX_TOKENS}
        save(arguments.json, "row_teachers", settings, rows, threads=1)


if __name__ == "__main__":
    main()
