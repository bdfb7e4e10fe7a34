"""New rows for a finished run: scored by its frozen student, selected for what they add, merged.

    RUN/additions/NAME-DIGEST/   1-corpus 2-embeddings 3-sample 4-teacher 5-drift 6-influence
                                 7-selection 8-merged

The stages are those of the pipeline over the new rows alone; where they need more, they are given
views of the run's artifacts: its targets, its student, and as owned rows its subset. Nothing of the
old rows is computed again. A later corpus comes after the additions before it: their rows count as
known and what was added as owned. The same corpus again finds its own folder and is done.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine import storage
from engine.artifacts.files import digest, read_json, read_table, save_array, shown, write_json
from engine.artifacts.parts import finish_part
from engine.artifacts.rows import VectorParts
from engine.artifacts.run_directory import CONFIG, Artifact, RunDirectory, discard
from engine.config import Config, CorpusConfig, override, parse_config
from engine.errors import EngineError, RunDirectoryError, SettingsError
from engine.features.feature import Source, sources_of
from engine.features.rows import group_of
from engine.runtime.opening import ExecutorChoice, opened
from engine.runtime.stage import Stage, StageContext, StageResult
from engine.runtime.workflow import do_stage, paths_to_see, plan_stages, refuse_other_settings
from engine.selection.prepare import num_to_select
from engine.stages import drift, embed, ingest, merge, new_rows, predict, score, select
from engine.stages.pipeline import STAGES, stages_of
from engine.stages.quality import QUALITY, quality_of_new_rows
from engine.terminal.called import typed
from engine.terminal.progress import say

__all__ = ["ADDITION_STAGES", "addition_stages", "headline", "score_new"]

FOLDER, ORIGIN = "additions", "origin.json"
# Of the settings; all others are the run's.
OWN_SECTIONS = ("corpus", "selection", "drift", "ray", "execution")
_UNUSED_SECTIONS = ("evaluation", "study")  # no model of theirs is loaded for new rows
_OWNED = CorpusConfig(path="the subset of the run")  # its vectors are given: nothing reads this


# --- the stages, over views of the run's artifacts ------------------------------------------------


def _alone(config: Config) -> Config:
    """The settings of the new rows, without targets and owned rows."""
    return config.model_copy(update={"target": None, "owned": None})


def _ingest(context: StageContext) -> StageResult:
    return ingest.run(replace(context, config=_alone(context.config)))


def _embed(context: StageContext) -> StageResult:
    """The new rows, and the vectors of the rows that were selected before."""
    result = embed.run(context)
    before = context.inputs["previous-embed"], context.inputs["previous"]
    key = digest([artifact.fingerprint for artifact in before])
    for source in sources_of(context.config.features):
        name = group_of("selected", source)
        path = context.directory / f"{name}-{key}.npy"
        rows = context.executor.call(_write_selected, *before, group_of("candidates", source), path)
        result.parts[name] = [finish_part(context.directory, path, rows)]
    return result


def _write_selected(embeddings: Artifact, selection: Artifact, group: str, path: Path) -> int:
    rows = read_table(selection.path("ranking"), columns=["row"])["row"].to_numpy()
    save_array(path, VectorParts(embeddings, group).take(rows))
    return len(rows)


def _beside_the_run(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Views for prediction and selection: new candidates, the run's targets, what is owned."""
    run_corpus, run_vectors = inputs["run-ingest"], inputs["run-embed"]
    corpus, vectors, previous = inputs["ingest"], inputs["embed"], inputs["previous-embed"]
    groups: dict[str, list[tuple[Artifact, str]]] = {}
    for source in _sources(vectors):
        owned, targets = group_of("owned", source), group_of("targets", source)
        groups[owned] = [(vectors, group_of("selected", source))]
        if owned in previous.manifest["parts"]:
            groups[owned].append((previous, owned))
        if targets in run_vectors.manifest["parts"]:
            groups[targets] = [(run_vectors, targets)]
    if "targets" in groups:
        corpus = corpus.with_groups(targets=[(run_corpus, "targets")])
    run = {name: inputs[f"run-{name}"] for name in ("sample", "score", "fit")}
    return {**inputs, "ingest": corpus, "embed": vectors.with_groups(**groups), **run}


def _sources(embeddings: Artifact) -> list[Source]:
    """What its features are made of."""
    return sources_of(embeddings.counts["features"])


def _after_the_run(inputs: Mapping[str, Artifact], name: str) -> Artifact:
    """A view for the audit: the rows of the run, then the new ones."""
    run, new = inputs[f"run-{name}"], inputs[name]
    sources: list[Source] = _sources(new) if name == "embed" else ["text"]
    groups = [group_of("candidates", source) for source in sources]
    return run.with_groups(**{group: [(run, group), (new, group)] for group in groups})


def _predict(context: StageContext) -> StageResult:
    inputs = {**_beside_the_run(context.inputs), "base": context.inputs["run-predict"]}
    return predict.run(replace(context, inputs=inputs))


def _score(context: StageContext) -> StageResult:
    inputs = {**context.inputs, "ingest": _after_the_run(context.inputs, "ingest")}
    return score.run(replace(context, inputs=inputs))


def _whom_to_ask(config: Config) -> dict[str, Any]:
    """Nobody where the scores of the run were given: their file may be gone."""
    return {} if config.teacher.facts.is_given else score.identity(config)


def _drift(context: StageContext) -> StageResult:
    inputs = {**context.inputs, "embed-both": _after_the_run(context.inputs, "embed")}
    return drift.run(replace(context, inputs=inputs))


def _select(context: StageContext) -> StageResult:
    config, gate = context.config, context.inputs.get("quality")
    if gate is not None:  # of what it leaves no more can be selected than there is
        left = gate.counts["rows"] - gate.counts["dropped"]
        if not left:
            raise SettingsError(
                f"the run's quality gate ({gate.counts['teacher']}: {gate.counts['rule']}) drops "
                f"all {gate.counts['rows']:,} new rows: there is nothing to add"
            )
        if config.selection.budget is not None:
            budget = min(num_to_select(config.selection, gate.counts["rows"]), left)
            selection = config.selection.model_copy(update={"budget": budget})
            config = config.model_copy(update={"selection": selection})
    inputs = _beside_the_run(context.inputs)
    return select.run(replace(context, config=config, inputs=inputs))


_RUN = tuple(f"run-{name}" for name in ("ingest", "embed", "sample", "score", "fit", "predict"))

# The pipeline's stages, on views of the run's artifacts.
ADDITION_STAGES: tuple[Stage, ...] = (
    replace(
        ingest.STAGE,
        run=_ingest,
        settings=("corpus", "protect", "on_leak", "duplicates"),
        reads=("known",),
        identity=lambda config: ingest.identity(_alone(config)),
    ),
    replace(embed.STAGE, run=_embed, reads=("ingest", "previous", "previous-embed")),
    replace(new_rows.STAGE, reads=("ingest", *_RUN)),
    replace(score.STAGE, run=_score, reads=("ingest", "sample", *_RUN), identity=_whom_to_ask),
    replace(drift.STAGE, run=_drift, reads=("ingest", "embed", "score", *_RUN)),
    replace(predict.STAGE, run=_predict, reads=("ingest", "embed", *_RUN)),
    replace(select.STAGE, run=_select, reads=("ingest", "embed", "predict", *_RUN)),
    merge.STAGE,
)


def addition_stages(config: Config) -> tuple[Stage, ...]:
    """The stages of an addition in their order; where the run has a gate, it judges new rows."""
    gate = quality_of_new_rows(config)
    place = [stage.name for stage in ADDITION_STAGES].index("select")
    before, (selecting, *after) = ADDITION_STAGES[:place], ADDITION_STAGES[place:]
    if gate:
        selecting = replace(selecting, reads=(*selecting.reads, "quality"))
    return (*before, *gate, selecting, *after)


# --- one corpus of new rows -----------------------------------------------------------------------


def score_new(
    run_dir: Path | str,
    corpus: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    executor: ExecutorChoice = None,
) -> RunDirectory:
    """Score new rows with the frozen student of a run and select what they add to its subset.

    Args:
        run_dir: a finished run with a student.
        corpus: file, directory or glob of the new rows, in the format of the run's corpus.
        overrides: settings by dotted name, of the sections corpus, selection, drift and ray,
            and execution.
        overwrite: redo an addition that was made with other settings.
        executor: as of `run`.

    Returns the addition's folder: `7-selection/subset.*` is the list of additions, `8-merged` the
    subset with them. By default as large a share of the new rows is selected as of the old ones, at
    most: a row that adds nothing is left out. Without a target set the new rows are their own
    targets. Cost: embedding and predicting the new rows, comparing them with the owned ones, and
    the teacher's answers for a small audit; nothing grows with the rows that were not selected, but
    a look at their ids.

    Raises RunDirectoryError for a run that is not finished, SettingsError for settings that are
    the run's, and otherwise what the stages raise.
    """
    run = RunDirectory.at(run_dir)
    artifacts = _finished(run)
    config = _settings(run, artifacts, corpus, overrides or {})
    with run.lock():
        directory, given = _place(run, artifacts, config)
        stages = addition_stages(config)
        plans = list(plan_stages(stages, config, directory, given))
        refuse_other_settings(plans, directory, overwrite)
        if all(plan.done for plan in plans):
            say(f"done before: {directory}")
            return directory
        try:
            with opened(config, executor) as working:
                working.refuse_unseen(paths_to_see(config, directory))
                for plan in plans:
                    do_stage(plan, config, directory, stages, working, given)
        except EngineError:  # rows of no use leave no trace
            if directory.artifact(ADDITION_STAGES[0].directory) is None:
                discard(directory.path)
            raise
    return directory


def headline(directory: RunDirectory) -> dict[str, Any]:
    """What a job prints of a finished addition."""
    stages = (*ADDITION_STAGES, QUALITY[-1])
    found = {stage.name: directory.artifact(stage.directory) for stage in stages}
    artifacts = {name: artifact for name, artifact in found.items() if artifact is not None}
    corpus, drifted = artifacts["ingest"].counts, artifacts["drift"].counts
    selected = artifacts["select"]
    return {
        "new_rows": corpus["candidates"],
        "known_before": corpus["candidates_known"],
        "quarantined": corpus["candidates_quarantined"],
        "added": selected.counts["selected"],
        "merged": artifacts["merge"].counts["merged"],
        "refit": drifted["refit"],
        "reasons": drifted["reasons"],
        "far_share": drifted["far_share"],
        **_of_gate(artifacts.get("quality")),
        "audited_pairs": drifted["audited"],
        "spearman": drifted.get("spearman"),
        "additions": shown(selected.path("subset")),
        "subset": shown(artifacts["merge"].path("subset")),
    }


def _of_gate(gate: Artifact | None) -> dict[str, Any]:
    return {} if gate is None else {"dropped_by_quality": gate.counts["dropped"]}


def _finished(run: RunDirectory) -> dict[str, Artifact]:
    """The artifacts of the run's stages up to the selection, each made from the one before."""
    artifacts: dict[str, Artifact] = {}
    has_settings = storage.exists(run.path / CONFIG)
    for stage in stages_of(_settings_of_run(run)) if has_settings else STAGES:
        if stage.name == "report":
            continue
        artifact = run.artifact(stage.directory)
        made_from = {} if artifact is None else artifact.manifest["inputs"]
        if artifact is None or any(artifacts[n].fingerprint != f for n, f in made_from.items()):
            raise RunDirectoryError(
                f"stage {stage.name} of {run} is not finished: let {typed('select')} finish "
                "the run first"
            )
        artifacts[stage.name] = artifact
    if artifacts["sample"].counts["everything"]:
        raise SettingsError(
            f"{run} asked the teacher about everything and has no student to score new rows "
            "with: make a run with sample.fraction below 1, or with scores of a part of the rows"
        )
    return artifacts


def _settings_of_run(run: RunDirectory) -> Config:
    """The settings of the run's last job."""
    if not storage.exists(run.path / CONFIG):
        raise RunDirectoryError(f"{run} holds no {CONFIG}: run {typed('select')} on it again")
    return parse_config(read_json(run.path / CONFIG), source=f"{run}/{CONFIG}")


def _settings(
    run: RunDirectory, artifacts: Mapping[str, Artifact], corpus: str, overrides: Mapping[str, Any]
) -> Config:
    """The run's settings with the new corpus, what it asks for by default, and the overrides."""
    values, old = read_json(run.path / CONFIG), _settings_of_run(run)
    if old.objective == "graph_cut":
        raise SettingsError(
            "graph_cut cannot tell what rows add to others: "
            "give --selection.objective facility_location"
        )
    values["owned"] = _OWNED.model_dump(mode="json")
    values["corpus"] = {**values["corpus"], "path": corpus, "format": "auto"}
    share = artifacts["select"].counts["selected"] / artifacts["select"].counts["candidates"]
    values["selection"] |= {
        "budget": float(share),
        "max_tokens": None,
        "zero_gain_tail": "stop",
        "objective": "facility_location_conditional_gain"
        if old.objective == "facility_location"
        else old.objective,
    }
    trusted = dict(_trusted({n: v for n, v in values.items() if n not in _UNUSED_SECTIONS}))
    for name, model in trusted.items():
        if overrides.get(name) is not True:
            raise SettingsError(
                f"{run.path / CONFIG} lets the model {model} run code of its repository, and a run "
                f"directory can come from others: say so yourself, --{name} true"
            )
    for name, value in overrides.items():
        section = name.partition(".")[0]
        if name in trusted:
            continue
        if section not in OWN_SECTIONS:
            raise SettingsError(
                f"--{name} is a setting of the run, whose student is frozen; of new rows one can "
                f"set {', '.join(OWN_SECTIONS)}"
            )
        override(values, name, value)
    return parse_config(values, source="settings")


def _trusted(values: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Names of the settings that trust the code of a model, each with the model."""
    for key, value in values.items() if isinstance(values, Mapping) else enumerate(values):
        inner = f"{name}.{key}" if name else str(key)
        if key == "trust_remote_code" and value:
            yield inner, str(values.get("path"))
        elif isinstance(value, Mapping | list):
            yield from _trusted(value, inner)


def _place(
    run: RunDirectory, artifacts: Mapping[str, Artifact], config: Config
) -> tuple[RunDirectory, dict[str, Artifact]]:
    """The addition's folder, named by the content of its files, and what its stages are given."""
    contents = sorted(ingest.identity(_alone(config))["corpus"].values())
    first = config.corpus.path if isinstance(config.corpus.path, str) else config.corpus.path[0]
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(first).stem).strip("-") or "rows"
    folder = run.path / FOLDER / f"{name}-{digest(contents)[:8]}"
    before = _before(run, folder)
    given = {f"run-{name}": artifact for name, artifact in artifacts.items()}
    previous, vectors = artifacts["select"], artifacts["embed"]
    corpora = [artifacts["ingest"]]
    for earlier in before:
        corpora.append(_artifact(earlier, "1-corpus"))
        # its vectors with those that were owned before it, its ranking, the list up to it
        own, groups = _artifact(earlier, "2-embeddings"), {}
        for source in _sources(own):
            owned = group_of("owned", source)
            groups[owned] = [(own, group_of("selected", source))]
            groups[owned] += [(vectors, owned)] if owned in vectors.manifest["parts"] else []
        vectors = own.with_groups(**groups)
        previous = _artifact(earlier, "7-selection").with_groups(
            subset=[(_artifact(earlier, "8-merged"), "subset")]
        )
    given["known"] = artifacts["ingest"].with_groups(
        candidates=[(corpus, "candidates") for corpus in corpora]
    )
    return RunDirectory(folder), {**given, "previous": previous, "previous-embed": vectors}


def _before(run: RunDirectory, folder: Path) -> list[RunDirectory]:
    """The additions that come before this one: those finished when it was first made, in order."""
    origin = folder / ORIGIN
    if not storage.exists(origin):
        chains: list[list[str]] = [[]]
        for path in storage.files_in(run.path / FOLDER):
            if path.name != ORIGIN or path.parent.parent != run.path / FOLDER:
                continue
            if RunDirectory(path.parent).artifact(ADDITION_STAGES[-1].directory) is not None:
                chains.append([*read_json(path)["after"], path.parent.name])
        write_json(origin, {"after": max(chains, key=len)})
    names = [str(name) for name in read_json(origin)["after"]]
    if any(name in ("", "..") or Path(name).name != name for name in names):
        raise RunDirectoryError(f"{origin} names folders that are not additions of this run")
    return [RunDirectory(run.path / FOLDER / name) for name in names]


def _artifact(directory: RunDirectory, folder: str) -> Artifact:
    artifact = directory.artifact(folder)
    if artifact is None:
        raise RunDirectoryError(
            f"{directory}, which came before, is not finished: score its corpus again first"
        )
    return artifact
