"""Measures of single answers, by hand."""

import numpy as np
import pytest

from engine.evaluation.metrics import derangement, rouge1, similarity


class Letters:
    """An encoder whose vector is the counts of a, b and c, of unit length."""

    def encode(self, texts, batch_size):
        counts = np.array([[t.count(letter) for letter in "abc"] for t in texts], np.float32)
        self.vectors = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
        return self


def test_rouge_is_the_f_of_words():
    found = rouge1(["the cat sat", "", "dog"], ["the cat ran away", "something", "dog"])
    precision, recall = 2 / 3, 2 / 4
    assert found == pytest.approx([200 * precision * recall / (precision + recall), 0, 100])


def test_similarity_and_its_floor():
    values, floor = similarity(Letters(), ["a", "b", "c"], ["a", "b", "a"], seed=0)
    assert values.tolist() == [100, 100, 0]
    others = derangement(3, 0)
    references = np.array(["a", "b", "a"])[others]
    expected = [100.0 * (m == r) for m, r in zip("abc", references, strict=True)]
    assert floor.tolist() == expected


def test_one_row_has_no_floor():
    values, floor = similarity(Letters(), ["a"], ["a"], seed=0)
    assert values.tolist() == [100] and np.isnan(floor).all()


@pytest.mark.parametrize("n", [2, 3, 10, 101])
def test_nobody_gets_the_own_reference(n):
    for seed in range(20):
        others = derangement(n, seed)
        assert sorted(others) == list(range(n)) and (others != np.arange(n)).all()
