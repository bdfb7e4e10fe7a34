"""Baselines on pools so small that the picks are plain."""

import math

import numpy as np
import pytest

from engine.errors import SettingsError
from engine.example import Example, content_key
from engine.selection import baselines
from engine.selection.baselines import BASELINES, NEED_TARGETS, Pool, ranking, require


def row(instruction: str, output: str) -> Example:
    key = content_key(instruction, "", output)
    return Example(key[:8], key, instruction, "", output)


CANDIDATES = [
    row("name the red apple", "apple"),  # 0
    row("the river runs", "to the sea"),  # 1
    row("the weather of today", "sunny, and later on rain"),  # 2
    row("apple pie with apple and apple", "bake"),  # 3
    row("a river", "water"),  # 4
    row("xx yy", "zz"),  # 5: shares no word with anything
]
TARGETS = [row("which apple", "apple"), row("how long is the river", "river")]


def pool(**rest) -> Pool:
    return Pool(np.arange(6, dtype=np.uint64)[::-1].copy(), CANDIDATES, TARGETS, **rest)


def picks(name: str, budget: int, **rest) -> list[int]:
    return ranking(name, pool(**rest), budget).tolist()


def test_random_rows_are_those_of_the_smallest_hashes():
    assert picks("random", 3) == [5, 4, 3]


def test_balanced_takes_a_row_of_each_source_in_turn():
    sources = ["a", "a", "a", "a", "b", "c"]
    assert picks("balanced", 3, sources=sources) == [5, 4, 3]
    # b and c are exhausted: the rest is from a, in its order
    assert picks("balanced", 6, sources=sources) == [5, 4, 3, 2, 1, 0]
    assert picks("balanced", 4, sources=["a", "a", "b", "b", "b", "b"]) == [5, 1, 4, 0]


def test_the_longest_responses():
    assert picks("length", 2) == [2, 1]


def test_perplexity_by_hand():
    losses = np.array([3.0, 1.0, 2.0, np.nan, 9.0, 0.5], np.float32)
    assert picks("perplexity_top", 3, losses=losses) == [4, 0, 2]
    # in order: 5, 1, 2, 0, 4: the middle is 2, beside it 1 and 0
    found = picks("perplexity_middle", 3, losses=losses)
    assert found[0] == 2 and set(found[1:]) == {0, 1}
    assert picks("perplexity_top", 6, losses=losses)[-1] == 3
    assert picks("perplexity_middle", 6, losses=losses)[-1] == 3
    assert sorted(picks("perplexity_top", 6, losses=np.full(6, np.nan, np.float32))) == list(
        range(6)
    )


def slow_bm25(rows: list[str], query: str) -> list[float]:
    """Lucene's BM25, k1 1.5, b 0.75, word by word; as often as the query says a word."""
    words = [[w for w in text.replace(",", " ").split() if len(w) > 1] for text in rows]
    mean = sum(map(len, words)) / len(words)
    scores = [0.0] * len(rows)
    for word in [w for w in query.split() if len(w) > 1]:
        found = sum(word in some for some in words)
        idf = math.log(1 + (len(rows) - found + 0.5) / (found + 0.5))
        for i, some in enumerate(words):
            count = some.count(word)
            scores[i] += idf * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(some) / mean))
    return scores


def test_bm25_is_lucenes():
    pytest.importorskip("bm25s")
    texts = [f"{r.prompt} {r.output}" for r in CANDIDATES]
    found = baselines._bm25(pool())
    for column, target in enumerate(TARGETS):
        expected = slow_bm25(texts, f"{target.prompt} {target.output}")
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-5)
    order = np.argsort(-found.mean(axis=1), kind="stable")
    assert picks("bm25", 4) == order[:4].tolist()


@pytest.mark.parametrize("name", ["bm25_round_robin", "tf_idf_round_robin"])
def test_targets_take_turns(name: str):
    pytest.importorskip("bm25s")
    found = picks(name, 6)
    about_apples, about_rivers = {0, 3}, {1, 4}
    for pair in (found[:2], found[2:4]):  # one for each in every round
        assert len(about_apples & set(pair)) == 1 and len(about_rivers & set(pair)) == 1
    assert found[-1] == 5  # nothing for anybody


def test_tf_idf_is_the_cosine_of_words():
    rows = [row("cat", "dog"), row("cat", "cat"), row("emu", "fox")]
    targets = [row("dog", "")]
    found = baselines._tf_idf(Pool(np.arange(3, dtype=np.uint64), rows, targets))[:, 0]
    cat, dog = math.log(4 / 3) + 1, math.log(4 / 2) + 1  # in 2 and in 1 of 3 rows
    np.testing.assert_allclose(found, [dog / math.hypot(cat, dog), 0, 0], rtol=1e-6)
    assert picks("tf_idf", 1)[0] in (0, 3)


def test_cosine_takes_turns():
    angles = np.array([0.0, 0.1, 0.2, 1.4, 1.5, 0.8])
    units = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    targets = np.eye(2, dtype=np.float32)
    found = picks("cosine", 4, embeddings=units, target_embeddings=targets)
    assert {*found[:2]} == {0, 4} and {*found[2:]} == {1, 3}


@pytest.mark.parametrize("name", BASELINES)
def test_a_smaller_budget_is_the_head_of_a_larger_one(name: str):
    if name.startswith("bm25"):
        pytest.importorskip("bm25s")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((8, 4)).astype(np.float32)
    rest = {
        "embeddings": vectors[:6], "target_embeddings": vectors[6:], "sources": list("aabbbc"),
        "losses": rng.random(6).astype(np.float32),
    }  # fmt: skip
    whole = picks(name, 6, **rest)
    assert sorted(whole) == list(range(6))
    for budget in range(1, 6):
        assert picks(name, budget, **rest) == whole[:budget]


def test_what_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    real = baselines.find_spec
    monkeypatch.setattr(
        baselines, "find_spec", lambda name: None if name == "bm25s" else real(name)
    )
    require(["tf_idf", "length"])
    with pytest.raises(SettingsError, match=r"^bm25_round_robin needs bm25s: pip install bm25s$"):
        require(["length", "bm25_round_robin"])


@pytest.mark.parametrize("name", ["bm25", "tf_idf"])
def test_rows_without_words_say_so(name: str):
    pytest.importorskip("bm25s")
    nothing = Pool(np.arange(2, dtype=np.uint64), [row("?", "!"), row("a", "b")], TARGETS)
    with pytest.raises(SettingsError, match=f"{name}: the candidates hold no word"):
        ranking(name, nothing, 1)


def test_names():
    assert set(NEED_TARGETS) < set(BASELINES)
