"""What a model makes of the subsets of a study: the likelihood of the test set's references.

Every subset of every trial is shown to the model or trained on by the evaluation's own stages, in
STUDY/answers/. Subsets with the same rows are one piece of work, and all that was finished is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.artifacts.files import atomic_path, digest, load_array, read_json, read_table
from engine.artifacts.parts import finish_part
from engine.artifacts.run_directory import Artifact, RunDirectory
from engine.config import Config
from engine.errors import SettingsError
from engine.evaluation.cells import Cell
from engine.kernels.arrays import IndexArray
from engine.runtime.executor import Executor
from engine.runtime.workflow import do_stage, plan_stages, refuse_other_settings
from engine.stages.arms import answer_stages
from engine.study.subsets import num_of_share, random_ranking
from engine.study.tune import ranking_path

__all__ = ["check_answers", "log_likelihoods"]

FOLDER = "answers"


def check_answers(config: Config) -> None:
    """Raise SettingsError for a study whose subsets nobody can answer with."""
    study = config.study
    if study is None or study.log_likelihood is None:
        return
    if config.evaluation is None:
        raise SettingsError("study.log_likelihood needs a test set: set evaluation.test.path")
    if not study.fractions:
        raise SettingsError("study.log_likelihood needs subsets: set study.fractions")


def log_likelihoods(
    config: Config,
    rows: Sequence[Mapping[str, Any]],
    settings: Sequence[str],
    folder: Path,
    rankings: Path,
    shared: Mapping[str, Artifact],
    overwrite: bool,
    executor: Executor,
) -> list[dict[str, float]]:
    """`log_likelihood v` for every trial and share v: nats per token, mean over test rows.

    Beside it `random log_likelihood v`, of as many rows drawn at random by the trial's seed.

    Args:
        config: settings with a `study` and an `evaluation`.
        rows: of the trials; those without a subset get nothing.
        settings: names of what tells trials apart, the seed among them.
        folder: of the study.
        rankings: where the trials wrote what they select.
        shared: artifacts of the run: `ingest` and `embed`.
        overwrite: redo what was made with other settings.
        executor: who does the work.

    Cost: one pass over each prompt, and one training per subset if they are trained on.
    """
    study, evaluation = config.study, config.evaluation
    assert study is not None and evaluation is not None and study.log_likelihood is not None
    of_method = evaluation.model_copy(update={"methods": (study.log_likelihood,)})
    config = config.model_copy(update={"evaluation": of_method})
    directory = RunDirectory(folder / FOLDER)
    num_candidates = int(shared["ingest"].counts["candidates"])
    given: dict[str, Artifact] = dict(shared)
    cells: dict[str, Cell] = {}
    of_trial: list[dict[str, str]] = []
    for row in rows:
        path = ranking_path(rankings, {name: row[name] for name in settings})
        names = {}
        for share in study.fractions if path.is_file() else ():  # else it failed or was stopped
            count = num_of_share(share, num_candidates)
            for name, ranking in (
                ("", load_array(path)),
                ("random ", random_ranking(num_candidates, row["seed"])),
            ):
                artifact = _subset(ranking[:count], directory.path / "subsets")
                key = artifact.fingerprint
                given[key] = artifact
                cells[key] = Cell(key, study.log_likelihood, config.seed, key)
                names[f"{name}log_likelihood {share:g}"] = cells[key].name
        of_trial.append(names)
    subsets = tuple(name for name in given if name in cells)
    stages = answer_stages(list(cells.values()), (*shared, *subsets))
    plans = list(plan_stages(stages, config, directory, given))
    refuse_other_settings(plans, directory, overwrite)
    for plan in plans:
        do_stage(plan, config, directory, stages, executor, given)
    answers = directory.artifact(stages[-1].directory)
    assert answers is not None
    found = executor.call(_means, answers)
    return [{name: found[cell] for name, cell in names.items()} for names in of_trial]


def _subset(rows: IndexArray, folder: Path) -> Artifact:
    """Some rows as an artifact, named by the rows themselves."""
    rows = np.sort(rows)
    key = digest(rows.tolist())
    place = folder / key
    place.mkdir(parents=True, exist_ok=True)
    path = place / "ranking.parquet"
    if not path.is_file():
        with atomic_path(path) as temporary:
            pq.write_table(pa.table({"row": rows}), temporary)
    part = vars(finish_part(place, path, len(rows)))
    return Artifact(
        place,
        {"fingerprint": key, "parts": {"ranking": [part]}, "counts": {"selected": len(rows)}},
    )


def _means(answers: Artifact) -> dict[str, float]:
    """Mean log-likelihood of each cell over the test rows that could be asked."""
    found = {}
    for name, files in read_json(answers.path("cells")).items():
        tables = [read_table(answers.directory / file) for file in files]
        found[name] = float(np.nanmean(pa.concat_tables(tables)["log_likelihood"].to_numpy()))
    return found
