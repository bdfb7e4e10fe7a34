"""A study from its settings to its table: the teacher's labels, the trials, what won.

RUN/1-corpus ... 4-teacher      the teacher asked about everything, by the pipeline's own stages
RUN/study/data/                 what all trials map
RUN/study/NAME/                 trials.parquet, study.json, best.yaml, study.html and its charts as
                                pictures; tune/ is Ray Tune's state
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from engine import storage
from engine.artifacts.files import atomic_path, digest, read_json, write_json
from engine.artifacts.run_directory import Artifact, RunDirectory
from engine.config import Config, load_config, parse_config
from engine.errors import SettingsError
from engine.runtime.executor import Executor
from engine.runtime.opening import opened
from engine.stages.pipeline import STAGES, run
from engine.study.answers import check_answers, log_likelihoods
from engine.study.charts import charts_of
from engine.study.data import write_study_data
from engine.study.figures import write_figures
from engine.study.trial import settings_of_trial
from engine.study.tune import check_trials, fixed_settings, run_trials
from engine.teachers.teacher import teacher_class
from engine.terminal.progress import say

__all__ = ["run_study"]

FOLDER = "study"
_NOT_OF_A_RUN = ("study", "evaluation")
_NOT_OF_A_TRIAL = {
    "log_likelihood",
    "max_concurrent",
    "cpus_per_trial",
    "tracker",
    "tracking_uri",
    "project",
}


def run_study(
    config: Config | Path | str, *, run_dir: Path | str | None = None, overwrite: bool = False
) -> Path:
    """Ask the teacher about everything, run all trials, write the table; returns its folder.

    Args:
        config: settings with a `study`, or the YAML file that holds them. `sample.fraction` is of
            the trials: the teacher is asked about all.
        run_dir: in place of the config's.
        overwrite: redo stages that were made with other settings, instead of stopping.

    May be killed at any moment and started again: teacher answers and finished trials are kept.
    Raises SettingsError for a study that no trial can be made of.
    """
    config = config if isinstance(config, Config) else load_config(Path(config))
    study = config.study
    if study is None or not (study.grid or study.search):
        raise SettingsError("nothing to study: set study.grid or study.search")
    if config.teacher.facts.is_given:
        raise SettingsError(
            "a study asks the teacher about everything, and nobody can ask "
            f"{config.teacher.name}, a file: study another teacher"
        )
    if storage.is_remote(str(run_dir or config.run_dir)):
        raise SettingsError("a study keeps its trials on a path that all nodes see: set run_dir")
    check_trials(config)
    check_answers(config)
    everything = parse_config(_asking_all(config))
    kind = teacher_class(config.teacher.name)
    with opened(config) as executor:
        directory = run(
            everything, run_dir=run_dir, until="score", overwrite=overwrite, executor=executor
        )
        with directory.lock():
            data_dir, sizes = _data(config, directory, executor)
            told = study.model_dump(mode="json", exclude=_NOT_OF_A_TRIAL)
            sections = (config.student, config.network, config.sample)
            fixed = [*(section.model_dump(mode="json") for section in sections), config.features]
            name = digest(told, fixed, config.seed, data_dir.name)
            say(f"study {name}: trials in {directory.path / FOLDER / name}")
            folder = directory.path / FOLDER / name
            folder.mkdir(parents=True, exist_ok=True)
            rankings = folder / "rankings"
            rankings.mkdir(exist_ok=True)
            rows = run_trials(config, kind.unit, data_dir, folder, "tune", rankings)
            for row in rows:
                if "labels" in row:
                    row["teacher_cpu_s"] = _price(row, sizes, kind.unit)
            if study.log_likelihood is not None:
                told_apart = [*study.grid, *study.search, "seed"]
                shared = {name: _artifact(directory, name) for name in ("ingest", "embed")}
                found = log_likelihoods(
                    config, rows, told_apart, folder, rankings, shared, overwrite, executor
                )
                rows = [{**row, **more} for row, more in zip(rows, found, strict=True)]
            _write(config, rows, sizes, folder)
    return folder


def _asking_all(config: Config) -> dict[str, Any]:
    values = {**config.model_dump(mode="json"), "study": None, "evaluation": None}
    values["sample"]["fraction"] = 1
    return values


def _data(
    config: Config, directory: RunDirectory, executor: Executor
) -> tuple[Path, dict[str, Any]]:
    """The folder of what all trials map, written if it is not there, and its sizes."""
    artifacts = [_artifact(directory, name) for name in ("ingest", "embed", "score")]
    key = digest([artifact.fingerprint for artifact in artifacts], config.sample.num_strata)
    data_dir = directory.path / FOLDER / f"data-{key}"
    if not (data_dir / "sizes.json").is_file():
        data_dir.mkdir(parents=True, exist_ok=True)
        sizes = executor.call(write_study_data, config, *artifacts, data_dir)
        write_json(data_dir / "sizes.json", sizes)
    return data_dir, read_json(data_dir / "sizes.json")


def _artifact(directory: RunDirectory, stage: str) -> Artifact:
    """A finished stage of the run."""
    (folder,) = (s.directory for s in STAGES if s.name == stage)
    artifact = directory.artifact(folder)
    assert artifact is not None, f"{stage} is not finished"
    return artifact


def _price(row: dict[str, Any], sizes: dict[str, Any], unit: str) -> float:
    """CPU seconds of the teacher for what a trial learned from: its share of all answers."""
    asked, everything = row["labels"], sizes["candidates"] * sizes["targets"]
    if unit == "point":
        asked = row["asked_candidates"] + row["asked_targets"]
        everything = sizes["candidates"] + sizes["targets"]
    prepared = sizes["prepared_cpu_s"]
    answers = sizes["full_teacher_cpu_s"] - prepared
    return float(prepared + answers * min(1.0, asked / everything))


def _write(config: Config, rows: list[dict[str, Any]], sizes: dict[str, Any], folder: Path) -> None:
    """The table, its charts, the study for programs, and the settings that won."""
    study = config.study
    assert study is not None
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    with atomic_path(folder / "trials.parquet") as temporary:
        pq.write_table(table, temporary)
    settings = [*study.grid, *study.search]
    title = f"What learns {config.teacher.name} best"
    about = (
        f"{len(rows)} trials over {len(study.seeds)} seeds; {sizes['candidates']:,} candidates and "
        f"{sizes['targets']:,} targets, the teacher asked about all of them."
    )
    write_figures(charts_of(rows, settings, study.objective), title, about, folder)
    means = _means(rows, settings, study.objective)
    ranked = sorted(means, key=lambda mean: mean["loss"])
    write_json(
        folder / "study.json",
        {
            "name": f"study of {config.teacher.name}",
            "objective": study.objective,
            "sizes": sizes,
            "rows": ranked,
        },
    )
    best = {name: ranked[0][name] for name in settings} if ranked else {}
    with atomic_path(folder / "best.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(_winning(config, best), sort_keys=False))


def _means(rows: list[dict[str, Any]], settings: list[str], objective: str) -> list[dict[str, Any]]:
    """For each combination of settings the mean of the objective over seeds, and how many."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str([row[name] for name in settings]), []).append(row)
    found = []
    for group in groups.values():
        losses = [row[objective] for row in group if row.get(objective) is not None]
        if losses:
            named = {name: group[0][name] for name in settings}
            mean = sum(losses) / len(losses)
            found.append({**named, "seeds": len(losses), "loss": mean})
    return found


def _winning(config: Config, best: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run with those of the best trial, as select.py takes them."""
    values = config.model_dump(mode="json", exclude_defaults=True, exclude=set(_NOT_OF_A_RUN))
    shape = best.get("network.hidden")
    if shape is not None:
        best["network.hidden"] = [] if shape == "linear" else list(map(int, shape.split("-")))
    if "features" in best:
        best["features"] = best["features"].split("-")
    winner = settings_of_trial(best, fixed_settings(config))
    for name in ("student", "network", "sample"):
        section = getattr(winner, name)
        values[name] = section.model_dump(mode="json", exclude={"execution"})
    values["features"] = list(winner.features)
    parse_config(values)  # what is written can be read
    return values
