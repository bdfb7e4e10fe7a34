"""The scale benchmark: its rows, its roles of processes, its simulated models, its arithmetic."""

import json

import numpy as np
import pytest

from benchmarks import projection, scale, simulated
from benchmarks.process_memory import MemorySampler, Sample, peak, role_of, worker_cpu_seconds
from benchmarks.scale_nodes import pool_times, scaled
from benchmarks.synthetic import DIM, write_rows, write_static_encoder
from engine.artifacts.files import save_array
from engine.artifacts.parts import finish_part
from engine.config import ModelConfig
from engine.models.encoder import Encoder


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_are_the_same_for_any_count_and_have_distinct_ids(tmp_path):
    few, many = write_rows(tmp_path / "a", 50, seed=1), write_rows(tmp_path / "b", 10_100, seed=1)
    assert read(many)[:50] == read(few)
    assert len({row["id"] for row in read(many)}) == 10_100
    assert read(write_rows(tmp_path / "c", 50, seed=2)) != read(few)


def test_the_engine_reads_the_static_encoder_and_topics_are_clusters(tmp_path):
    encoder = Encoder(ModelConfig(path=str(write_static_encoder(tmp_path / "encoder"))))
    rows = read(write_rows(tmp_path / "rows", 300, seed=1))
    vectors = encoder.encode([f"{r['instruction']} {r['output']}" for r in rows], 32).vectors
    assert vectors.shape == (300, DIM)
    topics = np.array([row["topic"] for row in rows])
    same = (topics[:, None] == topics) & ~np.eye(300, dtype=bool)
    cosines = vectors @ vectors.T
    assert cosines[same].mean() > cosines[topics[:, None] != topics].mean() + 0.1


def test_the_share_of_the_points_gives_the_labels():
    u = scale.fraction_for(10_000, 1_000_000, 10_000)
    assert u**2 * 1_000_000 * 10_000 == pytest.approx(10_000)
    assert scale.fraction_for(100, 5, 5) == 1.0


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "command", "role"),
    [
        ("gcs_server", "/site/ray/core/src/ray/gcs/gcs_server --log", "gcs"),
        ("raylet", "/site/ray/core/src/ray/raylet/raylet --x", "raylet"),
        ("ray::IDLE", "ray::IDLE", "worker"),
        ("ray::DashboardAgent", "ray::DashboardAgent", "head_other"),
        ("python", "python /site/ray/_private/log_monitor.py", "head_other"),
        ("python", "python /site/ray/_private/workers/default_worker.py", "worker"),
        ("git", "git status", None),
    ],
)
def test_what_a_process_is_to_ray(name, command, role):
    assert role_of(2, 1, name, command) == role
    assert role_of(1, 1, name, command) == "driver"


def test_the_peak_is_that_of_the_window():
    def sample(time, size):
        return Sample(time, {("worker", "pss"): (size, f"at {time}")})

    samples = [sample(1.0, 10), sample(2.0, 30), sample(3.0, 20)]
    assert peak(samples, "worker", "pss") == (30, "at 2.0")
    assert peak(samples, "worker", "pss", start=2.5) == (20, "at 3.0")
    assert peak(samples, "driver", "pss") == (0, "")


def test_cpu_seconds_are_those_between_two_times():
    cpu = [{1: 1.0}, {1: 2.0, 2: 0.5}, {2: 4.0}, {2: 9.0}]
    samples = [Sample(float(time), {}, seconds) for time, seconds in enumerate(cpu)]
    assert worker_cpu_seconds(samples, 0.0, 2.0) == (2.0 - 1.0) + 4.0


def test_the_sampler_sees_this_process():
    import os
    import time

    with MemorySampler(os.getpid()) as sampler:
        time.sleep(0.8)
    assert peak(sampler.samples, "driver", "rss")[0] > 2**20
    assert peak(sampler.samples, "driver", "anon")[0] > 2**20


# --- nodes ---------------------------------------------------------------------------------------


def test_simulated_vectors_depend_on_the_text_alone(monkeypatch):
    for name in simulated.worker_environment(0.0, 0.0, 0.0)["env_vars"]:
        monkeypatch.setenv(name, "0")
    encoder = simulated.SimulatedEncoder(None)
    one, other = encoder.encode(["a b", "c d"], 1), encoder.encode(["c d", "a b"], 2)
    np.testing.assert_array_equal(one.vectors, other.vectors[::-1])
    np.testing.assert_allclose(np.linalg.norm(one.vectors, axis=1), 1, rtol=1e-6)


def test_times_of_a_pool_are_those_of_its_records(tmp_path):
    for name, seconds in (("a", 1.0), ("b", 3.0)):
        save_array(tmp_path / f"pairs/{name}.npy", np.zeros(1))
        finish_part(tmp_path, tmp_path / f"pairs/{name}.npy", 1, {"seconds": seconds})
    times = pool_times(tmp_path, "pairs/*.npy")
    assert (times.parts, times.worked) == (2, 4.0)
    assert times.span == pytest.approx(3.0, abs=0.5)


def test_efficiency_is_against_the_fewest_nodes():
    rows = [{"nodes": n, "stage": "embed", "seconds": s} for n, s in ((1, 40.0), (4, 20.0))]
    one, four = scaled(rows, "seconds")
    assert (one["speedup"], one["efficiency"]) == (1.0, 1.0)
    assert (four["speedup"], four["efficiency"]) == (2.0, 0.5)


# --- the projection ------------------------------------------------------------------------------


def test_a_line_never_goes_below_nothing():
    assert projection.line([(10, 30.0), (20, 50.0)]) == projection.Line(10.0, 2.0)
    assert projection.line([(10, 30.0), (20, 25.0)]) == projection.Line(30.0, 0.0)
    assert projection.line([(10, 10.0), (20, 100.0)]) == projection.Line(0.0, 5.0)


def test_costs_of_a_stage_are_told_apart():
    def measured(rows, wall, cpu):
        row = {"stage": "predict", "rows": rows, "seconds": wall}
        row |= {"targets": 10, "selected": 5, "labels": 5}
        row |= {"worker_cpu_seconds": cpu, "pool_seconds": 4.0, "pool_cpu_seconds": rows / 50}
        row |= {"node_seconds": 1.0, "node_cpu_seconds": rows / 100}
        return row | {"worker_anon_mib": 100.0, "disk_mib": rows / 2**20}

    rows = [measured(100, 13.0, 2.0 + 1 + 2 + 1), measured(200, 30.0, 4.0 + 2 + 2 + 2)]
    cost = projection.costs_of("predict", rows, cpus=2)
    assert cost.serial.slope == pytest.approx(0.01)  # of 1 and 2 seconds beside a start of 2
    assert cost.serial.fixed == pytest.approx(13 - 4 / 2 - 1 - 1)
    assert cost.parallel_s == pytest.approx(4 / (200 * 10))
    assert cost.node_s == pytest.approx(2 / (200 * 10))
    assert cost.disk == projection.Line(0.0, pytest.approx(1.0))


def test_a_projection_is_the_sum_of_what_time_is_spent_on():
    known = {item.name: item.value for item in projection.assumed(scale.FLAGS)}
    known |= {"fit_label_s": 0.001, "part_s": 0.1, "text_bytes": 100.0, "measured_dim": 384}
    costs = dict.fromkeys(
        projection.STAGES,
        projection.StageCosts(
            serial=projection.Line(5.0, 1e-6),
            parallel_s=0.0,
            node_s=0.0,
            memory=projection.Line(2**30, 0.0),
            disk=projection.Line(0.0, 0.0),
        ),
    )
    rows = list(projection.project(10**6, 8, costs, known))
    by_stage = {row["stage"]: row for row in rows}
    assert by_stage["report"]["seconds"] == pytest.approx(5 + 1)
    assert by_stage["fit"]["seconds"] == pytest.approx(0.001 * known["labels"])
    embed = by_stage["embed"]
    assert embed["gpu_s"] == pytest.approx(
        (10**6 + known["targets"]) / known["encoder_rows_per_gpu_s"] / 8
    )
    total = by_stage["sum"]
    assert total["seconds"] == pytest.approx(sum(row["seconds"] for row in rows[:-1]))
    assert total["hours"] == pytest.approx(total["seconds"] / 3600)
    assert total["worker_gib"] == pytest.approx(1.0)
    more = {r["stage"]: r for r in projection.project(10**6, 64, costs, known)}
    assert more["embed"]["gpu_s"] == pytest.approx(embed["gpu_s"] / 8)
