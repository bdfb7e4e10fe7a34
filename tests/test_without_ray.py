"""The science, and a run in this process, where neither Ray nor FAISS is installed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

HIDE = """
import importlib.util
import sys

hidden = {"ray", "faiss"}


class Hiding:
    '''A finder of modules that does not find those.'''

    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in hidden:
            return self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
assert not any(importlib.util.find_spec(name) for name in hidden)
"""

SCIENCE = """
import numpy as np
import engine

rng = np.random.default_rng(0)
candidates, targets = rng.normal(size=(120, 8)), rng.normal(size=(20, 8))
candidates, targets = candidates.astype(np.float32), targets.astype(np.float32)
truth = candidates @ targets.T
pairs = np.argwhere(np.ones((80, 12), bool))
labels = truth[tuple(pairs.T)]

network = engine.fit_network(candidates, targets, pairs, labels, seed=0)
influence = engine.predict_influence(network, candidates, targets)
unseen = np.argwhere(np.ones((120, 20), bool))
unseen = unseen[(unseen[:, 0] >= 80) & (unseen[:, 1] >= 12)]
guesses = {"student": influence[tuple(unseen.T)]}
audit = engine.audit_predictions(guesses, truth[tuple(unseen.T)], unseen)
assert audit.to_dict()["spearman"] > 0.5, audit.to_dict()["spearman"]
means = engine.mean_influence(network, candidates, targets)
np.testing.assert_allclose(influence.mean(axis=1), means, atol=1e-5)
best = engine.top_candidates(network, candidates, targets, k=3)
assert (best.ids[:, 0] == influence.argmax(axis=0)).all()

vectors = np.tanh(candidates)
student = engine.VectorStudent.fit(candidates[:80], vectors[:80], similarity="cosine", seed=0)
predicted = engine.predict_influence(student, candidates, np.tanh(targets))
assert predicted.shape == (120, 20)
assert np.corrcoef(predicted[80:].ravel(), truth[80:].ravel())[0, 1] > 0.8

kernel = influence.T - influence.min()
assert len(set(engine.select(kernel, budget=10).ranking)) == 10
"""

RUN = """
import json
from engine.config import parse_config
from engine.stages.pipeline import run

config = parse_config(json.loads(sys.argv[1]))
done = run(config, run_dir=sys.argv[2], until="predict", executor="local")
assert done.artifact("6-influence").counts["candidates"] == 300
hidden.remove("faiss")  # the last stages look for similar rows, with FAISS
done = run(config, run_dir=sys.argv[2], executor="local")
assert done.artifact("7-selection").counts["selected"] == 30 and done.artifact("8-report")
"""


def python(code, *arguments):
    command = [sys.executable, "-c", HIDE + code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_fit_audit_predict_and_select_on_arrays():
    python(SCIENCE)


def test_a_run_in_this_process(small_job, tmp_path):
    python(RUN, json.dumps(small_job), tmp_path / "run")
