"""The fit of prompt and response: cosines of embeddings that are there, of every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.artifacts.files import read_table
from engine.artifacts.rows import VectorParts
from engine.config import parse_config
from engine.errors import SettingsError
from engine.stages.pipeline import run
from engine.teachers.fit_labels import cosines


def test_cosines_by_hand() -> None:
    prompts = np.array([[1, 0], [1, 1], [0, 0], [3, 4]], np.float32)
    responses = np.array([[0, 2], [2, 2], [1, 0], [4, 3]], np.float32)
    np.testing.assert_allclose(cosines(prompts, responses), [0, 1, np.nan, 0.96], atol=1e-7)


def test_every_row_has_a_score_and_none_is_paid_for(
    small_job: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {k: v for k, v in small_job.items() if k not in ("sample", "teacher")}
    directory = run(parse_config({**job, "run_dir": str(tmp_path), "teacher": {"name": "fit"}}))
    score, embed = directory.artifact("4-teacher"), directory.artifact("2-embeddings")
    assert score.manifest["usage"]["calls"] == 0 and score.counts["asked_now"] == 0
    labels = read_table(score.path("labels"))
    rows = np.arange(300)
    sides = [VectorParts(embed, f"candidates-{side}").take(rows) for side in ("prompt", "response")]
    np.testing.assert_array_equal(labels["score"].to_numpy(), cosines(*sides))
    picks = read_table(directory.artifact("7-selection").path("ranking"))["row"].to_numpy()
    best = np.argsort(-labels["score"].to_numpy(), kind="stable")[: len(picks)]
    assert set(picks) == set(best)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"features": ["text"]}, "add agreement to features"),
        ({"sample": {"fraction": 0.2}}, "leave out sample.fraction"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], said: str) -> None:
    job = {"corpus": {"path": "x.jsonl"}, "teacher": {"name": "fit"}, **settings}
    with pytest.raises(SettingsError, match=said):
        parse_config(job)
