"""auto: who may learn what, and that the best of them is taken."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from engine.config import NetworkConfig, StudentConfig
from engine.errors import InputError, SettingsError
from engine.kernels.ranks import order_within_targets
from engine.network.training_set import TrainingSet
from engine.students import choice as choosing
from engine.students.choice import choose, prepared
from tests.students.problems import problem

NETWORK = NetworkConfig.model_validate({"epochs": 10, "patience": 5})


def score(contender):
    return contender.score


def chosen(kind: str, seed: int = 0, **settings):
    data, _ = problem(kind)
    return choose(data, StudentConfig(**settings), NETWORK, seed)


def test_vectors_are_learned_where_there_are_any():
    choice = chosen("vectors")
    assert choice.student == "vectors", "preferred where it is not surely behind"
    learned = {one.student: one.score for one in choice.contenders}
    assert learned["vectors"] > learned["cosine"]
    tried = {one.student for one in choice.contenders}
    assert tried == {"vectors", "linear", "cosine"}, "what learns scores is behind"
    beside = chosen("vectors", contenders=("vectors", "kernel")).contenders
    assert [one.student for one in beside] == ["vectors", "kernel"], "best first"
    scores = [one.score for one in choice.contenders]
    assert scores == sorted(scores, reverse=True)
    assert choice == chosen("vectors")


def test_what_is_surely_behind_is_not_taken_however_preferred():
    assert chosen("vectors", contenders=("cosine", "vectors")).student == "vectors"


def test_the_network_contends_where_pairs_are_what_there_is():
    choice = chosen("pairs")
    tried = {(one.student, one.labels) for one in choice.contenders}
    assert {("kernel", "raw"), ("kernel", "clipped"), ("kernel", "ranks")} < tried
    (learned,) = {labels for name, labels in tried if name == "network"}
    best = max((c for c in choice.contenders if c.student in ("kernel", "linear")), key=score)
    assert learned == best.labels, "the dear one is tried on what served the others best"
    assert ("cosine", "raw") in tried and ("cosine", "ranks") not in tried
    raw = chosen("pairs", labels="raw", contenders=("kernel", "linear"))
    assert {(one.student, one.labels) for one in raw.contenders} == {
        ("kernel", "raw"),
        ("linear", "raw"),
    }


def test_rows_are_learned_without_a_cosine():
    assert {one.student for one in chosen("rows").contenders} == {"kernel", "linear"}


def test_a_teacher_that_is_the_cosine_is_learned_by_the_cosine():
    data, _ = problem("block")
    sides = [
        side / np.linalg.norm(side, axis=1, keepdims=True)
        for side in (data.candidates, data.targets)
    ]
    labels = (sides[0] @ sides[1].T)[data.pairs[:, 0], data.pairs[:, 1]]
    data = dataclasses.replace(data, labels=labels.astype(np.float32))
    choice = choose(data, StudentConfig(), NETWORK, 0)
    assert choice.contenders[0].student == "cosine"
    assert choice.contenders[0].score > 0.999
    (taken,) = (one for one in choice.contenders if one.student == choice.student)
    assert taken.score > 0.95, "another is taken only where it is not surely behind"


def test_a_named_student_is_taken_without_a_contest():
    assert chosen("block", name="linear").contenders == ()
    assert chosen("pairs", name="linear").student == "linear"  # but the form of its labels is tried
    assert len(chosen("pairs", name="linear").contenders) == 3
    with pytest.raises(InputError, match="student vectors cannot learn from these answers"):
        chosen("block", name="vectors")
    with pytest.raises(InputError, match="this teacher scores rows, not pairs"):
        chosen("rows", name="cosine")
    with pytest.raises(SettingsError, match="none of vectors, cosine can learn"):
        chosen("rows", contenders=("vectors", "cosine"))


def test_too_few_candidates_to_hold_any_out():
    data, _ = problem("block")
    few = data.of_candidates(np.arange(6))
    assert choose(few, StudentConfig(), NETWORK, 0).contenders == ()


def test_forms_of_labels():
    data, _ = problem("pairs")
    data.labels[:3] = 50.0
    clipped, ranks = prepared(data, "clipped").labels, prepared(data, "ranks").labels
    assert clipped.max() < 50 and (clipped[3:] <= data.labels[3:].max()).all()
    assert np.array_equal(np.argsort(ranks[3:]), np.argsort(data.labels[3:], kind="stable"))
    assert ranks.mean() == pytest.approx(clipped.mean(), abs=0.02)
    assert prepared(data, "raw") is data


def test_orders_are_within_targets_and_of_means():
    rng = np.random.default_rng(0)
    pairs = np.argwhere(np.ones((30, 8), bool))
    own = rng.normal(size=30)[pairs[:, 0]]
    of_target = 100 * rng.normal(size=8)[pairs[:, 1]]
    labels = (own + of_target).astype(np.float32)
    assert order_within_targets(labels, labels, pairs) == pytest.approx((1.0, 1.0))
    # who knows the targets alone knows nothing of what selection needs
    assert order_within_targets(of_target.astype(np.float32), labels, pairs) == (0.0, 0.0)
    assert order_within_targets(own.astype(np.float32), labels, pairs) == pytest.approx(
        (1.0, 1.0), abs=1e-3
    )


def test_who_is_surely_behind_the_cosine_is_never_chosen():
    """The cosine and what leans on it are told apart by little, both from another by much."""
    data, _ = problem("block")
    everything, num_asked = np.ones(len(data.labels), bool), len(data.candidates)
    fold_of = np.zeros(len(data.labels), np.int64)
    names = ("vectors", "kernel", "cosine")  # the order of preference
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shared, own, more = rng.normal(size=(3, len(data.labels))) * data.labels.std()
        of_shared, of_own = (
            0.5 * data.labels.std() * rng.normal(size=(2, num_asked))[:, data.pairs[:, 0]]
        )
        size, apart = rng.uniform(0.5, 3), rng.uniform(0.2, 0.6)
        cosine = data.labels + size * shared + of_shared
        guesses = {
            "cosine": cosine,
            "vectors": cosine + apart * size * more,
            "kernel": data.labels + 0.9 * size * own + of_own,
        }
        tried = {
            name: choosing._Tried(
                name, "raw", values, fold_of, *choosing._orders(values, fold_of, data, everything)
            )
            for name, values in guesses.items()
        }
        student = choosing._chosen(list(tried.values()), data, names).student
        by, error = choosing._behind(tried[student], tried["cosine"], data)
        assert by <= choosing._SURELY * error, f"draw {seed}: {student} is behind by {by:.3f}"


@pytest.mark.parametrize("seed", range(3))
def test_learning_what_a_target_is_worth_is_no_disadvantage(seed):
    """Few labels for each target, and nothing to learn but targets' worth: no student orders
    candidates within a target, and none may look worse than the cosine, which learns nothing.
    """
    chooser = np.random.default_rng(seed)
    m, n, each = 100, 200, 16
    worth = chooser.normal(size=n)
    pairs = np.array([(c, t) for c in range(m) for t in chooser.permutation(n)[:each]])
    labels = worth[pairs[:, 1]] + 0.3 * chooser.normal(size=len(pairs))
    sides = [chooser.normal(size=(rows, 24)).astype(np.float32) for rows in (m, n)]
    data = TrainingSet(*sides, pairs, labels.astype(np.float32), text_dim=24)
    settings = StudentConfig(contenders=("kernel", "linear", "cosine"), labels="raw")
    found = choose(data, settings, NETWORK, seed)
    assert all(abs(one.within) < 0.1 for one in found.contenders), found.contenders
    assert found.student != "cosine", "preferred last"
