import subprocess
import sys

import numpy as np

import engine


def test_all_is_sorted_and_every_name_loads():
    assert engine.__all__ == sorted(engine.__all__)
    assert set(engine.__all__) == set(engine._HOME)
    assert all(callable(getattr(engine, name)) for name in engine.__all__)


def test_importing_the_package_loads_neither_torch_nor_ray():
    code = "import sys, engine; assert not {'torch', 'ray', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_parts_fit_together():
    rng = np.random.default_rng(0)
    candidates, targets = rng.normal(size=(40, 8)), rng.normal(size=(12, 8))
    candidates, targets = candidates.astype(np.float32), targets.astype(np.float32)
    pairs = np.stack([rng.integers(0, 40, 200), rng.integers(0, 12, 200)], axis=1)
    labels = (candidates[pairs[:, 0]] * targets[pairs[:, 1]]).sum(axis=1)
    network = engine.fit_network(candidates, targets, pairs, labels)
    means = engine.mean_influence(network, candidates, targets)
    influence = engine.predict_influence(network, candidates, targets)
    np.testing.assert_allclose(influence.mean(axis=1), means, atol=1e-5)
    selection = engine.select(influence.clip(0).T, budget=10)
    assert len(set(selection.ranking.tolist())) == 10
