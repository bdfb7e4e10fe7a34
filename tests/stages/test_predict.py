"""The predict stage leaves what the public predictors return, however its work is cut."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import torch

from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import Artifact, RunDirectory
from engine.config import parse_config
from engine.influence import candidate_index, factors, pairs, pools
from engine.influence.predict import mean_influence, predict_influence, top_candidates
from engine.network.influence_network import InfluenceNetwork
from engine.runtime.executor import Executor
from engine.runtime.local import LocalExecutor
from engine.runtime.ray_cluster import RayExecutor
from engine.runtime.stage import StageContext, StageResult
from engine.stages import predict as predict_stage
from engine.students.cosine import CosineStudent

DIM, M, N = 8, 1000, 300


def embeddings(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


E_C, E_T = embeddings(M, 0), embeddings(N, 1)
TASKS = np.arange(N) % 3


def make_network(hidden: tuple[int, ...] = (10,), pairwise: bool = True) -> InfluenceNetwork:
    generator = torch.Generator().manual_seed(3)
    return InfluenceNetwork(DIM, hidden, pairwise, generator=generator).eval()


class _Inputs:
    """The artifacts that the stage reads, with embeddings in parts of uneven size."""

    def __init__(self, path: Path, network: Any, e_c: Any, e_t: Any) -> None:
        self.run = RunDirectory(path)
        self.made: dict[str, Artifact] = {}
        extra = [json.dumps({"task": f"task {task}"}) for task in TASKS]
        corpus = self.folder("ingest") / "targets.parquet"
        pq.write_table(pa.table({"extra": extra}), corpus)
        self.commit("ingest", {"targets": [(corpus, N)]}, {})
        groups: dict[str, list[tuple[Path, int]]] = {}
        for side, rows in (("candidates", e_c), ("targets", e_t)):
            for number, block in enumerate(np.split(rows, [len(rows) // 3])):
                file = self.folder("embed") / f"{side}-{number}.npy"
                np.save(file, block)
                groups.setdefault(side, []).append((file, len(block)))
        self.commit("embed", groups, {})
        self.commit("sample", {}, {"pairwise": network.pairwise, "everything": False})
        self.commit("score", {}, {})
        weights = self.folder("fit") / "student.safetensors"
        network.save(weights)
        self.commit("fit", {"student": [(weights, 1)]}, {})

    def folder(self, stage: str) -> Path:
        folder = self.run.stage_dir(stage)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self, stage: str, files: Any, counts: dict[str, Any]) -> None:
        parts = {
            group: [vars(finish_part(self.folder(stage), *file)) for file in files[group]]
            for group in files
        }
        manifest = {"fingerprint": stage, "counts": counts, "parts": parts}
        self.made[stage] = self.run.commit(stage, manifest)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few hundred rows are several blocks."""
    cut(monkeypatch, 256, 2**27)


def cut(monkeypatch: pytest.MonkeyPatch, unit_rows: int, worker_bytes: int) -> None:
    monkeypatch.setattr(pairs, "UNIT_ROWS", unit_rows)
    monkeypatch.setattr(factors, "UNIT_ROWS", unit_rows)
    monkeypatch.setattr(predict_stage, "UNIT_ROWS", unit_rows)
    monkeypatch.setattr(predict_stage, "WORKER_BYTES", worker_bytes)


def predict(
    path: Path,
    network: Any = None,
    e_c: np.ndarray = E_C,
    e_t: np.ndarray = E_T,
    executor: Executor | None = None,
    **influence: Any,
) -> tuple[Path, StageResult]:
    inputs = _Inputs(path, network or make_network(), e_c, e_t)
    config = {
        "corpus": {"path": "a.jsonl"},
        "target": {"path": "b.jsonl"},
        "features": ["text"],
        "influence": influence,
    }
    directory = path / "predict"
    (directory).mkdir()
    return directory, predict_stage.run(
        StageContext(parse_config(config), directory, inputs.made, executor or LocalExecutor())
    )


def neighbours(directory: Path, result: StageResult) -> tuple[np.ndarray, np.ndarray]:
    tables = [
        pyarrow.feather.read_table(directory / part.path) for part in result.parts["neighbours"]
    ]
    table = pa.concat_tables(tables)
    return tuple(np.array(table[name].to_pylist()) for name in ("ids", "influence"))  # type: ignore[return-value]


def matrix(directory: Path, result: StageResult) -> np.ndarray:
    return np.concatenate([np.load(directory / part.path) for part in result.parts["dense"]])


SPARSE = {"max_dense_gib": 1e-9, "neighbours": 7}


@pytest.mark.parametrize("hidden", [(10,), (6, 4)])
def test_dense(small_blocks: None, tmp_path: Path, hidden: tuple[int, ...]) -> None:
    network = make_network(hidden)
    directory, result = predict(tmp_path, network)
    expected = predict_influence(network, E_C, E_T)
    np.testing.assert_allclose(matrix(directory, result), expected, rtol=0, atol=1e-6)
    if len(hidden) == 1:
        assert matrix(directory, result).tobytes() == expected.tobytes()
    means = np.load(directory / "mean_influence.npy")
    np.testing.assert_allclose(means, mean_influence(network, E_C, E_T), rtol=0, atol=1e-6)
    assert result.counts["kernel"] == "dense" and result.counts["recall"] == 1.0
    assert ("units-candidates" in result.parts) == (len(hidden) == 1)


@pytest.mark.parametrize("hidden", [(10,), (6, 4)])
def test_neighbours(small_blocks: None, tmp_path: Path, hidden: tuple[int, ...]) -> None:
    network = make_network(hidden)
    directory, result = predict(tmp_path, network, **SPARSE)
    top = top_candidates(network, E_C, E_T, 7)
    ids, influence = neighbours(directory, result)
    assert ids.tolist() == top.ids.tolist()
    np.testing.assert_allclose(influence, top.influence, rtol=0, atol=1e-6)
    assert result.counts["neighbours"] == 7


def cosine() -> CosineStudent:
    return CosineStudent(DIM, 2.0, -0.5)


def test_a_student_in_the_product_form(small_blocks: None, tmp_path: Path) -> None:
    directory, result = predict(tmp_path / "dense", cosine())
    expected = predict_influence(cosine(), E_C, E_T)
    assert matrix(directory, result).tobytes() == expected.tobytes()
    np.testing.assert_allclose(expected, 2 * E_C @ E_T.T - 0.5, atol=1e-5)
    means = mean_influence(cosine(), E_C, E_T)
    assert np.load(directory / "mean_influence.npy").tobytes() == means.tobytes()
    np.testing.assert_allclose(means, expected.mean(axis=1), atol=1e-6)
    directory, result = predict(tmp_path / "sparse", cosine(), **SPARSE)
    top = top_candidates(cosine(), E_C, E_T, 7)
    ids, influence = neighbours(directory, result)
    assert ids.tolist() == top.ids.tolist()
    assert influence.astype(np.float32).tobytes() == top.influence.tobytes()


def test_an_index_of_the_candidates_and_its_recall_are_in_the_manifest(
    small_blocks: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (("MIN_CANDIDATES", 1000), ("NUM_JUDGES", 128), ("MIN_TARGETS", 256)):
        monkeypatch.setattr(candidate_index, name, value)
    e_c, e_t = embeddings(4096, 0), embeddings(4096, 1)
    directory, result = predict(tmp_path / "a", cosine(), e_c=e_c, e_t=e_t, recall=0.9, **SPARSE)
    exact = top_candidates(cosine(), e_c, e_t, 7)
    ids, influence = neighbours(directory, result)
    hits = [np.isin(true, some).mean() for true, some in zip(exact.ids, ids, strict=True)]
    assert 0.9 <= result.counts["recall"] < 1 and result.counts["prefilter_share"] < 0.5
    assert np.mean(hits) == pytest.approx(result.counts["recall"], abs=0.04)
    same = ids == exact.ids  # what is found has the exact influence
    assert (influence.astype(np.float32)[same] == exact.influence[same]).all()
    assert "measured recall" in capsys.readouterr().err
    _, other = predict(tmp_path / "b", cosine(), e_c=e_c, e_t=e_t, recall=0.9, **SPARSE)
    assert [part.sha256 for part in other.parts["neighbours"]] == [
        part.sha256 for part in result.parts["neighbours"]
    ]


def test_pointwise(small_blocks: None, tmp_path: Path) -> None:
    network = make_network(pairwise=False)
    directory, result = predict(tmp_path, network)
    expected = predict_influence(network, E_C, E_T[:1])
    assert matrix(directory, result).tobytes() == expected.tobytes()
    assert np.load(directory / "mean_influence.npy").tobytes() == expected[:, 0].tobytes()


def test_subtasks(small_blocks: None, tmp_path: Path) -> None:
    directory, _ = predict(tmp_path, subtask_column="task")
    by_task = mean_influence(make_network(), E_C, E_T, groups=TASKS)
    expected = by_task.max(axis=1)
    np.testing.assert_array_equal(np.load(directory / "mean_influence.npy"), expected)


@pytest.mark.parametrize("student", [make_network, cosine])
@pytest.mark.parametrize("sparse", [False, True])
def test_any_cut_gives_the_same_rows(
    small_blocks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sparse: bool, student: Any
) -> None:
    settings = SPARSE if sparse else {}
    read = neighbours if sparse else matrix
    results = []
    for number, (unit_rows, worker_bytes) in enumerate([(64, 1), (128, 2**27), (2**16, 2**17)]):
        cut(monkeypatch, unit_rows, worker_bytes)
        directory, result = predict(tmp_path / str(number), student(), **settings)
        results.append((np.asarray(read(directory, result)[0]), len(result.parts), directory))
    assert len({rows.tobytes() for rows, _, _ in results}) == 1
    means = {(directory / "mean_influence.npy").read_bytes() for *_, directory in results}
    assert len(means) == 1


def test_pools_and_their_recall_are_in_the_manifest(
    small_blocks: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (
        ("NUM_PROBES", 32),
        ("NUM_JUDGES", 128),
        ("MIN_SCOUTS", 128),
        ("PAIRS_PER_KEPT", 0),
    ):
        monkeypatch.setattr(pools, name, value)
    e_c, e_t = embeddings(4096, 0), embeddings(4096, 1)
    directory, result = predict(tmp_path / "a", e_c=e_c, e_t=e_t, recall=0.9, **SPARSE)
    exact = top_candidates(make_network(), e_c, e_t, 7)
    ids, _ = neighbours(directory, result)
    hits = [np.isin(true, some).mean() for true, some in zip(exact.ids, ids, strict=True)]
    assert 0.9 <= result.counts["recall"] < 1
    assert np.mean(hits) == pytest.approx(result.counts["recall"], abs=0.04)
    assert result.counts["targets_compared_with_all"] >= 256
    assert "measured recall" in capsys.readouterr().err
    _, other = predict(tmp_path / "b", e_c=e_c, e_t=e_t, recall=0.9, **SPARSE)
    assert [part.sha256 for part in other.parts["neighbours"]] == [
        part.sha256 for part in result.parts["neighbours"]
    ]
    _, plain = predict(tmp_path / "c", recall=0.9, **SPARSE)  # too few targets
    assert plain.counts["recall"] == 1.0 and "pools" not in plain.parts


@pytest.mark.parametrize("sparse", [False, True])
def test_a_worker_needs_no_more_memory_than_is_said(
    small_blocks: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    sparse: bool,
) -> None:
    cut(monkeypatch, 2**16, 2**27)
    settings = {"max_dense_gib": 1e-9, "neighbours": 400} if sparse else {}
    e_c, e_t = embeddings(8192, 0), embeddings(2048, 1)
    predict(tmp_path / "warm", **settings)
    kind = "neighbours" if sparse else "dense"
    worker = predict_stage.NeighbourWorker if sparse else predict_stage.DenseWorker
    peaks = []

    class Measured(worker):  # type: ignore[misc, valid-type]
        def write(self, payload: Any, path: Path) -> Any:
            tracemalloc.start()
            done = super().write(payload, path)
            peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
            tracemalloc.stop()
            return done

    monkeypatch.setattr(predict_stage, worker.__name__, Measured)
    capsys.readouterr()
    _, result = predict(tmp_path / "run", e_c=e_c, e_t=e_t, **settings)
    told = float(capsys.readouterr().err.split("up to ")[1].split(" MiB")[0].replace(",", ""))
    assert len(result.parts[kind]) == len(peaks) == 1
    assert told / 2 < max(peaks) <= told + 1


@pytest.mark.usefixtures("ray_local")
def test_the_same_bytes_on_one_and_two_actors_and_after_a_kill(tmp_path: Path) -> None:
    sums = []
    for actors in (1, 2):
        directory, result = predict(
            tmp_path / str(actors), **SPARSE, execution={"max_actors": actors}
        )
        sums.append([p.sha256 for group in result.parts.values() for p in group])
    assert sums[0] == sums[1]
    expected = top_candidates(make_network(), E_C, E_T, 7)
    assert neighbours(directory, result)[0].tolist() == expected.ids.tolist()
    # what a kill leaves: some parts with their records; they are not made again
    kept = directory / result.parts["units-candidates"][0].path
    made_at = kept.stat().st_mtime_ns
    lost = directory / result.parts["neighbours"][0].path
    lost.unlink()
    inputs = {name: Artifact(tmp_path / "2" / name) for name in ("ingest", "embed", "sample")}
    inputs |= {name: Artifact(tmp_path / "2" / name) for name in ("score", "fit")}
    config = parse_config(
        {
            "corpus": {"path": "a.jsonl"},
            "target": {"path": "b.jsonl"},
            "features": ["text"],
            "influence": {**SPARSE, "execution": {"max_actors": 2}},
        }
    )
    again = predict_stage.run(StageContext(config, directory, inputs, RayExecutor()))
    assert [p.sha256 for group in again.parts.values() for p in group] == sums[1]
    assert kept.stat().st_mtime_ns == made_at and lost.exists()
