"""Trials on Ray Tune: the grid, the search, what is finished, and the table of all.

A trial is a function of its settings and seed, so its row is the same on any machine of one kind;
only asha, which stops trials by what others have reached, depends on the timing. A killed study
goes on (`Tuner.restore`): finished trials are not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from engine.config import Config, NetworkConfig, SampleConfig, SearchRange, StudyConfig
from engine.errors import EngineError, SettingsError
from engine.study.data import StudyData
from engine.study.trial import run_trial, settings_of_trial

__all__ = ["check_trials", "run_trials"]

_EPOCHS_PER_REPORT = 5
_SEED = "seed"


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
        if name.partition(".")[0] not in ("network", "sample") or "." not in name:
            raise SettingsError(
                f"study: {name} cannot be studied; it must be a setting below network. or sample."
            )
        for value in values:
            try:
                settings_of_trial({name: value}, config.network, config.sample)
            except ValidationError as error:
                problem = error.errors()[0]
                raise SettingsError(f"study: {name} {value!r}: {problem['msg']}") from None


def run_trials(
    config: Config, unit: str, data_dir: Path, storage: Path, name: str
) -> list[dict[str, Any]]:
    """Run all trials that are not finished; returns a row for each, settings first.

    Args:
        config: settings with a `study`.
        unit: of the teacher.
        data_dir: where `StudyData.save` wrote; every node must see it.
        storage, name: where Tune keeps its state; the same two go on with an unfinished study.

    Raises EngineError when a trial failed, with its reason; the others are kept.
    """
    study = config.study
    assert study is not None
    fixed = {
        "network": config.network.model_dump(mode="json"),
        "sample": config.sample.model_dump(mode="json"),
        "study": study.model_dump(mode="json"),
        "unit": unit,
        "data_dir": str(data_dir),
    }
    trainable = tune.with_resources(
        tune.with_parameters(_trial, fixed=fixed),
        {"cpu": study.cpus_per_trial, "gpu": study.gpus_per_trial},
    )
    path = str(storage / name)
    if tune.Tuner.can_restore(path):
        tuner = tune.Tuner.restore(path, trainable, resume_errored=True, resume_unfinished=True)
    else:
        tuner = tune.Tuner(
            trainable,
            param_space=_space(study),
            tune_config=tune.TuneConfig(
                metric="loss",
                mode="min",
                num_samples=study.samples,
                scheduler=_scheduler(study, config.network),
                max_concurrent_trials=study.max_concurrent,
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=str(storage),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=2),
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


def _space(study: StudyConfig) -> dict[str, Any]:
    """Tune's own words for grid and search; names with dots are keys like any other."""
    space: dict[str, Any] = {k: tune.grid_search(list(v)) for k, v in study.grid.items()}
    for name, values in study.search.items():
        if isinstance(values, SearchRange):
            draw = tune.loguniform if values.log else tune.uniform
            space[name] = draw(values.low, values.high)
        else:
            space[name] = tune.choice(list(values))
    return {**space, _SEED: tune.grid_search(list(study.seeds))}


def _scheduler(study: StudyConfig, network: NetworkConfig) -> ASHAScheduler | None:
    if study.scheduler == "fifo":
        return None
    most = max(2, network.epochs * network.members // _EPOCHS_PER_REPORT)
    return ASHAScheduler(max_t=most, grace_period=max(1, most // 16), reduction_factor=3)


def _row(settings: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    measured = dict((metrics or {}).get("measured") or {})
    return {**{name: _plain(value) for name, value in settings.items()}, **measured}


def _plain(value: Any) -> Any:
    """A setting as one cell of a table."""
    return "-".join(map(str, value)) or "linear" if isinstance(value, list | tuple) else value


def _trial(config: dict[str, Any], fixed: dict[str, Any]) -> None:
    """What a trial's process runs; the last report has all that was measured."""
    values = dict(config)
    seed = int(values.pop(_SEED))
    study = StudyConfig.model_validate(fixed["study"])
    network, sample = settings_of_trial(
        values,
        NetworkConfig.model_validate(fixed["network"]),
        SampleConfig.model_validate(fixed["sample"]),
    )
    epochs = 0

    def on_epoch(epoch: int, loss: float) -> None:
        nonlocal epochs
        epochs = epoch
        if study.scheduler == "asha" and epoch % _EPOCHS_PER_REPORT == 0:
            tune.report({"loss": loss, "epoch": epoch})

    measured = run_trial(
        StudyData.open(Path(fixed["data_dir"])),
        network,
        sample,
        fixed["unit"],
        seed,
        study.pairs_per_quadrant,
        study.fractions,
        on_epoch,
    )
    loss = measured.get(study.objective)
    tune.report({"loss": float("inf") if loss is None else loss, "epoch": epochs,
                 "measured": measured})  # fmt: skip
