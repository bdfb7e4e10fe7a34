"""A finished run up to `select`, written without Ray, models or a teacher: seven artifacts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.artifacts.files import write_json
from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import Artifact, RunDirectory
from engine.config import Config
from engine.corpus.leaks import LEAKS as LEAK_SCHEMA

NUM_CANDIDATES, NUM_TARGETS, NUM_SELECTED, NUM_TAIL = 60, 12, 20, 5
HOSTILE = (
    "<script>alert('x')</script>",
    '"><img src=x onerror=alert(1)>',
    "abc\u202ecba\u202c and \u2066isolated\u2069 \x07\u200b",
    "W" * 3000,
    "{{ 7 * 7 }} {% raw %} & &amp; ' \" ]]>",
    "<" * 100_000,
)
LEAKS = [
    {
        "id": f"leak-{number}",
        "file": "a.jsonl",
        "line": 100 + number,
        "set": name,
        "protected_id": "t",
        "protected_file": HOSTILE[1],
        "protected_line": number,
        "kind": kind,
        "score": 0.8,
        "num_protected": 1,
        "dropped": name == "protect" and kind == "13-gram",
        "text": f"candidate {number} {HOSTILE[0]} {HOSTILE[2]}",
        "protected_text": f"protected {number} {HOSTILE[4]}",
    }
    for number, (name, kind) in enumerate(
        [("targets", "exact"), ("protect", "near"), ("protect", "13-gram"), ("protect", "13-gram")]
    )
]
SOURCES = ("web<b>", "books", "books")
KINDS = ("wrong_answer", "empty_talk")
DIRECTORIES = {
    "ingest": "1-corpus",
    "embed": "2-embeddings",
    "sample": "3-sample",
    "score": "4-teacher",
    "fit": "5-student",
    "predict": "6-influence",
    "select": "7-selection",
}
SCORE_USAGE = {
    "features_target_calls": 10.0,
    "features_target_rows": 10.0,
    "features_target_tokens": 500.0,
    "features_target_truncated": 0.0,
    "features_target_seconds": 5.0,
    "pairs_calls": 100.0,
    "pairs_rows": 100.0,
    "pairs_tokens": 8000.0,
    "pairs_truncated": 3.0,
    "pairs_seconds": 200.0,
    "seconds": 205.0,
    "calls": 110.0,
    "tokens": 8500.0,
    "truncated": 3.0,
}


def settings(**report: Any) -> Config:
    return Config.model_validate(
        {"corpus": {"path": "a.jsonl"}, "target": {"path": "b.jsonl"}, "report": report}
    )


def write_run(
    path: Path,
    *,
    trusted: bool = True,
    dense: bool = True,
    num_candidates: int = NUM_CANDIDATES,
    texts: Sequence[str] = HOSTILE,
) -> dict[str, Artifact]:
    """The artifacts by stage; candidates 0, 10, 20, ... are planted, of two kinds in turn.

    A third of the candidates is selected, a quarter of the picks in the zero-gain tail.
    """
    run = _Run(RunDirectory(path), num_candidates, texts)
    run.ingest()
    run.embed()
    audit: dict[str, float] = {
        f"audit_q{q}_pairs": count for q, count in ((1, 5), (2, 15), (3, 20), (4, 40))
    }
    audit |= {"audit_share": 0.8}
    audit |= {"training_candidates": 9, "training_targets": 4}
    run.commit("sample", {}, {"pairs": 100, "training_pairs": 20, "pairwise": True, **audit}, {})
    run.score()
    run.fit(trusted)
    run.predict(dense)
    run.select()
    return run.artifacts


class _Run:
    def __init__(self, run: RunDirectory, num: int, texts: Sequence[str]) -> None:
        self.run, self.num, self.texts = run, num, texts
        self.num_selected, self.num_tail = num // 3, num // 12
        self.artifacts: dict[str, Artifact] = {}
        self.means = np.linspace(-0.2, 0.4, self.num).astype(np.float32)
        rng = np.random.default_rng(1)
        self.vectors = rng.normal(size=(self.num, 8)).astype(np.float32)

    def folder(self, stage: str) -> Path:
        return self.run.stage_dir(DIRECTORIES[stage])

    def commit(
        self,
        stage: str,
        files: dict[str, list[tuple[Path, int]]],
        counts: dict[str, Any],
        usage: dict[str, float],
        models: dict[str, str] | None = None,
    ) -> None:
        folder = self.folder(stage)
        parts = {
            group: [vars(finish_part(folder, path, rows)) for path, rows in group_files]
            for group, group_files in files.items()
        }
        manifest = {
            "kind": stage,
            "fingerprint": f"print-of-{stage}",
            "version": 1,
            "settings": {"teacher": {"name": "delift"}},
            "inputs": {},
            "seed": 0,
            "counts": counts,
            "usage": usage,
            "wall_seconds": 10.0,
            "models": models or {},
            "columns": {},
            "parts": parts,
        }
        self.artifacts[stage] = self.run.commit(DIRECTORIES[stage], manifest)

    def table(self, stage: str, name: str, table: pa.Table) -> tuple[Path, int]:
        path = self.folder(stage) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        return path, len(table)

    def ingest(self) -> None:
        def row(i: int) -> dict[str, Any]:
            planted = KINDS[i // 10 % 2] if i % 10 == 0 else ""
            return {
                "id": f"c{i}" if i % 7 else f"c{i}<b>\u202e",
                "key": f"{i:032x}",
                "instruction": f"ask {i} {self.texts[i % len(self.texts)]}",
                "input": "" if i % 2 else "some input",
                "output": f"answer {i}",
                "extra": json.dumps({"planted": planted, "source": SOURCES[i % 3]}),
                "file": "a<b>.jsonl",
                "line": i + 1,
            }

        size = min(self.num // 2, 4096)
        parts = [
            self.table(
                "ingest",
                f"candidates/{start:07d}.parquet",
                pa.Table.from_pylist([row(i) for i in range(start, min(start + size, self.num))]),
            )
            for start in range(0, self.num, size)
        ]
        reasons = ["instruction is blank", "id occurs before: the same row at x", "<script>"]
        rejected = [
            {"side": "candidates", "file": "a.jsonl", "line": i, "id": None if i % 2 else "q<i>"}
            | {"reason": reasons[min(i // 3, 2)], "row": "{}"}
            for i in range(7)
        ]
        quarantine = self.table("ingest", "quarantine/c.parquet", pa.Table.from_pylist(rejected))
        leaks = self.table(
            "ingest", "leaks.parquet", pa.Table.from_pylist(LEAKS, schema=LEAK_SCHEMA)
        )
        counts: dict[str, Any] = {"candidates": self.num, "candidates_read": self.num + 15}
        counts |= {"candidates_leaked": 2, "candidates_duplicates": 3}
        counts |= {"leaks": {"targets": {"exact": 1, "13-gram": 0, "near": 0}}}
        counts["leaks"]["protect"] = {"exact": 0, "13-gram": 2, "near": 1}
        counts |= {"candidates_filtered_out": 3}
        counts |= {"candidates_quarantined": 7, "candidates_nul_removed": 2}
        counts |= {"targets": 12, "targets_read": 12, "targets_filtered_out": 0}
        counts |= {"targets_quarantined": 0, "targets_nul_removed": 0}
        files = {"candidates": parts, "quarantine": [quarantine], "leaks": [leaks]}
        self.commit("ingest", files, counts, {})

    def embed(self) -> None:
        folder = self.folder("embed") / "candidates"
        folder.mkdir(parents=True)
        for number, block in enumerate(np.array_split(self.vectors, 2)):
            np.save(folder / f"{number}.npy", block)
        files = {"candidates": [(folder / f"{n}.npy", self.num // 2) for n in (0, 1)]}
        counts = {"candidates": self.num, "targets": 12}
        self.commit("embed", files, counts, {"seconds": 9.0, "tokens": 700.0})

    def score(self) -> None:
        rng = np.random.default_rng(0)
        quadrants = np.repeat([0, 1, 2, 3, 4], [20, 5, 15, 20, 40]).astype(np.int8)
        labels = rng.normal(0.05, 0.1, 100).astype(np.float32)
        labels[:2] = np.nan
        table = pa.table(
            {
                "candidate": rng.integers(0, self.num, 100),
                "target": rng.integers(0, NUM_TARGETS, 100),
                "quadrant": quadrants,
                "score": labels,
            }
        )
        counts = {"pairs": 100, "unscorable": 2, "asked_now": 110}
        file = self.table("score", "labels.parquet", table)
        self.commit("score", {"labels": [file]}, counts, SCORE_USAGE, {"model": "sha256:teacher"})

    def fit(self, trusted: bool) -> None:
        def score(r2: float | None, spearman: float | None) -> dict[str, Any]:
            around = None if spearman is None else [spearman - 0.1, spearman + 0.1]
            return {
                "mse": 0.01,
                "mse_std": 0.7,
                "r2": r2,
                "spearman": spearman,
                "within": spearman,
                "within_r2": r2,
                "within_interval": around,
                "within_r2_interval": around,
                "within_lead_interval": None,
            }

        scores = {
            "student": score(0.3, 0.55),
            "mean": score(-0.001, None),
            "zero": score(-0.2, None),
            "cosine": score(0.1, 0.2),
            "linear": score(0.2, 0.4),
        }
        quadrant = {"num_pairs": 40, "num_candidates": 8, "num_targets": 5, "scores": scores}
        means: dict[str, Any] = {
            "num_candidates": 8,
            "num_targets": 5,
            "split_half": 0.6,
            "ceiling": 0.87,
            "spearman_interval": {name: [0.1, 0.6] for name in scores},
            "lead_interval": {"cosine": [0.1, 0.3], "linear": [-0.1, 0.2]},
            "top_overlap": {"student": 0.5, "cosine": 0.2, "linear": 0.3},
            "chance_overlap": 0.18,
        }
        means |= {"spearman": {name: s["spearman"] for name, s in scores.items()}}
        path = self.folder("fit") / "fidelity.json"
        write_json(
            path,
            {
                "trusted": trusted,
                "reasons": ["the student <does> R^2 -0.030"],
                "remarks": ["few targets"],
                "judged_quadrant": "Q4",
                "spearman": 0.55,
                "r2": 0.3,
                "means": 0.55,
                "pairwise": True,
                "confidence": 0.95,
                "shares": {"Q1": 0.01, "Q2": 0.09, "Q3": 0.09, "Q4": 0.81},
                "quadrants": {f"Q{q}": {"quadrant": q, **quadrant} for q in (1, 2, 3, 4)},
                "candidate_means": means,
            },
        )
        choice, told = path.with_name("choice.json"), {"trusted": trusted, "student": "kernel"}
        contenders = [
            {
                "student": name,
                "labels": "raw",
                "within": 0.4,
                "means": mean,
                "behind": [0.0, 0.1],
                "score": 0.4,
            }
            for name, mean in (("kernel", 0.5), ("cosine", 0.2))
        ]
        found = {"student": "kernel", "labels": "raw", "contenders": contenders}
        write_json(choice, found)
        self.commit("fit", {"fidelity": [(path, 1)], "choice": [(choice, 1)]}, told, {})

    def predict(self, dense: bool) -> None:
        folder = self.folder("predict")
        folder.mkdir(parents=True)
        np.save(folder / "means.npy", self.means)
        files = {"means": [(folder / "means.npy", self.num)]}
        if dense:
            matrix = self.means[:, None] + np.linspace(-0.1, 0.1, NUM_TARGETS, dtype=np.float32)
            for number, block in enumerate(np.array_split(matrix, 2)):
                np.save(folder / f"{number}.npy", block)
                files.setdefault("dense", []).append((folder / f"{number}.npy", len(block)))
        counts = {
            "candidates": self.num,
            "targets": 12,
            "kernel": "dense" if dense else "neighbours",
        }
        self.commit("predict", files, counts, {"seconds": 1.0})

    def select(self) -> None:
        rows = np.argsort(-self.means)[: self.num_selected]
        gains = np.append(
            np.geomspace(8, 0.1, self.num_selected - self.num_tail), np.zeros(self.num_tail)
        )
        table = pa.table({"row": rows, "gain": gains, "mean_influence": self.means[rows]})
        ranking = self.table("select", "ranking.parquet", table)
        subset = self.table("select", "subset.parquet", table)
        files = {"ranking": [ranking], "subset": [subset]}
        files["explanations"] = [self.explanations(rows, gains)]
        counts = {"objective": "facility_location", "zero_gain_picks": self.num_tail}
        counts |= {"selected": self.num_selected, "candidates": self.num, "cover": "target"}
        counts |= {"asked": self.num // 4, "asked_selected": 3, "rounds": 2}
        counts["spread"] = {
            "additive_share": 0.995,
            "distinct_best": 2,
            "num_targets": NUM_TARGETS,
            "tells_targets_apart": False,
        }
        free = np.setdiff1d(np.arange(self.num), rows)[: self.num_selected]
        folder = self.folder("select")
        np.save(folder / "cosine_round_robin.npy", free)
        files["free_alternative"] = [(folder / "cosine_round_robin.npy", len(free))]
        counts["free_alternative"] = {"selected": len(free), "in_both": 0}
        self.commit("select", files, counts, {})

    def explanations(
        self, picks: NDArray[np.int64], gains: NDArray[np.float64]
    ) -> tuple[Path, int]:
        unit = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        first = picks[:64]  # the nearest of them: all picks of a small run
        cosines = unit @ unit[first].T
        cosines[first, np.arange(len(first))] = -2
        place = cosines.argmax(axis=1)
        is_pick = np.isin(np.arange(self.num), picks)
        rank, gain = np.zeros(self.num, np.int64), np.zeros(self.num)
        rank[picks], gain[picks] = np.arange(self.num_selected) + 1, gains
        nearest_of = np.bincount(first[place][~is_pick], minlength=self.num)
        left = np.linspace(0.0, 0.05, self.num)
        table = {
            "row": pa.array(np.arange(self.num)),
            "id": pa.array([f"c{i}" for i in range(self.num)]),
            "rank": pa.array(rank, mask=~is_pick),
            "gain": pa.array(gain, mask=~is_pick),
            "gain_left": pa.array(left, mask=is_pick),
            "nearest": pa.array(first[place]),
            "similarity": pa.array(cosines.max(axis=1)),
            "num_nearest": pa.array(nearest_of, mask=~is_pick),
        }
        return self.table("select", "explanations.parquet", pa.table(table))
