"""How long the rest takes, told from when pieces of work ended. Time is made up."""

import pytest

from engine.terminal.rates import Rate


def pool(workers, seconds, units, pieces, warm_up=0.0, spread=0.0):
    """(time, units) of pieces that workers finish: bursts, after a warm-up."""
    ends = []
    for piece in range(pieces):
        generation, worker = divmod(piece, workers)
        ends.append((warm_up + seconds * (generation + 1) + spread * worker, units))
    return sorted(ends)


def etas(ends, started=0.0, every=1):
    """(when, how long it says, how long it took) after every end, or some, but the last."""
    rate = Rate(started)
    left = sum(units for _, units in ends)
    for number, (when, units) in enumerate(ends):
        rate.count(units, started + when)
        left -= units
        if left and number % every == 0:
            yield when, rate.eta(left, started + when), ends[-1][0] - when


def test_nothing_is_known_before_the_first_unit():
    rate = Rate(100.0)
    assert rate.at(500.0) is None and rate.eta(10, 500.0) is None
    assert rate.eta(0, 500.0) == 0.0


def test_steady_work_is_told_exactly():
    for _, told, true in etas([(float(i + 1), 3) for i in range(2000)], 50.0, 7):
        assert told == pytest.approx(true)


def test_loading_a_model_is_not_blamed_on_the_units():
    """Five minutes of loading before rows that take a second each: right after a quarter more."""
    ends = [(300.0 + i + 1, 1) for i in range(3000)]
    for when, told, true in etas(ends, every=7):
        if when > 300 * 1.3:
            assert told == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("workers", [1, 4, 64])
@pytest.mark.parametrize("warm_up", [0.0, 20.0, 300.0])
def test_bursts_of_a_pool_are_not_taken_for_speed(workers, warm_up):
    """From the second burst on, within a factor of two; from the sixth on, within a quarter."""
    ends = pool(workers, 60.0, 10, workers * 40, warm_up, spread=0.5 / workers)
    last_burst = ends[-1][0] - 60
    for when, told, true in etas(ends, every=3 if workers == 64 else 1):
        generation = (when - warm_up) / 60
        if when > last_burst - 60:
            break
        if generation >= 2.1:
            assert true / 2 < told + 60 and told < 2 * true + 60, (generation, told, true)
        if generation >= 6:
            assert told == pytest.approx(true, rel=0.25, abs=60), (generation, told, true)


def test_a_pool_that_grows_is_noticed():
    """After an hour of one row a second come ten a second; soon the rest is told by those."""
    ends = [(float(i + 1), 1) for i in range(3600)]
    ends += [(3600 + (i + 1) / 10, 1) for i in range(108_000)]
    late = [(eta, true) for when, eta, true in etas(ends, every=1000) if when > 7920]
    assert len(late) > 50
    for eta, true in late:
        assert eta == pytest.approx(true, rel=0.05, abs=1)


def test_time_passes_between_two_ends_and_a_stall_is_noticed():
    rate = Rate(0.0)
    for i in range(10):
        rate.count(1, 100.0 * (i + 1))
    assert rate.eta(10, 1000.0) == pytest.approx(1000)
    assert rate.eta(10, 1060.0) == pytest.approx(940)
    assert rate.eta(10, 1100.0) == pytest.approx(900)
    stalled = [rate.eta(10, 1100.0 + 100 * i) for i in range(20)]
    assert stalled == sorted(stalled) and stalled[-1] > 2000
    assert rate.at(3000.0) < 0.5 * rate.at(1000.0)


def test_memory_does_not_grow():
    rate = Rate(0.0)
    for i in range(100_000):
        rate.count(1, float(i + 1))
    assert len(rate._moments) <= 512
    assert rate.at(100_000.0) == pytest.approx(1.0)
