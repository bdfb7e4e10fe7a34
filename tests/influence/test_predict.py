"""Public predictors equal the network's own forward pass, whichever form they compute with."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from engine.errors import EngineError, ModelError, SettingsError
from engine.influence import network as influence_network
from engine.influence import predict
from engine.influence.predict import mean_influence, predict_influence, top_candidates
from engine.network.influence_network import InfluenceNetwork
from tests.oracles.influence import influence_matrix, top_of_matrix

DIM = 12
SHAPES: list[tuple[int, ...]] = [(100,), (5,), (), (20, 10)]


def make_network(
    hidden: tuple[int, ...], pairwise: bool = True, main_effects: bool = True
) -> InfluenceNetwork:
    generator = torch.Generator().manual_seed(1)
    network = InfluenceNetwork(DIM, hidden, pairwise, main_effects, generator)
    if main_effects:
        torch.nn.init.normal_(network.main.weight, std=0.1, generator=generator)
    network.label_mean.fill_(0.3)
    network.label_std.fill_(2.0)
    return network.eval()


def embeddings(count: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("main_effects", [True, False])
@pytest.mark.parametrize("pairwise", [True, False])
@pytest.mark.parametrize("hidden", SHAPES)
def test_prediction_equals_the_plain_network(
    hidden: tuple[int, ...], pairwise: bool, main_effects: bool
) -> None:
    network = make_network(hidden, pairwise, main_effects)
    e_c, e_t = embeddings(23, 0), embeddings(17, 1)
    expected = influence_matrix(network, e_c, e_t)
    scale = 2e-6 * np.abs(expected).max()
    matrix = predict_influence(network, e_c, e_t)
    assert matrix.shape == (23, 17) and matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=scale)
    means = mean_influence(network, e_c, e_t)
    assert means.shape == (23,) and means.dtype == np.float32
    np.testing.assert_allclose(means, expected.mean(axis=1), rtol=0, atol=scale)


@pytest.mark.parametrize("length", [1e3, 1e-3])
@pytest.mark.parametrize("hidden", SHAPES)
def test_embeddings_that_are_not_normalised(hidden: tuple[int, ...], length: float) -> None:
    network = make_network(hidden)
    e_c, e_t = length * embeddings(23, 0), length * embeddings(17, 1)
    expected = influence_matrix(network, e_c.astype(np.float32), e_t.astype(np.float32))
    scale = 2e-6 * np.abs(expected).max()
    np.testing.assert_allclose(predict_influence(network, e_c, e_t), expected, rtol=0, atol=scale)


@pytest.mark.parametrize("hidden", SHAPES)
def test_means_are_those_of_the_matrix(hidden: tuple[int, ...]) -> None:
    network, e_c, e_t = make_network(hidden), embeddings(150, 0), embeddings(100, 1)
    matrix = predict_influence(network, e_c, e_t)
    means = mean_influence(network, e_c, e_t)
    scale = 1.2e-7 * np.abs(matrix).max()
    np.testing.assert_allclose(means, matrix.mean(axis=1, dtype=np.float64), rtol=0, atol=scale)


@pytest.mark.parametrize("pairwise", [True, False])
@pytest.mark.parametrize("hidden", SHAPES)
def test_top_candidates_equal_the_sorted_matrix(hidden: tuple[int, ...], pairwise: bool) -> None:
    network, e_t = make_network(hidden, pairwise), embeddings(9, 1)
    e_c = np.tile(embeddings(20, 0), (2, 1))  # every candidate ties with another
    ids, values = top_of_matrix(predict_influence(network, e_c, e_t), 11)
    top = top_candidates(network, e_c, e_t, 11, recall=1.0)
    assert top.recall == 1.0
    assert top.ids.tolist() == ids.tolist()
    assert top.influence.tolist() == values.tolist()


@pytest.mark.parametrize("pairwise", [True, False])
def test_a_pair_does_not_depend_on_the_other_rows(pairwise: bool) -> None:
    network, e_c, e_t = make_network((30,), pairwise), embeddings(150, 0), embeddings(100, 1)
    matrix, means = predict_influence(network, e_c, e_t), mean_influence(network, e_c, e_t)
    rng = np.random.default_rng(2)
    rows, columns = rng.permutation(150), rng.permutation(100)
    shuffled = predict_influence(network, e_c[rows], e_t[columns])
    assert shuffled.tobytes() == matrix[np.ix_(rows, columns)].tobytes()
    assert mean_influence(network, e_c[rows], e_t[columns]).tobytes() == means[rows].tobytes()
    for some, others in ((slice(0, 1), slice(99, 100)), (slice(3, 90), slice(64, 100))):
        part = predict_influence(network, e_c[some], e_t[others])
        assert part.tobytes() == matrix[some, others].tobytes()
        assert mean_influence(network, e_c[some], e_t).tobytes() == means[some].tobytes()


@pytest.mark.parametrize("pairs", [1, 8, 50])
def test_tile_size_of_the_plain_path(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    network, e_c, e_t = make_network((20, 10)), embeddings(23, 0), embeddings(17, 1)
    whole = predict_influence(network, e_c, e_t)
    monkeypatch.setattr(influence_network, "PAIRS_PER_PASS", pairs)
    np.testing.assert_allclose(predict_influence(network, e_c, e_t), whole, rtol=1e-5, atol=1e-6)
    means = mean_influence(network, e_c, e_t)
    np.testing.assert_allclose(means, whole.mean(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [(100,), (5,), ()])
def test_pointwise_network_is_the_same_for_every_target(hidden: tuple[int, ...]) -> None:
    network = make_network(hidden, pairwise=False)
    e_c, e_t = embeddings(4, 0), embeddings(3, 1)
    matrix = predict_influence(network, e_c, e_t)
    assert (matrix == matrix[:, :1]).all() and len(np.unique(matrix)) == 4
    assert mean_influence(network, e_c, e_t).tolist() == matrix[:, 0].tolist()


def test_tensors_and_arrays_and_threads_give_the_same_bits() -> None:
    network, e_c, e_t = make_network((100,)), embeddings(150, 0), embeddings(140, 1)
    matrix = predict_influence(network, e_c, e_t, threads=1)
    tensors = torch.tensor(e_c), torch.tensor(e_t, requires_grad=True)
    assert predict_influence(network, *tensors, threads=2).tobytes() == matrix.tobytes()
    one = top_candidates(network, e_c, e_t, 5, threads=1)
    two = top_candidates(network, *tensors, 5, threads=2)
    assert one.ids.tobytes() == two.ids.tobytes()
    assert one.influence.tobytes() == two.influence.tobytes()
    assert mean_influence(network, e_c, e_t, threads=1).tobytes() == (
        mean_influence(network, *tensors, threads=2).tobytes()
    )


@pytest.mark.parametrize("pairwise", [True, False])
@pytest.mark.parametrize("hidden", SHAPES)
def test_the_log_says_which_form_is_used(
    hidden: tuple[int, ...], pairwise: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        predict_influence(make_network(hidden, pairwise), embeddings(2, 0), embeddings(2, 1))
    assert ("does not factorise" in caplog.text) == (len(hidden) > 1)
    assert ("the network factorises" in caplog.text) == (len(hidden) <= 1)


@pytest.mark.parametrize("hidden", [(5,), (6, 4)])
def test_means_over_groups_and_over_candidates(hidden: tuple[int, ...]) -> None:
    network, e_c, e_t = make_network(hidden), embeddings(23, 0), embeddings(17, 1)
    matrix = predict_influence(network, e_c, e_t).astype(np.float64)
    by_target, by_candidate = np.arange(17) % 3, np.arange(23) // 8
    means = mean_influence(network, e_c, e_t, groups=by_target)
    of_targets = mean_influence(network, e_c, e_t, over="candidates")
    of_groups = mean_influence(network, e_c, e_t, over="candidates", groups=by_candidate)
    assert (means.shape, of_targets.shape, of_groups.shape) == ((23, 3), (17,), (17, 3))
    for group in range(3):
        np.testing.assert_allclose(
            means[:, group], matrix[:, by_target == group].mean(axis=1), atol=1e-6
        )
        np.testing.assert_allclose(
            of_groups[:, group], matrix[by_candidate == group].mean(axis=0), atol=1e-6
        )
    np.testing.assert_allclose(of_targets, matrix.mean(axis=0), atol=1e-6)


def test_groups_that_make_no_sense_are_refused() -> None:
    network, e_c, e_t = make_network((5,)), embeddings(4, 0), embeddings(3, 1)
    for groups in ([0, 1], [0, 0, 2], [-1, 0, 0], [0.0, 0.0, 1.0]):
        with pytest.raises(SettingsError, match="groups"):
            mean_influence(network, e_c, e_t, groups=groups)
    with pytest.raises(SettingsError, match="over must be"):
        mean_influence(network, e_c, e_t, over="rows")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="0 candidates"):
        mean_influence(network, e_c[:0], e_t, over="candidates")


def test_tensors_of_a_device_take_the_other_path_to_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network, e_c, e_t = make_network((5,)), embeddings(90, 0), embeddings(70, 1)
    groups = np.arange(70) % 2
    expected = (
        predict_influence(network, e_c, e_t),
        mean_influence(network, e_c, e_t, groups=groups),
        mean_influence(network, e_c, e_t, over="candidates"),
        top_candidates(network, e_c, e_t, 7).influence,
    )
    monkeypatch.setattr(predict, "on_cuda", lambda *_: True)  # there is no device here
    tensors = torch.from_numpy(e_c), torch.from_numpy(e_t)
    top = top_candidates(network, *tensors, 7)
    actual = (
        predict_influence(network, *tensors),
        mean_influence(network, *tensors, groups=groups),
        mean_influence(network, *tensors, over="candidates"),
        top.influence,
    )
    for of_device, of_host in zip(actual, expected, strict=True):
        np.testing.assert_allclose(of_device, of_host, rtol=0, atol=1e-7)
    assert top.recall == 1.0
    with pytest.raises(ModelError, match="targets: row 3"):
        broken = tensors[1].clone()
        broken[3, 0] = torch.nan
        predict_influence(network, tensors[0], broken)
    with pytest.raises(SettingsError, match="candidates have D=11"):
        predict_influence(network, tensors[0][:, 1:], tensors[1])


def test_empty_sides() -> None:
    for hidden in SHAPES:
        network, some, none = make_network(hidden), embeddings(3, 1), embeddings(0, 0)
        assert predict_influence(network, none, some).shape == (0, 3)
        assert predict_influence(network, some, none).shape == (3, 0)
        assert mean_influence(network, none, some).shape == (0,)
        assert top_candidates(network, some, none, 2).ids.shape == (0, 2)


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
