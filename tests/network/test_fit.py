"""Fitting: what is learned, what is refused, and the same on Ray Train."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import NetworkConfig
from engine.errors import InputError, SettingsError
from engine.network import fit
from engine.network.fit import FitSummary, fit_network, train_network
from engine.network.influence_network import InfluenceNetwork
from engine.network.training import Trainer
from engine.network.training_set import TrainingSet
from engine.runtime.ray_cluster import RayExecutor
from tests.network.problems import planted, unseen_block


def settings(**values: Any) -> NetworkConfig:
    return NetworkConfig.model_validate(values)


def fit_set(data: TrainingSet, config: NetworkConfig | None = None) -> InfluenceNetwork:
    return fit_network(data.candidates, data.targets, data.pairs, data.labels, config)


def predict(network: InfluenceNetwork, data: TrainingSet, pairs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        left, right = data.candidates[pairs[:, 0]], data.targets[pairs[:, 1]]
        return network(torch.from_numpy(left), torch.from_numpy(right)).numpy()


def r2(predicted: np.ndarray, truth: np.ndarray) -> float:
    return float(1 - np.square(predicted - truth).sum() / np.square(truth - truth.mean()).sum())


@pytest.mark.parametrize(("pairwise", "parameters"), [(True, 205_101), (False, 102_601)])
def test_published_parameter_counts(pairwise: bool, parameters: int) -> None:
    network = InfluenceNetwork(1024, pairwise=pairwise)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_learns_a_planted_function_of_unseen_pairs() -> None:
    data, scores = planted(num_candidates=450, num_targets=90)
    unseen = unseen_block(scores)
    truth = scores[unseen[:, 0], unseen[:, 1]]
    network = fit_set(data, settings(input_dropout=0.0))
    assert r2(predict(network, data, unseen), truth) > 0.6
    assert network.training is False


def test_permuted_labels_teach_nothing() -> None:
    data, scores = planted()
    shuffled = np.random.default_rng(0).permutation(data.labels)
    network = fit_network(data.candidates, data.targets, data.pairs, shuffled)
    unseen = unseen_block(scores)
    assert r2(predict(network, data, unseen), scores[unseen[:, 0], unseen[:, 1]]) < 0.1


def test_same_seed_same_bytes_and_label_scale_survives_the_file(tmp_path: Path) -> None:
    data, _ = planted()
    first, second = fit_set(data, settings(epochs=3)), fit_set(data, settings(epochs=3))
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    loaded = InfluenceNetwork.load(tmp_path / "a")
    assert float(loaded.label_mean) == pytest.approx(5.0, abs=0.2)
    np.testing.assert_array_equal(
        predict(loaded, data, data.pairs), predict(first, data, data.pairs)
    )


def test_takes_tensors_and_keeps_the_callers_threads() -> None:
    data, _ = planted()
    threads = torch.get_num_threads()
    arrays = (data.candidates, data.targets, data.pairs, data.labels)
    network = fit_network(*(torch.from_numpy(array) for array in arrays), settings(epochs=1))  # type: ignore[arg-type]
    expected = fit_set(data, settings(epochs=1))
    assert torch.equal(network.layers[0].weight, expected.layers[0].weight)  # type: ignore[arg-type]
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("value", [0.0, 0.3, -1e6])
def test_constant_labels_are_predicted_as_they_are(value: float) -> None:
    data, scores = planted()
    labels = np.full(len(data.labels), value, dtype=np.float32)
    config = settings(epochs=5)
    network = fit_network(data.candidates, data.targets, data.pairs, labels, config)
    predicted = predict(network, data, unseen_block(scores))
    np.testing.assert_allclose(predicted, value, atol=0.3, rtol=1e-3)


def test_refusals_say_what_to_do() -> None:
    data, _ = planted()
    c, t, pairs, labels = data.candidates, data.targets, data.pairs, data.labels
    nan = labels.copy()
    nan[3] = np.nan
    with pytest.raises(InputError, match=r"at least 8: raise sample\.fraction"):
        fit_network(c, t, pairs[:7], labels[:7])
    with pytest.raises(InputError, match="1 of 2000 teacher labels are not finite"):
        fit_network(c, t, pairs, nan)
    with pytest.raises(InputError, match="one per pair"):
        fit_network(c, t, pairs, labels[:-1])
    with pytest.raises(InputError, match="the same D on both sides"):
        fit_network(c, t[:, :-1], pairs, labels)
    with pytest.raises(InputError, match="pairs name candidates"):
        fit_network(c[:5], t, pairs, labels)
    with pytest.raises(InputError, match="embeddings of targets"):
        fit_network(c, np.full_like(t, np.inf), pairs, labels)
    with pytest.raises(InputError, match=r"expected \(n, 2\)"):
        fit_network(c, t, pairs[:, :1], labels)
    with pytest.raises(SettingsError, match="at least 2 to hold out some"):
        fit_network(c, t, pairs[:20], labels[:20])


def test_one_candidate_works_without_held_out_candidates() -> None:
    data, _ = planted()
    config = settings(validation_fraction=0.0, epochs=2)
    network = fit_network(data.candidates, data.targets, data.pairs[:20], data.labels[:20], config)
    assert np.isfinite(predict(network, data, data.pairs)).all()


# Ray warns of its own settings; ours would still be errors.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
RAY_SETTINGS = {"epochs": 2, "patience": None, "num_workers": 2, "members": 2}


def fit_in(directory: Path, data: TrainingSet, **values: Any) -> FitSummary:
    (directory / "data").mkdir(exist_ok=True)
    data.save(directory / "data")
    config = settings(**{**RAY_SETTINGS, **values})
    return train_network(
        RayExecutor(),
        directory / "data",
        directory / "n.safetensors",
        config,
        0,
        directory / "ray",
        "fit",
    )


@pytest.mark.usefixtures("ray_local")
def test_two_ray_workers_equal_one_process_and_a_finished_fit_is_not_repeated(
    tmp_path: Path,
) -> None:
    data, _ = planted()
    summary = fit_in(tmp_path, data)
    written = tmp_path / "n.safetensors"
    network, alone = InfluenceNetwork.load(written), fit_set(data, settings(**RAY_SETTINGS))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=1e-4, msg=name)
    assert summary.epochs == 4
    assert summary.num_train_pairs + summary.num_validation_pairs == len(data.labels)
    assert FitSummary.from_dict(summary.to_dict()) == summary
    before = written.read_bytes()
    written.unlink()
    assert fit_in(tmp_path, data) == summary
    assert written.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "n.safetensors", "ray"]


@pytest.mark.usefixtures("ray_local")
def test_vectors_are_learned_on_ray_to_the_same_bytes_as_in_process(tmp_path: Path) -> None:
    data, _ = planted()
    rows = np.arange(len(data.candidates))
    vectors = np.tanh(data.candidates @ data.targets[:5].T)
    pairs = np.stack([rows, np.zeros_like(rows)], axis=1)
    known = TrainingSet(data.candidates, None, pairs, vectors)
    config = {"epochs": 20, "patience": None, "num_workers": 1, "hidden": [40]}
    summary = fit_in(tmp_path, known, **config)
    alone = fit_set(known, settings(**{**RAY_SETTINGS, **config}))
    alone.save(tmp_path / "alone")
    assert (tmp_path / "n.safetensors").read_bytes() == (tmp_path / "alone").read_bytes()
    loaded = InfluenceNetwork.load(tmp_path / "n.safetensors")
    assert loaded.outputs == 5 and loaded.label_mean.shape == (5,)
    # in variances of the labels, whatever their number
    first, *_, last = (loss.train for loss in summary.histories[0])
    assert last < 0.8 * first and 0.5 < first < 2


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_the_same_bytes_after_a_worker_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = planted()
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    calm.mkdir()
    rough.mkdir()
    expected = fit_in(calm, data)
    loop = fit._train_loop

    def dying_loop(config: dict[str, Any], team: Any) -> dict[str, Any]:
        """One worker dies in epoch 3 of the first attempt; afterwards its team starts at 3."""
        import os

        from engine.network import fit, training

        fit.STEPS_PER_CHECKPOINT = 1
        original = training.Trainer.train_epoch

        def train_epoch(self: Trainer) -> training.EpochLoss:
            if self.epochs == 2 and self.rank == 1 and not (rough / "died").exists():
                time.sleep(6)  # Ray Train looks for finished checkpoints every 2 s
                (rough / "died").touch()
                os._exit(17)
            if (rough / "died").exists() and self.rank == 0:
                (rough / f"epoch{self.epochs}").touch()
            return original(self)

        training.Trainer.train_epoch = train_epoch  # type: ignore[method-assign]
        return loop(config, team)

    monkeypatch.setattr(fit, "_train_loop", dying_loop)
    assert fit_in(rough, data) == expected
    assert sorted(p.name for p in rough.glob("epoch*")) == ["epoch2", "epoch3"]
    assert (rough / "n.safetensors").read_bytes() == (calm / "n.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_local")
def test_divergence_on_ray_is_a_settings_error_without_retries(tmp_path: Path) -> None:
    data, _ = planted()
    with pytest.raises(SettingsError, match=r"lower network\.learning_rate"):
        fit_in(tmp_path, data, learning_rate=1e30, epochs=20)


def test_a_pointwise_network_learns_what_rows_are_worth() -> None:
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(600, 16)).astype(np.float32)
    labels = (3 + np.tanh(candidates[:, 0]) + 0.5 * candidates[:, 1]).astype(np.float32)
    rows = np.arange(400)
    pairs = np.stack([rows, np.zeros_like(rows)], axis=1)
    network = fit_network(candidates, None, pairs, labels[:400])
    assert not network.pairwise
    with torch.no_grad():
        predicted = network(torch.from_numpy(candidates[400:])).numpy()
    assert r2(predicted, labels[400:]) > 0.5


def test_a_pointwise_training_set_survives_the_disk(tmp_path: Path) -> None:
    data, _ = planted()
    data.save(tmp_path)
    pointwise = TrainingSet(data.candidates, None, data.pairs, data.labels)
    pointwise.save(tmp_path)  # over the pairwise one, whose targets must go
    opened = TrainingSet.open(tmp_path)
    assert not opened.pairwise
    opened.check()
    np.testing.assert_array_equal(opened.candidates, data.candidates)
