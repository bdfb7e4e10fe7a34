"""Public predictors equal the network's own forward pass, whichever form they compute with."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from engine.errors import EngineError, ModelError, SettingsError
from engine.influence import network as influence_network
from engine.influence.predict import mean_influence, predict_influence, top_candidates
from engine.network.influence_network import InfluenceNetwork
from tests.oracles.influence import influence_matrix, top_of_matrix

DIM = 12
SHAPES: list[tuple[int, ...]] = [(100,), (5,), (), (20, 10)]


def make_network(hidden: tuple[int, ...], pairwise: bool = True) -> InfluenceNetwork:
    torch.manual_seed(1)
    network = InfluenceNetwork(DIM, hidden, pairwise=pairwise, main_effects=True)
    torch.nn.init.normal_(network.main.weight, std=0.1)  # type: ignore[union-attr]
    network.label_mean.fill_(0.3)
    network.label_std.fill_(2.0)
    return network.eval()


def embeddings(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("hidden", SHAPES)
def test_prediction_equals_the_plain_network(hidden: tuple[int, ...]) -> None:
    network, e_c, e_t = make_network(hidden), embeddings(23, 0), embeddings(17, 1)
    expected = influence_matrix(network, e_c, e_t)
    scale = 1e-5 * np.abs(expected).max()
    matrix = predict_influence(network, e_c, e_t)
    assert matrix.shape == (23, 17) and matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=scale)
    means = mean_influence(network, e_c, e_t)
    assert means.shape == (23,) and means.dtype == np.float32
    np.testing.assert_allclose(means, expected.mean(axis=1), rtol=0, atol=scale)


@pytest.mark.parametrize("hidden", SHAPES)
def test_top_candidates_equal_the_sorted_matrix(hidden: tuple[int, ...]) -> None:
    network, e_t = make_network(hidden), embeddings(9, 1)
    e_c = np.tile(embeddings(20, 0), (2, 1))  # every candidate ties with another
    matrix = predict_influence(network, e_c, e_t)
    ids, values = top_of_matrix(matrix, 11)
    for recall in (1.0, 0.9):
        top = top_candidates(network, e_c, e_t, 11, recall)
        assert top.recall == 1.0
        assert top.ids.tolist() == ids.tolist()
        assert top.influence.tolist() == values.tolist()


@pytest.mark.parametrize("pairs", [1, 8, 50])
def test_tile_size_of_the_plain_path(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, e_c, e_t = make_network((20, 10)), embeddings(23, 0), embeddings(17, 1)
    whole = predict_influence(network, e_c, e_t)
    monkeypatch.setattr(influence_network, "PAIRS_PER_PASS", pairs)
    np.testing.assert_allclose(predict_influence(network, e_c, e_t), whole, rtol=1e-5, atol=1e-6)
    means = mean_influence(network, e_c, e_t)
    np.testing.assert_allclose(means, whole.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_pointwise_network_is_the_same_for_every_target() -> None:
    matrix = predict_influence(
        make_network((5,), pairwise=False), embeddings(4, 0), embeddings(3, 1)
    )
    assert (matrix == matrix[:, :1]).all() and len(np.unique(matrix)) == 4


def test_tensors_and_arrays_and_threads_give_the_same_bits() -> None:
    network, e_c, e_t = make_network((100,)), embeddings(50, 0), embeddings(40, 1)
    matrix = predict_influence(network, e_c, e_t, threads=1)
    tensors = torch.tensor(e_c), torch.tensor(e_t, requires_grad=True)
    assert predict_influence(network, *tensors, threads=2).tobytes() == matrix.tobytes()
    one = top_candidates(network, e_c, e_t, 5, threads=1)
    two = top_candidates(network, *tensors, 5, threads=2)
    assert one.ids.tobytes() == two.ids.tobytes()
    assert mean_influence(network, e_c, e_t, threads=1).tobytes() == (
        mean_influence(network, *tensors, threads=2).tobytes()
    )


@pytest.mark.parametrize("hidden", [(100,), (20, 10)])
def test_the_log_says_which_form_is_used(
    hidden: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        predict_influence(make_network(hidden), embeddings(2, 0), embeddings(2, 1))
    assert ("does not factorise" in caplog.text) == (len(hidden) > 1)


def test_no_candidates() -> None:
    for hidden in SHAPES:
        matrix = predict_influence(make_network(hidden), embeddings(0, 0), embeddings(3, 1))
        assert matrix.shape == (0, 3)


def test_errors_name_what_is_wrong() -> None:
    network, e_c, e_t = make_network((5,)), embeddings(4, 0), embeddings(3, 1)
    with pytest.raises(SettingsError, match="targets have D=7, the network was fitted with D=12"):
        predict_influence(network, e_c, np.zeros((3, 7), dtype=np.float32))
    with pytest.raises(SettingsError, match=r"candidates must be a matrix .* got shape \(12,\)"):
        mean_influence(network, e_c[0], e_t)
    broken = e_c.copy()
    broken[2, 3] = np.nan
    with pytest.raises(ModelError, match=r"candidates: row 2 \(1 of 4 rows\)"):
        top_candidates(network, broken, e_t, 2)
    for k in (0, 5):
        with pytest.raises(SettingsError, match="k must be between 1 and the 4 candidates"):
            top_candidates(network, e_c, e_t, k)
    with pytest.raises(SettingsError, match="recall"):
        top_candidates(network, e_c, e_t, 2, recall=0.0)
    with pytest.raises(SettingsError, match="0 targets"):
        mean_influence(network, e_c, e_t[:0])
    torch.nn.init.constant_(network.layers[1].weight, torch.inf)
    with pytest.raises(EngineError, match="NaN or infinite"):
        predict_influence(network, e_c, e_t)
