"""The account, by hand: prices, both units, what is saved, what must be said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.report.ledger import make_ledger, saved_sentence
from tests.report.synthetic_run import SCORE_USAGE

POINT_USAGE = {
    "features_candidate_calls": 4.0,
    "features_candidate_rows": 4.0,
    "features_candidate_seconds": 8.0,
    "features_candidate_tokens": 400.0,
    "features_target_calls": 2.0,
    "features_target_rows": 2.0,
    "features_target_seconds": 2.0,
    "features_target_tokens": 100.0,
    "pairs_calls": 0.0,
    "pairs_rows": 100.0,
    "pairs_seconds": 1.0,
    "seconds": 11.0,
    "calls": 6.0,
    "tokens": 500.0,
}


def manifests(usage: dict[str, float] = SCORE_USAGE, **changes: Any) -> dict[str, dict[str, Any]]:
    """M = 60 candidates, N = 12 targets, 100 pairs asked."""
    counts: dict[str, dict[str, Any]] = {
        "ingest": {"candidates": 60, "targets": 12},
        "embed": {"candidates": 60, "targets": 12},
        "sample": {"audit_q1_pairs": 5, "audit_q2_pairs": 15, "audit_q3_pairs": 20}
        | {"audit_q4_pairs": 40, "audit_share": 0.8, "pairwise": True},
        "score": {"pairs": 100, "asked_now": int(usage.get("calls", 0))},
    } | changes
    usages = {"embed": {"seconds": 9.0}, "score": usage}
    models = {"embed": {"encoder": "sha256:a"}, "score": {"model": "sha256:b"}}
    return {
        name: {
            "counts": counts[name],
            "usage": usages.get(name, {}),
            "models": models.get(name, {}),
            "wall_seconds": 20.0,
            "settings": {"teacher": {"name": "some_teacher"}},
        }
        for name in counts
    }


def test_a_pair_teacher_is_charged_for_all_pairs_and_the_points_it_needs() -> None:
    ledger = make_ledger(manifests())
    # 5 s / 10 targets, 200 s / 100 pairs; 12 targets and 60 x 12 = 720 pairs
    assert ledger.unit_costs.seconds_per_target == 0.5
    assert ledger.unit_costs.seconds_per_pair == 2.0
    assert ledger.unit_costs.seconds_per_candidate is None
    full = ledger.full_teacher
    assert (full.unit, full.points, full.pairs, full.calls) == ("pair", 12, 720, 732)
    assert full.seconds == 12 * 0.5 + 720 * 2.0 == 1446
    assert full.tokens == 12 * 50 + 720 * 80
    # ingest and sample are charged their wall time, embed and score their worker time
    assert ledger.total_seconds == 20 + 9 + 20 + 205
    assert ledger.wall_seconds == 80
    assert ledger.saved == pytest.approx(1 - 254 / 1446)
    assert "82 % saved".replace(" %", "\N{NO-BREAK SPACE}%") in saved_sentence(ledger)


def test_the_audit_is_counted_apart() -> None:
    ledger = make_ledger(manifests())
    assert (ledger.audit_pairs, ledger.pairs, ledger.audit_share) == (80, 100, 0.8)


def test_a_point_teacher_is_charged_for_points_alone() -> None:
    ledger = make_ledger(manifests(POINT_USAGE))
    full = ledger.full_teacher
    assert (full.unit, full.points, full.pairs, full.calls) == ("point", 72, 0, 72)
    assert full.seconds == 60 * 2.0 + 12 * 1.0
    assert any("per point" in remark for remark in ledger.remarks)


def test_a_corpus_that_is_its_own_target_has_each_point_once_if_one_feature_serves_both() -> None:
    own = {"ingest": {"candidates": 60}}
    ledger = make_ledger(manifests(POINT_USAGE, **own))
    assert ledger.full_teacher.points == 120
    assert ledger.full_teacher.seconds == 60 * 2.0 + 60 * 1.0
    score = {"pairs": 100, "asked_now": 6, "same_features": True}
    ledger = make_ledger(manifests(POINT_USAGE, score=score, **own))
    assert ledger.full_teacher.points == 60
    assert ledger.full_teacher.seconds == pytest.approx(60 * 10 / 6)
    assert ledger.all_pairs == 3600


def test_a_teacher_of_rows_is_charged_by_the_row_whatever_it_asks_of_each() -> None:
    found = manifests(
        {
            "features_candidate_rows": 4.0,
            "features_candidate_calls": 20.0,
            "features_candidate_seconds": 8.0,
            "pairs_rows": 4.0,
            "pairs_seconds": 0.0,
            "seconds": 8.0,
            "calls": 20.0,
        }
    )
    found["sample"]["counts"]["pairwise"] = False
    ledger = make_ledger(found)
    full = ledger.full_teacher
    assert (full.unit, full.points, full.calls, full.seconds) == ("point", 60, 300, 120.0)
    assert ledger.all_pairs == 60


def test_what_a_teacher_prepares_is_charged_to_both() -> None:
    plain = make_ledger(manifests(POINT_USAGE)).full_teacher
    prepared = {"prepared_seconds": 30.0, "prepared_calls": 5.0, "prepared_tokens": 50.0}
    full = make_ledger(manifests({**POINT_USAGE, **prepared})).full_teacher
    assert full.seconds - plain.seconds == 30
    assert (full.calls - plain.calls, full.tokens - plain.tokens) == (5, 50)


def test_loss_is_said_in_words() -> None:
    ledger = make_ledger(manifests({**POINT_USAGE, "seconds": 200.0}))
    assert ledger.saved is not None and ledger.saved < 0
    assert saved_sentence(ledger).startswith("Nothing was saved")


def test_the_same_encoder_cannot_save_anything() -> None:
    found = manifests(POINT_USAGE)
    found["score"]["models"] = {"model": "sha256:a"}
    ledger = make_ledger(found)
    assert ledger.same_encoder
    # all that the full teacher would cost is embedding, which the run does too
    assert ledger.full_teacher.seconds == 9.0 and ledger.saved is not None and ledger.saved < 0
    assert saved_sentence(ledger).startswith("Nothing was saved")
    assert "nothing can be saved" in ledger.remarks[0]
    # what this run asked is what it asked, whatever asking about everything would cost
    asked = (ledger.teacher_seconds, ledger.teacher_calls, ledger.teacher_tokens)
    assert asked == (11.0, 6, 500)
    assert not make_ledger(manifests(POINT_USAGE)).same_encoder


def test_a_cheaper_teacher_cannot_save_anything() -> None:
    found = manifests(POINT_USAGE)
    found["embed"]["usage"]["seconds"] = 72 * 10 / 6
    assert "nothing can be saved" in make_ledger(found).remarks[0]


def test_a_pair_teacher_may_share_the_students_model() -> None:
    found = manifests()
    found["score"]["models"] = {"model": "sha256:a"}
    assert not make_ledger(found).same_encoder


def test_remembered_answers_are_mentioned() -> None:
    found = manifests(score={"pairs": 100, "asked_now": 10})
    assert any("100 of the 110 answers" in remark for remark in make_ledger(found).remarks)


def test_a_teacher_without_a_price() -> None:
    ledger = make_ledger(manifests({"seconds": 0.0, "calls": 0.0, "pairs_seconds": 0.0}))
    assert ledger.saved is None
    assert "could not be measured" in saved_sentence(ledger)
    assert any("asks no model" in remark for remark in ledger.remarks)
    json.dumps(ledger.to_dict(), allow_nan=False)
