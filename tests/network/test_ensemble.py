"""Members of a network: their mean is one network, and a fit of them can be resumed anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import NetworkConfig, parse_config
from engine.errors import RunDirectoryError, SettingsError
from engine.influence.predict import predict_influence
from engine.network.ensemble import EnsembleTrainer
from engine.network.influence_network import InfluenceNetwork
from tests.network.problems import planted


def settings(**values: Any) -> NetworkConfig:
    return NetworkConfig.model_validate({"epochs": 2, "hidden": [11], "members": 3, **values})


def network(hidden: int, seed: int, pairwise: bool = True) -> InfluenceNetwork:
    made = InfluenceNetwork(
        6, (hidden,), pairwise, main_effects=True, generator=torch.Generator().manual_seed(seed)
    )
    made.label_mean.fill_(0.3 * seed)
    made.label_std.fill_(1.0 + seed)
    assert made.main is not None
    with torch.no_grad():
        made.main.weight.fill_(0.1 * (seed + 1))
    return made.eval()


@pytest.mark.parametrize("pairwise", [True, False])
@torch.no_grad()
def test_the_mean_of_networks_is_a_network(pairwise: bool) -> None:
    members = [network(hidden, seed, pairwise) for seed, hidden in enumerate((4, 3, 5))]
    mean = InfluenceNetwork.mean_of(members)
    assert mean.hidden == (12,) and mean.pairwise == pairwise
    c, t = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(9))
    expected = torch.stack([member(c, t) for member in members]).mean(dim=0)
    torch.testing.assert_close(mean(c, t), expected)
    if pairwise:  # and keeps the factorised form
        matrix = predict_influence(mean, c, t)
        torch.testing.assert_close(torch.from_numpy(matrix).diagonal(), expected)


def test_members_share_the_units_and_hold_out_every_candidate_once() -> None:
    data, _ = planted()
    trainer = EnsembleTrainer(data, settings(validation_fraction=0.2), 0)
    held_out = [np.unique(data.pairs[member.validation_rows, 0]) for member in trainer.members]
    everyone = np.concatenate(held_out)
    assert sorted(everyone.tolist()) == np.unique(data.pairs[:, 0]).tolist()
    assert [member.network.hidden for member in trainer.members] == [(4,), (4,), (3,)]
    while not trainer.done:
        trainer.train_epoch()
    assert trainer.result().hidden == (11,)
    assert [len(history) for history in trainer.histories] == [2, 2, 2] and trainer.epochs == 6
    rows, predicted, members = trainer.held_out_predictions()
    assert sorted(rows.tolist()) == list(range(len(data.labels)))
    assert np.isfinite(predicted).all()
    for number, fold in enumerate(held_out):
        assert np.unique(data.pairs[rows[members == number], 0]).tolist() == fold.tolist()


def test_all_members_stop_at_the_epoch_that_serves_what_they_hold_out_best() -> None:
    data, _ = planted(noise=3.0)
    config = settings(epochs=60, patience=4, validation_fraction=0.2, learning_rate=0.05)
    trainer = EnsembleTrainer(data, config, 0)
    while not trainer.done:
        trainer.train_epoch()
    pooled = [loss.validation for loss in trainer.history]
    assert all(loss is not None for loss in pooled)
    assert np.argmin(pooled) == trainer.best_epoch - 1  # type: ignore[arg-type]
    assert len(pooled) == trainer.best_epoch + 4 < 60


def test_fewer_candidates_than_members_are_held_out_by_turns() -> None:
    data, _ = planted()
    trainer = EnsembleTrainer(
        data.of_candidates(np.arange(2)), settings(validation_fraction=0.2), 0
    )
    assert all(len(member.train_rows) and len(member.validation_rows) for member in trainer.members)
    with pytest.raises(SettingsError, match="cover 1 candidate, expected at least 2 to hold out"):
        EnsembleTrainer(data.of_candidates(np.arange(1)), settings(validation_fraction=0.2), 0)


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_resumed_equals_uninterrupted(tmp_path: Path, stop_after: int) -> None:
    data, _ = planted()
    straight, first, second = (EnsembleTrainer(data, settings(), 5) for _ in range(3))
    while not straight.done:
        straight.train_epoch()
    for _ in range(stop_after):
        first.train_epoch()
    first.save(tmp_path)
    second.restore(tmp_path)
    assert second.epochs == 3 * stop_after
    while not second.done:
        second.train_epoch()
    assert second.histories == straight.histories
    for name, value in straight.result().state_dict().items():
        assert torch.equal(second.result().state_dict()[name], value), name


def test_restore_says_what_is_wrong(tmp_path: Path) -> None:
    data, _ = planted()
    with pytest.raises(RunDirectoryError, match="remove it to start again"):
        EnsembleTrainer(data, settings(), 0).restore(tmp_path)


def test_one_member_is_the_whole_network() -> None:
    data, _ = planted()
    config = NetworkConfig.model_validate({"preset": "paper", "epochs": 1})
    trainer = EnsembleTrainer(data, config, 0)
    trainer.train_epoch()
    assert trainer.done and trainer.result().hidden == (100,)


def test_noise_is_averaged_out() -> None:
    data, scores = planted(noise=3.0)
    rows = np.indices(scores.shape).reshape(2, -1).T
    unseen = rows[(rows[:, 0] >= 100) & (rows[:, 1] >= 26)]
    truth = scores[unseen[:, 0], unseen[:, 1]]

    def error(members: int) -> float:
        config = NetworkConfig.model_validate({"members": members, "epochs": 20})
        trainer = EnsembleTrainer(data, config, 0)
        while not trainer.done:
            trainer.train_epoch()
        matrix = predict_influence(trainer.result(), data.candidates, data.targets)
        return float(np.square(matrix[unseen[:, 0], unseen[:, 1]] - truth).mean())

    assert error(5) < error(1)


def test_members_need_one_hidden_layer() -> None:
    def network_of(**values: Any) -> NetworkConfig:
        return parse_config({"corpus": {"path": "x"}, "network": values}).network

    assert network_of().members == 5
    assert network_of(hidden=[20, 10]).members == 1
    for hidden in ([20, 10], [2], []):
        with pytest.raises(SettingsError, match=r"set network\.members 1"):
            network_of(hidden=hidden, members=3)
