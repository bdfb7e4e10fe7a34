import numpy as np

from engine.features.clusters import stratified


def test_every_window_has_the_proportions_of_the_strata():
    strata = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    order = stratified(strata)
    assert sorted(order) == list(range(100))
    for start in range(0, 90, 10):
        counts = np.bincount(strata[order[start : start + 10]], minlength=3)
        np.testing.assert_allclose(counts, [6, 3, 1], atol=1)


def test_within_a_stratum_the_rows_keep_their_order():
    strata = np.array([1, 0, 1, 1, 0])
    order = stratified(strata)
    assert [row for row in order if strata[row] == 1] == [0, 2, 3]
    assert [row for row in order if strata[row] == 0] == [1, 4]


def test_no_rows():
    assert len(stratified(np.empty(0, dtype=np.int64))) == 0


def test_the_order_by_hand():
    # places 1/6, 1/2, 5/6 and, of the stratum of one, 1/2: a small stratum does not come first
    assert stratified(np.array([0, 0, 0, 1])).tolist() == [0, 1, 3, 2]
