import numpy as np
import pytest

from engine.config import SampleConfig
from engine.example import order_hash
from engine.teachers.designs import Side, draw_pairs, draw_points


def hashes(count, side, seed=0):
    return np.array([order_hash(seed, side, f"row-{i}") for i in range(count)], dtype=np.uint64)


def side(count, name, design):
    strata = np.arange(count) % 5 if design == "stratified" else None
    return Side(hashes(count, name), strata)


def draw(num_candidates=400, num_targets=120, same_set=False, unit="pair", **settings):
    design = settings.get("design", "scattered")
    targets = side(num_targets, "target", design)
    candidates = side(num_candidates, "candidate", design)
    if same_set:
        targets = candidates
    return draw_pairs(candidates, targets, SampleConfig.model_validate(settings), unit, same_set)


@pytest.mark.parametrize("design", ["block", "scattered", "stratified"])
def test_a_design_spends_u_squared_of_all_pairs(design):
    drawn = draw(fraction=0.1, design=design)
    assert ((drawn.quadrant == 0) | (drawn.quadrant == 1)).sum() == 40 * 12


@pytest.mark.parametrize("design", ["block", "scattered", "stratified"])
@pytest.mark.parametrize("same_set", [False, True])
def test_quadrants_are_what_their_names_say(design, same_set):
    drawn = draw(fraction=0.1, design=design, same_set=same_set)
    train = drawn.quadrant == 0
    seen_c, seen_t = set(drawn.candidates[train]), set(drawn.targets[train])
    if same_set:
        seen_c = seen_t = seen_c | seen_t
        assert (drawn.candidates != drawn.targets).all()
    for quadrant, c_seen, t_seen in ((2, True, False), (3, False, True), (4, False, False)):
        rows = drawn.quadrant == quadrant
        assert rows.any()
        if not c_seen:
            assert not seen_c & set(drawn.candidates[rows])
        if not t_seen:
            assert not seen_t & set(drawn.targets[rows])


def test_unseen_candidates_meet_the_same_targets_so_that_their_means_compare():
    drawn = draw(fraction=0.1, audit={"candidates": 9, "targets": 6})
    rows = drawn.quadrant >= 3
    candidates, targets = set(drawn.candidates[rows]), set(drawn.targets[rows])
    assert (len(candidates), len(targets), rows.sum()) == (9, 12, 9 * 12)


def test_no_pair_is_drawn_twice():
    drawn = draw(fraction=0.1)
    assert len(set(zip(drawn.candidates, drawn.targets, strict=True))) == len(drawn.candidates)


def test_the_draw_follows_ids_and_not_positions():
    candidates, targets = hashes(400, "candidate"), hashes(120, "target")
    settings = SampleConfig.model_validate({"fraction": 0.1})
    straight = draw_pairs(Side(candidates), Side(targets), settings)
    order_c = np.random.default_rng(1).permutation(400)
    order_t = np.random.default_rng(2).permutation(120)
    shuffled = draw_pairs(Side(candidates[order_c]), Side(targets[order_t]), settings)

    def named(drawn, c_of, t_of):
        rows = zip(c_of[drawn.candidates], t_of[drawn.targets], drawn.quadrant, strict=True)
        return {(c, t, int(q)) for c, t, q in rows}

    assert named(straight, candidates, targets) == named(
        shuffled, candidates[order_c], targets[order_t]
    )


def test_scattered_reaches_more_rows_for_the_same_calls():
    block, scattered = draw(fraction=0.1, design="block"), draw(fraction=0.1, design="scattered")
    targets_of = [len(set(d.targets[d.quadrant == 0])) for d in (block, scattered)]
    assert targets_of[1] > 5 * targets_of[0]


@pytest.mark.parametrize("design", ["block", "scattered", "stratified"])
@pytest.mark.parametrize("unit", ["pair", "point"])
def test_a_larger_share_asks_for_all_that_a_smaller_one_did(design, unit):
    """Of the audit too: it grows, and what was paid for is used."""
    small, large = (draw(fraction=u, design=design, unit=unit) for u in (0.05, 0.1))
    for quadrants in ((0, 1), (3, 4)):
        pairs = [
            {(c, t) for c, t, q in zip(*vars(d).values(), strict=True) if q in quadrants}
            for d in (small, large)
        ]
        assert pairs[0] < pairs[1] or (pairs[0] == pairs[1] and quadrants == (3, 4))


@pytest.mark.parametrize("same_set", [False, True])
@pytest.mark.parametrize("unit", ["pair", "point"])
@pytest.mark.parametrize("sizes", [(30, 30), (60, 20), (400, 120), (1000, 1000)])
def test_the_audit_takes_no_more_than_its_share_of_the_calls(sizes, unit, same_set):
    shares = []
    for most in (0.1, 1 / 3, 0.5, 0.99):
        audit = {"max_share": most}
        drawn = draw(*sizes, same_set, unit, fraction=0.1, held_out=0.05, audit=audit)
        shares.append(drawn.audit_share(unit, same_set))
        assert shares[-1] <= most + 0.01
    assert shares == sorted(shares) and shares[-1] > 0
    if sizes == (1000, 1000) and unit == "pair" and not same_set:
        assert shares[2] == pytest.approx((0.05 * 10_000 + 1440) / (10_000 + 1440), abs=0.001)


def test_what_the_audit_leaves_is_not_learned_from():
    """Else a larger audit of a larger share would hold rows that the smaller one trained on."""
    all_of_it, little = (draw(fraction=0.1, audit={"max_share": most}) for most in (0.99, 0.15))
    learned = [set(zip(d.candidates, d.targets, strict=True)) for d in (all_of_it, little)]
    training = [
        {(c, t) for c, t, q in zip(*vars(d).values(), strict=True) if q == 0}
        for d in (all_of_it, little)
    ]
    assert training[0] == training[1] and learned[1] < learned[0]


@pytest.mark.parametrize("design", ["block", "scattered", "stratified"])
def test_a_teacher_paid_by_the_point_sees_few_points_and_all_their_pairs(design):
    drawn = draw(fraction=0.1, design=design, unit="point", audit={"candidates": 9, "targets": 6})
    asked = drawn.quadrant <= 1
    points = len(set(drawn.candidates[asked])), len(set(drawn.targets[asked]))
    # what is paid for is audited in full
    audited = [(drawn.quadrant == q).sum() for q in (1, 2, 3, 4)]
    if design == "block":  # as published
        assert points == (40, 12) and asked.sum() == 40 * 12
        assert audited == [48, 40 * 6, 9 * 12, 9 * 6]
        return
    assert points == (40, 120) and asked.sum() == 40 * 120
    assert audited == [0, 0, 9 * 120, 0]
    few = {"fraction": 0.1, "design": design, "max_targets": 50}
    capped = draw(**few, unit="point", audit={"candidates": 9, "targets": 6})
    audited = [(capped.quadrant == q).sum() for q in (0, 1, 2, 3, 4)]
    assert audited == [40 * 50, 0, 40 * 6, 9 * 50, 9 * 6]
    own = draw(**few, unit="point", same_set=True)
    assert len(set(own.targets[own.quadrant == 0])) == 40  # the asked rows are both sides


def test_everything_is_every_pair_and_no_audit():
    drawn = draw(20, 7, fraction=1.0)
    assert (drawn.quadrant == 0).all()
    assert list(zip(drawn.candidates, drawn.targets, strict=True)) == [
        (c, t) for c in range(20) for t in range(7)
    ]


@pytest.mark.parametrize("design", ["block", "stratified"])
def test_points_for_a_teacher_of_rows(design):
    settings = SampleConfig.model_validate({"fraction": 0.1, "design": design})
    drawn = draw_points(side(400, "candidate", design), settings)
    counts = [(drawn.quadrant == q).sum() for q in (0, 4)]
    assert counts == [40, 19] and len(set(drawn.candidates)) == 59
    assert (drawn.targets == 0).all()


def test_a_stratified_draw_keeps_the_proportions_of_the_strata():
    strata = np.repeat([0, 1, 2], [240, 120, 40])
    candidates = Side(hashes(400, "candidate"), strata)
    settings = SampleConfig.model_validate({"fraction": 0.1, "design": "stratified"})
    drawn = draw_pairs(candidates, Side(hashes(50, "target"), np.arange(50) % 5), settings)
    asked = drawn.quadrant <= 1
    chosen = np.bincount(strata[np.unique(drawn.candidates[asked])])
    np.testing.assert_allclose(chosen / chosen.sum(), [0.6, 0.3, 0.1], atol=0.03)


@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (3, 3), (5, 40)])
def test_tiny_sets_give_pairs_without_an_audit_or_none_at_all(sizes):
    drawn = draw(*sizes, fraction=0.5)
    assert len(drawn.candidates) >= 1
    assert drawn.candidates.max() < sizes[0]
    assert drawn.targets.max() < sizes[1]
