"""Trials on Ray Tune: the grid, the search, what is finished, and the table of all.

A trial is a function of its settings and seed, so its row is the same on any machine of one kind;
only asha, which stops trials by what others have reached, depends on the timing. A killed study
goes on (`Tuner.restore`): finished trials are not repeated.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from engine.artifacts.files import digest, save_array
from engine.config import (
    Config,
    NetworkConfig,
    SampleConfig,
    SearchRange,
    StudentConfig,
    StudyConfig,
)
from engine.errors import EngineError, SettingsError
from engine.study.data import StudyData
from engine.study.trial import TrialSettings, run_trial, settings_of_trial

__all__ = ["check_trials", "fixed_settings", "ranking_path", "run_trials"]

_EPOCHS_PER_REPORT = 5
_SEED, _DRAWN = "seed", "drawn"


def check_trials(config: Config) -> None:
    """Raise SettingsError for settings that no trial could have, before any is run."""
    study = config.study
    assert study is not None
    choices: dict[str, list[Any]] = {name: list(values) for name, values in study.grid.items()}
    for name, range_or_list in study.search.items():
        if isinstance(range_or_list, SearchRange):
            choices[name] = [range_or_list.low, range_or_list.high]
        else:
            choices[name] = list(range_or_list)
    for name, values in choices.items():
        section, dot, _ = name.partition(".")
        if name != "features" and not (dot and section in ("student", "network", "sample")):
            raise SettingsError(
                f"study: {name} cannot be studied; it must be features, or a setting below "
                "student., network. or sample."
            )
        for value in values:
            if name == "features":
                _check_features(config, value)
                continue
            try:
                settings_of_trial({name: value}, fixed_settings(config))
            except ValidationError as error:
                problem = error.errors()[0]
                raise SettingsError(f"study: {name} {value!r}: {problem['msg']}") from None


def fixed_settings(config: Config) -> TrialSettings:
    """What trials have in common where nothing else is said."""
    return TrialSettings(config.student, config.network, config.sample, config.features)


def _check_features(config: Config, value: Any) -> None:
    missing = [name for name in value if name not in config.features]
    if missing or not value:
        raise SettingsError(
            f"study: features {value!r}: the study computes {', '.join(config.features)}; add "
            f"{', '.join(map(str, missing)) or 'one of them'} to features"
        )


def run_trials(
    config: Config, unit: str, data_dir: Path, storage: Path, name: str, rankings: Path
) -> list[dict[str, Any]]:
    """Run all trials that are not finished; returns a row for each, settings first.

    Args:
        config: settings with a `study`.
        unit: of the teacher.
        data_dir: where `StudyData.save` wrote; every node must see it.
        storage, name: where Tune keeps its state; the same two go on with an unfinished study.
        rankings: folder for what each trial selects, as `ranking_path` names it.

    Raises EngineError when a trial failed, with its reason; the others are kept.
    """
    study = config.study
    assert study is not None
    fixed = _fixed(config, unit, data_dir, rankings)
    trainable = tune.with_resources(
        tune.with_parameters(_trial, fixed=fixed),
        {"cpu": study.cpus_per_trial, "gpu": study.gpus_per_trial},
    )
    folder, space = storage / name, _space(study, config.seed)
    if any(folder.glob("experiment_state-*.json")):
        tuner = tune.Tuner.restore(
            str(folder),
            trainable,
            resume_errored=True,
            resume_unfinished=True,
            param_space=space,
        )
    else:
        # a study killed before Tune wrote down its trials: restored, it would have one, without
        # settings
        shutil.rmtree(folder, ignore_errors=True)
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="loss" if study.scheduler == "asha" else None,
                mode="min" if study.scheduler == "asha" else None,
                scheduler=_scheduler(study, config.network),
                max_concurrent_trials=study.max_concurrent,
                reuse_actors=True,  # a process takes longer to start than many a fit
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(storage),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=2),
                callbacks=_trackers(study),
            ),
        )
    results = tuner.fit()
    if results.errors:
        reason = str(results.errors[0]).strip().splitlines()[-1]
        raise EngineError(
            f"{len(results.errors)} of {len(results)} trials failed, the first with: {reason}; the "
            "others are kept, and the same command tries these again"
        )
    rows = [_row(result.config, result.metrics) for result in results]
    return sorted(rows, key=lambda row: str([row[key] for key in _settings(study)]))


def _settings(study: StudyConfig) -> list[str]:
    return [*study.grid, *study.search, _SEED]


def _space(study: StudyConfig, seed: int) -> dict[str, Any]:
    """Tune's own words for the grid; names with dots are keys like any other.

    What the search draws is drawn here, once: the same points for the same seed, each of them
    tried with every combination of the grid and every seed of the study.
    """
    space: dict[str, Any] = {k: tune.grid_search(list(v)) for k, v in study.grid.items()}
    if study.search:
        space[_DRAWN] = tune.grid_search(_draws(study, seed))
    return {**space, _SEED: tune.grid_search(list(study.seeds))}


def _draws(study: StudyConfig, seed: int) -> list[dict[str, Any]]:
    chooser = np.random.default_rng([seed % 2**64, len(study.search)])
    return [
        {name: _drawn(values, chooser) for name, values in study.search.items()}
        for _ in range(study.samples)
    ]


def _drawn(values: SearchRange | tuple[Any, ...], chooser: np.random.Generator) -> Any:
    if not isinstance(values, SearchRange):
        return values[int(chooser.integers(len(values)))]
    if values.log:
        return float(np.exp(chooser.uniform(np.log(values.low), np.log(values.high))))
    return float(chooser.uniform(values.low, values.high))


def _scheduler(study: StudyConfig, network: NetworkConfig) -> ASHAScheduler | None:
    if study.scheduler == "fifo":
        return None
    most = max(2, network.epochs * network.members // _EPOCHS_PER_REPORT)
    return ASHAScheduler(max_t=most, grace_period=max(1, most // 16), reduction_factor=3)


def _trackers(study: StudyConfig) -> list[Any]:
    """Ray's callback for a tracker, beside the TensorBoard events that Tune always writes."""
    if study.tracker is None:
        return []
    try:
        if study.tracker == "mlflow":
            importlib.import_module("mlflow")
            from ray.air.integrations.mlflow import MLflowLoggerCallback

            return [MLflowLoggerCallback(study.tracking_uri, experiment_name=study.project)]
        importlib.import_module("wandb")
        from ray.air.integrations.wandb import WandbLoggerCallback

        return [WandbLoggerCallback(project=study.project)]
    except ImportError:
        raise SettingsError(
            f"study.tracker {study.tracker} is not installed: pip install {study.tracker}"
        ) from None


def ranking_path(folder: Path, settings: Mapping[str, Any]) -> Path:
    """Where a trial with these settings writes the candidates that it selects, best first."""
    return folder / f"{digest(_plain_settings(settings))}.npy"


def _row(settings: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    measured = dict((metrics or {}).get("measured") or {})
    return {**_plain_settings(settings), **measured}


def _plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in _flat(settings).items()}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a trial with those drawn among them."""
    values = dict(settings)
    return {**values.pop(_DRAWN, {}), **values}


def _plain(value: Any) -> Any:
    """A setting as one cell of a table."""
    return "-".join(map(str, value)) or "linear" if isinstance(value, list | tuple) else value


def _fixed(config: Config, unit: str, data_dir: Path, rankings: Path) -> dict[str, Any]:
    """What all trials have in common, as plain values."""
    assert config.study is not None
    return {
        "student": config.student.model_dump(mode="json"),
        "network": config.network.model_dump(mode="json"),
        "sample": config.sample.model_dump(mode="json"),
        "features": list(config.features),
        "study": config.study.model_dump(mode="json"),
        "unit": unit,
        "data_dir": str(data_dir),
        "rankings": str(rankings),
    }


def _trial(config: dict[str, Any], fixed: dict[str, Any]) -> None:
    """What a trial's process runs; the last report has all that was measured."""
    study = StudyConfig.model_validate(fixed["study"])
    epochs, best = 0, float("inf")

    def on_epoch(epoch: int, loss: float) -> None:
        # the best so far: every member of a network starts anew, which is no reason to stop it
        nonlocal epochs, best
        epochs, best = epoch, min(best, loss)
        if study.scheduler == "asha" and epoch % _EPOCHS_PER_REPORT == 0:
            tune.report({"loss": best, "epoch": epoch})

    measured = _measure(config, fixed, study, on_epoch)
    last: dict[str, Any] = {"epoch": epochs, "measured": measured}
    if study.scheduler == "asha":  # what it compares is compared with a trial that failed, too
        last["loss"] = measured.get(study.objective, float("inf"))
    tune.report(last)


def _measure(
    config: dict[str, Any],
    fixed: dict[str, Any],
    study: StudyConfig,
    on_epoch: Callable[[int, float], None] | None = None,
) -> dict[str, Any]:
    values = _flat(config)
    seed = int(values.pop(_SEED))
    settings = settings_of_trial(
        values,
        TrialSettings(
            StudentConfig.model_validate(fixed["student"]),
            NetworkConfig.model_validate(fixed["network"]),
            SampleConfig.model_validate(fixed["sample"]),
            tuple(fixed["features"]),
        ),
    )
    rankings = Path(fixed["rankings"])
    try:
        return run_trial(
            StudyData.open(Path(fixed["data_dir"])),
            settings,
            fixed["unit"],
            seed,
            study.pairs_per_quadrant,
            study.fractions,
            on_epoch,
            lambda ranking: save_array(ranking_path(rankings, config), ranking),
        )
    except SettingsError as error:  # too few labels, or a fit that diverged: that is a finding
        return {"problem": str(error)}
