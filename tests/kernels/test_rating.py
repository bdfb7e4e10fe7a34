"""SelectIT's three formulas by hand, and their limits."""

import math

import numpy as np
import pytest

from engine.kernels.rating import model_score, sentence_score, token_score


def test_token_score_by_hand():
    # P' = [.1, .1, .2, .5, .1]: base 4, margins .4 + .4 + .3 + 0 + .4
    given = np.array([0.1, 0.1, 0.2, 0.5, 0.1]) / 8  # most of the belief is in other tokens
    assert token_score(given) == pytest.approx(4 * 1.5 / 4)
    assert token_score([0.25, 0.75]) == pytest.approx(2 * 0.5)


def test_a_sure_model_gives_its_digit_and_an_unsure_one_nothing():
    np.testing.assert_allclose(token_score(np.eye(5)), [1, 2, 3, 4, 5])
    assert token_score(np.full(5, 0.01)) == 0.0


def test_of_equal_digits_the_lowest_is_the_base():
    assert token_score([0.0, 0.4, 0.2, 0.4, 0.0]) == pytest.approx(2 * (0.4 + 0.2 + 0.4) / 4)


def test_reference_form_by_hand():
    shares = [0.1, 0.2, 0.7]
    powers = [math.exp(share) for share in shares]
    soft = [power / sum(powers) for power in powers]
    expected = 3 * (2 * soft[2] - soft[0] - soft[1]) / 2
    assert token_score([0.01, 0.02, 0.07], "reference") == pytest.approx(expected)
    most = 5 * (math.e - 1) / (math.e + 4)
    assert token_score([0, 0, 0, 0, 1.0], "reference") == pytest.approx(most)


@pytest.mark.parametrize("form", ["normalised", "reference"])
@pytest.mark.parametrize("bad", [[0.0] * 3, [0.1, math.nan, 0.2], [math.inf, 0.1, 0.1]])
def test_without_belief_there_is_no_score(bad: list[float], form: str):
    scores = token_score([bad, [0.1, 0.1, 0.8]], form)
    assert np.isnan(scores[0]) and scores[1] > 0


def test_sentence_score_by_hand():
    # mean 3, population variance ((-1)^2 + 0 + 1^2) / 3
    assert sentence_score([2.0, 3.0, 4.0], alpha=0.2) == pytest.approx(
        3 / (1 + 0.2 * math.sqrt(2 / 3))
    )
    assert sentence_score([2.0, 3.0, 4.0], alpha=0.0) == 3.0
    assert sentence_score([2.5], alpha=9.0) == 2.5
    np.testing.assert_allclose(sentence_score([[1.0, 1.0], [0.0, 4.0]], 0.5), [1.0, 1.0])


def test_models_weigh_by_their_parameters():
    scores = [[1.0, 4.0], [5.0, 0.0]]
    np.testing.assert_allclose(model_score(scores, [300, 100]), [2.0, 3.0])
    np.testing.assert_allclose(model_score(scores[:1], [7]), [1.0, 4.0])
