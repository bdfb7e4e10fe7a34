"""The training loop: workers, resuming, presets, refusals."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.config import NetworkConfig
from engine.errors import InputError, RunDirectoryError, SettingsError
from engine.network.influence_network import InfluenceNetwork
from engine.network.training import Reduce, Trainer
from engine.network.training_set import TrainingSet
from tests.network.problems import planted, unseen_block


def settings(**values: Any) -> NetworkConfig:
    return NetworkConfig.model_validate({"epochs": 3, **values})


def run_team(data: TrainingSet, config: NetworkConfig, num_workers: int) -> list[Trainer]:
    """All trainers of one fit, each in its thread, summing in the order of their ranks."""
    barrier = threading.Barrier(num_workers, timeout=60)
    slots: list[Tensor] = [torch.empty(0)] * num_workers

    def reduce_of(rank: int) -> Reduce:
        def reduce(tensor: Tensor) -> Tensor:
            slots[rank] = tensor.clone()
            barrier.wait()
            total = torch.stack(slots).sum(0)
            barrier.wait()
            return tensor.copy_(total)

        return reduce

    team = [Trainer(data, config, 7, r, num_workers, reduce_of(r)) for r in range(num_workers)]

    def work(trainer: Trainer) -> None:
        while not trainer.done:
            trainer.train_epoch()

    threads = [threading.Thread(target=work, args=(trainer,)) for trainer in team]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return team


def assert_same_weights(first: nn.Module, second: nn.Module, atol: float = 0.0) -> None:
    for name, value in first.state_dict().items():
        torch.testing.assert_close(value, second.state_dict()[name], rtol=0, atol=atol, msg=name)


@pytest.mark.parametrize("num_workers", [2, 3, 5])
def test_any_number_of_workers_takes_the_same_steps(num_workers: int) -> None:
    data, _ = planted()
    config = settings(batch_size=50, epochs=2)  # 50 is no multiple of 3, the last batch is short
    alone = run_team(data, config, 1)[0]
    team = run_team(data, config, num_workers)
    for member in team:
        assert_same_weights(alone.network, member.network, atol=2e-5)
        assert member.history[-1].validation == pytest.approx(alone.history[-1].validation, 1e-4)
    assert_same_weights(team[0].network, team[-1].network)


def test_more_workers_than_pairs_in_a_batch() -> None:
    data, _ = planted()
    config = settings(batch_size=3, epochs=1, validation_fraction=0.0)
    few = dataclasses.replace(data, pairs=data.pairs[:10], labels=data.labels[:10])
    alone, team = run_team(few, config, 1)[0], run_team(few, config, 4)[0]
    assert_same_weights(alone.network, team.network, atol=1e-6)


@pytest.mark.parametrize("stop_after", [1, 3])
def test_resumed_equals_uninterrupted(tmp_path: Path, stop_after: int) -> None:
    data, _ = planted()
    config = settings(epochs=5)
    straight, first, second = (Trainer(data, config, 0) for _ in range(3))
    while not straight.done:
        straight.train_epoch()
    for _ in range(stop_after):
        first.train_epoch()
    first.save(tmp_path)
    second.restore(tmp_path)
    while not second.done:
        second.train_epoch()
    assert second.history == straight.history
    assert second.best_epoch == straight.best_epoch
    assert_same_weights(second.network, straight.network)
    assert_same_weights(second.result(), straight.result())


def test_restore_refuses_another_network(tmp_path: Path) -> None:
    data, _ = planted()
    trainer = Trainer(data, settings(), 0)
    trainer.train_epoch()
    trainer.save(tmp_path)
    with pytest.raises(RunDirectoryError, match="remove it to start again"):
        Trainer(data, settings(hidden=[7]), 0).restore(tmp_path)
    with pytest.raises(RunDirectoryError):
        Trainer(data, settings(), 0).restore(tmp_path / "nowhere")


def test_preset_paper_is_plain_adam_on_mean_squared_error() -> None:
    data, _ = planted()
    config = NetworkConfig.model_validate({"preset": "paper"})
    assert (config.epochs, config.learning_rate, config.batch_size) == (20, 1e-4, 64)
    trainer = Trainer(data, config, 0)
    model = InfluenceNetwork(data.dim)
    model.load_state_dict(trainer.network.state_dict())
    adam = torch.optim.Adam(model.parameters(), lr=1e-4)
    for epoch in range(2):
        order = trainer._order(epoch)
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            c, t = torch.from_numpy(data.pairs[rows]).T
            predicted = model(torch.from_numpy(data.candidates)[c], torch.tensor(data.targets)[t])
            loss = nn.functional.mse_loss(predicted, torch.from_numpy(data.labels[rows]))
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        trainer.train_epoch()
    assert float(trainer.network.label_mean) == 0.0
    assert float(trainer.network.label_std) == 1.0
    assert trainer.best_epoch == 2
    assert_same_weights(trainer.network, model, atol=1e-6)


def test_huber_is_the_squared_error_but_for_outliers() -> None:
    data, scores = planted(noise=0.0)
    wild = data.labels.copy()
    wild[::25] += np.where(np.arange(len(wild[::25])) % 2, 9.0, -1.0).astype(np.float32)
    plain = {"members": 1, "epochs": 30, "input_dropout": 0.0, "standardise_labels": False}
    errors = {}
    for name, labels in (("clean", data.labels), ("wild", wild)):
        for loss in ("mse", "huber"):
            taught = dataclasses.replace(data, labels=labels)
            trainer = Trainer(taught, settings(**plain, loss=loss), 0)
            with torch.no_grad():  # starts near the labels, so that clean errors are below 1
                trainer.network.layers[-1].bias.fill_(5.0)
            while not trainer.done:
                trainer.train_epoch()
            pairs = unseen_block(scores)
            c, t = (torch.from_numpy(side) for side in (data.candidates, data.targets))
            with torch.no_grad():
                found = trainer.result()(c[pairs[:, 0]], t[pairs[:, 1]]).numpy()
            errors[name, loss] = np.square(found - scores[pairs[:, 0], pairs[:, 1]]).mean()
    assert errors["clean", "huber"] == pytest.approx(errors["clean", "mse"], rel=0.05)
    assert errors["wild", "huber"] < 0.5 * errors["wild", "mse"]


def test_whole_candidates_are_held_out_and_do_not_set_the_scale() -> None:
    data, _ = planted()
    trainer = Trainer(data, settings(validation_fraction=0.2), 0)
    seen = set(data.pairs[trainer.train_rows, 0])
    held_out = set(data.pairs[trainer.validation_rows, 0])
    assert not seen & held_out
    assert len(held_out) == 20
    known = data.labels[trainer.train_rows]
    assert float(trainer.network.label_mean) == pytest.approx(float(known.mean()), rel=1e-6)
    assert float(trainer.network.label_std) == pytest.approx(float(known.std()), rel=1e-4)


def test_stops_early_and_keeps_the_best_epoch() -> None:
    data, _ = planted(per_candidate=3, noise=2.0)
    trainer = Trainer(data, settings(epochs=100, patience=3, input_dropout=0.0), 0)
    states = []
    while not trainer.done:
        trainer.train_epoch()
        states.append({k: v.clone() for k, v in trainer.network.state_dict().items()})
    losses = [loss.validation for loss in trainer.history]
    assert trainer.epochs < 100
    assert losses.index(min(losses)) == trainer.best_epoch - 1 == trainer.epochs - 4  # type: ignore[type-var]
    best = trainer.result().state_dict()
    assert all(torch.equal(best[name], v) for name, v in states[trainer.best_epoch - 1].items())


def test_biases_are_not_decayed() -> None:
    data, _ = planted()
    groups = Trainer(data, settings(weight_decay=0.5), 0).optimizer.param_groups
    decay = {p.ndim: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {2: 0.5, 1: 0.0}


def test_global_random_state_is_left_alone() -> None:
    data, _ = planted()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Trainer(data, settings(epochs=1), -3)
    first.train_epoch()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    second = Trainer(data, settings(epochs=1), -3)
    second.train_epoch()
    assert_same_weights(first.network, second.network)


def test_divergence_is_a_sentence() -> None:
    data, _ = planted()
    trainer = Trainer(data, settings(learning_rate=1e30, epochs=20), 0)
    with pytest.raises(SettingsError, match=r"lower network\.learning_rate"):
        while not trainer.done:
            trainer.train_epoch()


def test_open_reads_what_save_wrote(tmp_path: Path) -> None:
    data, _ = planted()
    data.save(tmp_path)
    again = TrainingSet.open(tmp_path)
    for name in ("candidates", "targets", "pairs", "labels"):
        np.testing.assert_array_equal(getattr(data, name), getattr(again, name))
    assert isinstance(again.candidates, np.memmap)
    with pytest.raises(InputError, match="holds no training set"):
        TrainingSet.open(tmp_path / "nowhere")
