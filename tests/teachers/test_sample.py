import numpy as np
import pytest

from engine.config import SampleConfig
from engine.example import order_hash
from engine.teachers.sample import draw_pairs


def hashes(count, side, seed=0):
    return np.array([order_hash(seed, side, f"row-{i}") for i in range(count)], dtype=np.uint64)


def draw(num_candidates=400, num_targets=120, same_set=False, **settings):
    targets = hashes(num_targets, "target")
    candidates = hashes(num_candidates, "candidate")
    if same_set:
        targets = candidates
    return draw_pairs(candidates, targets, SampleConfig.model_validate(settings), same_set)


@pytest.mark.parametrize("design", ["block", "scattered"])
def test_a_design_spends_u_squared_of_all_pairs(design):
    drawn = draw(fraction=0.1, design=design)
    assert ((drawn.quadrant == 0) | (drawn.quadrant == 1)).sum() == 40 * 12


@pytest.mark.parametrize("design", ["block", "scattered"])
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
    straight = draw_pairs(candidates, targets, settings)
    order_c = np.random.default_rng(1).permutation(400)
    order_t = np.random.default_rng(2).permutation(120)
    shuffled = draw_pairs(candidates[order_c], targets[order_t], settings)

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


@pytest.mark.parametrize("sizes", [(1, 1), (2, 1), (3, 3), (5, 40)])
def test_tiny_sets_give_pairs_without_an_audit_or_none_at_all(sizes):
    drawn = draw(*sizes, fraction=0.5)
    assert len(drawn.candidates) >= 1
    assert drawn.candidates.max() < sizes[0]
    assert drawn.targets.max() < sizes[1]
