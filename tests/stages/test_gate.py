"""The gate after the fit, on a pipeline of two stages that need neither Ray nor a model."""

import pytest

from engine.artifacts.files import write_json
from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import RunDirectory
from engine.audit.verdict import Look
from engine.config import Config
from engine.errors import FidelityError, RunDirectoryError
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.stages import pipeline

TRUSTED_FROM = 0.1


def sample(context: StageContext) -> StageResult:
    path = context.directory / "pairs.json"
    write_json(path, context.config.sample.fraction)
    return StageResult(parts={"pairs": [finish_part(context.directory, path, 1)]})


def fit(context: StageContext, look: Look | None = None) -> StageResult:
    look = look or Look()
    trusted = context.config.sample.fraction >= TRUSTED_FROM
    path = context.directory / "fidelity.json"
    write_json(path, {"trusted": trusted, "reasons": ["it knows nothing"]})
    parts = {"fidelity": [finish_part(context.directory, path, 1)]}
    return StageResult(parts=parts, counts={"trusted": trusted, "look": [look.number, look.of]})


def predict(context: StageContext) -> StageResult:
    return sample(context)


@pytest.fixture(autouse=True)
def three_stages(monkeypatch):
    stages = (
        Stage("sample", "3-sample", sample, ("sample",)),
        Stage("fit", "5-student", fit, (), ("sample",)),
        Stage("predict", "6-influence", predict, (), ("fit",)),
    )
    monkeypatch.setattr(pipeline, "STAGES", stages)
    monkeypatch.setattr(pipeline.fit, "run", fit)


def run(tmp_path, fraction=0.05, overwrite=False, **gate) -> RunDirectory:
    settings = {"corpus": {"path": "x"}, "run_dir": str(tmp_path / "run"), "gate": gate}
    config = Config.model_validate({**settings, "sample": {"fraction": fraction}})
    return pipeline.run(config, overwrite=overwrite, executor="local")


def asked(directory: RunDirectory) -> float:
    artifact = directory.artifact("3-sample")
    assert artifact is not None
    return artifact.manifest["settings"]["sample"]["fraction"]


def look(directory: RunDirectory) -> list[int]:
    artifact = directory.artifact("5-student")
    assert artifact is not None
    return artifact.counts["look"]


def test_warn_goes_on(tmp_path):
    directory = run(tmp_path)
    assert look(directory) == [1, 1]
    assert asked(directory) == 0.05
    assert directory.artifact("6-influence") is not None


def test_fail_stops_after_the_fit_and_keeps_it(tmp_path):
    for _ in range(2):  # the second time everything up to the fit is there
        with pytest.raises(FidelityError, match="it knows nothing"):
            run(tmp_path, on_low_fidelity="fail")
    directory = RunDirectory(tmp_path / "run")
    assert directory.artifact("5-student") is not None
    assert directory.artifact("6-influence") is None


def test_fail_also_stops_a_run_that_was_finished_under_another_gate(tmp_path):
    run(tmp_path)
    with pytest.raises(FidelityError):
        run(tmp_path, on_low_fidelity="fail")


def test_extend_asks_for_more_until_the_network_can_be_trusted(tmp_path):
    directory = run(tmp_path, on_low_fidelity="extend", growth=1.5)
    assert asked(directory) == pytest.approx(0.05 * 1.5**2)
    assert look(directory) == [3, 5], "0.05, 0.075, 0.1125, 0.16875 and 0.2"
    assert directory.artifact("6-influence") is not None


def test_extend_stops_at_its_budget(tmp_path):
    directory = run(tmp_path, on_low_fidelity="extend", growth=1.5, max_fraction=0.08)
    assert asked(directory) == 0.08
    assert directory.artifact("6-influence") is not None


def test_an_extended_run_is_recognised_and_not_redone(tmp_path, capsys):
    gate = {"on_low_fidelity": "extend", "growth": 1.5}
    first = run(tmp_path, **gate).artifact("5-student")
    again = run(tmp_path, **gate).artifact("5-student")
    assert first is not None and again is not None
    assert first.manifest == again.manifest
    assert "done before" in capsys.readouterr().err


def test_a_run_that_was_stopped_after_the_fit_goes_on_when_told_to_extend(tmp_path):
    with pytest.raises(FidelityError):
        run(tmp_path, on_low_fidelity="fail")
    directory = run(tmp_path, on_low_fidelity="extend", growth=2.0)
    assert asked(directory) == 0.1
    assert look(directory) == [2, 3], "the first had been made, and is not made again"


def test_a_look_that_earned_trust_alone_may_not_earn_it_among_several(tmp_path):
    settings = {"on_low_fidelity": "extend", "max_fraction": 0.3}
    assert look(run(tmp_path, fraction=0.15)) == [1, 1]
    with pytest.raises(RunDirectoryError, match=r"look_at_the_audit: None then, 1 of 3 now"):
        run(tmp_path, fraction=0.15, **settings)
    assert look(run(tmp_path, fraction=0.15, overwrite=True, **settings)) == [1, 3]


def test_asking_about_everything_is_no_look(tmp_path):
    gate = {"on_low_fidelity": "extend", "growth": 2, "max_fraction": 1}
    assert look(run(tmp_path, fraction=0.04, **gate)) == [3, 5], "0.04, 0.08, 0.16, 0.32, 0.64, 1"


def test_looks_share_the_error():
    assert Look().confidence == 0.95
    assert Look(2, 3).confidence == pytest.approx(0.98333, abs=1e-5)
