"""The prefilter: exact influences, an honest recall, the same pools however the work is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.influence import pools as pools_module
from engine.influence.pairs import load_pools, save_pools
from engine.influence.pools import PoolSearch, find_pools
from engine.influence.predict import top_candidates
from engine.kernels.pairwise import pairwise_block
from engine.kernels.top import RunningTop
from engine.kernels.units import Units
from engine.network.influence_network import InfluenceNetwork

DIM, K, RECALL = 16, 5, 0.9


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples small enough that pools pay at 4,000 rows."""
    monkeypatch.setattr(pools_module, "NUM_PROBES", 32)
    monkeypatch.setattr(pools_module, "NUM_JUDGES", 128)
    monkeypatch.setattr(pools_module, "MIN_SCOUTS", 128)
    monkeypatch.setattr(pools_module, "TARGETS_PER_SCOUT", 10**6)
    monkeypatch.setattr(pools_module, "PAIRS_PER_KEPT", 0)


def make_network(main_effect: float) -> InfluenceNetwork:
    """A random network; a strong main effect makes some candidates good for every target."""
    network = InfluenceNetwork(
        DIM, (20,), main_effects=True, generator=torch.Generator().manual_seed(1)
    )
    torch.nn.init.normal_(
        network.main.weight,  # type: ignore[union-attr]
        std=main_effect,
        generator=torch.Generator().manual_seed(2),
    )
    with torch.no_grad():
        network.layers[0].weight *= 4  # so that targets differ in what they like
        network.layers[1].weight *= 4
    return network.eval()


def embeddings(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sides(network: InfluenceNetwork, m: int = 4096, n: int = 4096) -> tuple[Units, Units]:
    form = network.factorise().fixed_point(1.001)
    return form.of_candidates(embeddings(m, 0)), form.of_targets(embeddings(n, 1))


def exact_ids(candidates: Units, targets: Units) -> np.ndarray:
    best = RunningTop(targets, K)
    best.offer(candidates)
    return best.top().ids


def recall_of(ids: np.ndarray, true_ids: np.ndarray) -> float:
    pairs = zip(ids, true_ids, strict=True)
    return float(np.mean([np.isin(true, some).mean() for some, true in pairs]))


@pytest.mark.parametrize("main_effect", [0.0, 1.0])
def test_what_is_found_is_exact_and_the_recall_is_true(small: None, main_effect: float) -> None:
    candidates, targets = sides(make_network(main_effect))
    pools = find_pools([candidates], [targets], K, RECALL)
    assert pools is not None
    top = PoolSearch(pools, [candidates]).top(targets, K)
    matrix = pairwise_block(candidates, targets)
    assert np.array_equal(top.influence, np.take_along_axis(matrix, top.ids.T, axis=0).T)
    assert (np.diff(top.influence, axis=1) <= 0).all()
    recall = recall_of(top.ids, exact_ids(candidates, targets))
    assert RECALL <= pools.recall < 1
    assert recall == pytest.approx(pools.recall, abs=0.04) and recall > RECALL - 0.02


def test_hubs_make_smaller_pools(small: None) -> None:
    sizes = []
    for main_effect in (0.0, 1.0):
        candidates, targets = sides(make_network(main_effect))
        pools = find_pools([candidates], [targets], K, RECALL)
        assert pools is not None
        sizes.append(np.diff(pools.starts).mean())
    assert sizes[1] < sizes[0] / 2


def test_more_scouts_are_sent_while_pools_cost_more_than_they_do(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates, targets = sides(make_network(0.0), n=16384)
    pools = find_pools([candidates], [targets], K, RECALL)
    assert pools is not None and pools.num_compared == 128 + 2 * 128
    monkeypatch.setattr(pools_module, "MAX_SCOUT_SHARE", 1 / 128)
    pools = find_pools([candidates], [targets], K, RECALL)
    assert pools is not None and pools.num_compared == 128 + 128


def test_pools_are_well_formed(small: None) -> None:
    candidates, targets = sides(make_network(0.5))
    pools = find_pools([candidates], [targets], K, RECALL)
    assert pools is not None and pools.starts[0] == 0 and pools.starts[-1] == len(pools.ids)
    for start, stop in zip(pools.starts[:-1], pools.starts[1:], strict=True):
        ids = pools.ids[start:stop]
        assert len(ids) >= K and len(np.unique(ids)) == len(ids)
        assert ids.min() >= 0 and ids.max() < candidates.num_rows


def test_parts_and_threads_change_nothing(small: None, tmp_path: Path) -> None:
    candidates, targets = sides(make_network(0.5))
    whole = find_pools([candidates], [targets], K, RECALL, threads=1)
    cut = [candidates.block(0, 1024), candidates.block(1024, 4096)]
    parts = find_pools(cut, [targets.block(0, 64), targets.block(64, 4096)], K, RECALL, threads=2)
    assert whole is not None and parts is not None
    save_pools(whole, tmp_path / "whole")
    save_pools(parts, tmp_path / "parts")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    loaded = load_pools(tmp_path / "whole")
    top = PoolSearch(whole, [candidates]).top(targets, K, threads=1)
    again = PoolSearch(loaded, cut).top(targets, K, threads=2)
    assert again.ids.tobytes() == top.ids.tobytes()
    assert again.influence.tobytes() == top.influence.tobytes()
    some = PoolSearch(loaded, cut).top(targets.block(640, 1024), K)
    assert some.ids.tobytes() == top.ids[640:1024].tobytes()


def test_fewer_candidates_than_probes(small: None) -> None:
    candidates, targets = sides(make_network(0.5), m=25)
    pools = find_pools([candidates], [targets], K, RECALL)
    assert pools is not None and pools.probes.tolist() == list(range(25))


def test_another_seed_asks_others(small: None) -> None:
    candidates, targets = sides(make_network(0.5))
    found = [find_pools([candidates], [targets], K, RECALL, seed=seed) for seed in (0, 1)]
    assert found[0] is not None and found[1] is not None
    assert not np.array_equal(found[0].probes, found[1].probes)


def test_everything_is_compared_where_pools_do_not_pay(
    small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = make_network(0.5)
    candidates, targets = sides(network, n=512)  # too few targets for scouts
    assert find_pools([candidates], [targets], K, RECALL) is None
    candidates, targets = sides(network, m=64)  # lists of scouts longer than the candidates
    assert find_pools([candidates], [targets], 20, RECALL) is None
    candidates, targets = sides(network)
    monkeypatch.setattr(pools_module, "WORTHWHILE", 0.05)
    assert find_pools([candidates], [targets], K, RECALL) is None


def test_a_network_that_knows_no_difference(small: None) -> None:
    network = make_network(0.0)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    e_c, e_t = embeddings(4096, 0), embeddings(4096, 1)
    top = top_candidates(network, e_c, e_t, K, recall=RECALL)  # all tie: the lowest rows are best
    assert top.ids.tolist() == [list(range(K))] * 4096
    assert top.recall == 1.0


def test_top_candidates_takes_the_pools_and_tells_their_recall(small: None) -> None:
    network = make_network(0.5)
    e_c, e_t = embeddings(4096, 0), embeddings(4096, 1)
    exact = top_candidates(network, e_c, e_t, K)
    top = top_candidates(network, e_c, e_t, K, recall=RECALL)
    assert exact.recall == 1.0 and RECALL <= top.recall < 1
    assert recall_of(top.ids, exact.ids) == pytest.approx(top.recall, abs=0.04)
    assert top_candidates(network, e_c, e_t[:100], K, recall=RECALL).recall == 1.0
