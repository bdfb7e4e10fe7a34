"""Export: the subset of a finished run, or of an addition to it, as a file for a trainer."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import storage
from engine.artifacts.files import (
    atomic_path,
    disk_problems_told,
    file_sha256,
    read_json,
    shown,
    write_json,
)
from engine.artifacts.run_directory import Artifact, RunDirectory
from engine.errors import RunDirectoryError, SettingsError
from engine.exports.formats import FORMATS, dataset_info, write_dataset, write_file
from engine.spelling import meant
from engine.terminal.called import typed
from engine.terminal.progress import say

__all__ = ["export"]

EXPORTS = "exports"  # below a run, the one folder that is free for them
_DATASET_FILES = ("dataset_info.json", "state.json")  # what a saved dataset is known by
_COMMANDS = {
    "messages": "trl sft --model_name_or_path MODEL --dataset_name {folder} --output_dir OUT",
    "alpaca": "llamafactory-cli train --stage sft --do_train --model_name_or_path MODEL "
    "--dataset {name} --dataset_dir {folder} --template default --output_dir OUT",
    "datasets": 'datasets.load_from_disk("{path}")',
    "parquet": 'datasets.load_dataset("parquet", data_files="{path}")',
    "jsonl": 'datasets.load_dataset("json", data_files="{path}")',
}
_COMMANDS["sharegpt"] = _COMMANDS["alpaca"]


class _UnchangedError(Exception):
    """What is there already is the same."""


def export(
    run_dir: Path | str, form: str, out: Path | str, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write the subset of a finished run in a format; returns what a job prints.

    Args:
        run_dir: a run, or the folder of an addition (RUN/additions/NAME): then with the additions.
        form: one of FORMATS.
        out: the file, or for `datasets` the folder; also s3://...
        overwrite: replace another file, or another saved dataset, that is there.

    The same run gives the same bytes; what is there appears whole or not at all. Raises
    SettingsError for a format or a place that will not do, RunDirectoryError for a run without a
    selection.
    """
    if form not in FORMATS:
        listed = ", ".join(FORMATS)
        raise SettingsError(f"unknown format {form!r}; known: {listed}{meant(form, FORMATS)}")
    run = RunDirectory.at(run_dir)
    selection = _selection(run)
    path = RunDirectory.at(out).path  # a mirror, if it is an address
    _refuse_place(run, path, is_folder=form == "datasets")
    columns: list[str] = []
    with disk_problems_told(path):
        if form == "datasets":
            counts = _export_folder(selection, path, overwrite)
        else:
            named = _messages_column(run)
            counts, columns = _export_file(selection, form, path, named, overwrite)
        info = _tell_llama_factory(dataset_info(form, columns), path)
    _say_what_was_lost(form, counts)
    command = _COMMANDS[form].format(path=shown(path), folder=shown(path.parent), name=path.stem)
    say(f"{counts['rows']:,} rows in {shown(path)}; to train on them: {command}")
    told = {"run_dir": str(run), "format": form, "out": shown(path), **counts}
    return {**told, "dataset_info": info} if info else told


def _selection(run: RunDirectory) -> Artifact:
    """The list to train on: of an addition the merged one, else the run's own."""
    artifact = run.artifact("8-merged") or run.artifact("7-selection")
    if artifact is None:
        raise RunDirectoryError(f"{run} has no finished selection: run {typed('select')} first")
    return artifact


def _refuse_place(run: RunDirectory, path: Path, *, is_folder: bool) -> None:
    free = run.path / EXPORTS
    if path.is_relative_to(run.path) and not (path.is_relative_to(free) and path != free):
        raise SettingsError(
            f"--out {shown(path)} lies in the run, whose stages delete what is not theirs: "
            f"choose another place, or one below {shown(free)}"
        )
    blocking = next((p for p in path.parents if p.exists() and not p.is_dir()), None)
    if blocking is not None:
        raise SettingsError(f"--out {shown(path)}: {shown(blocking)} is a file, not a folder")
    if path.is_dir() and not is_folder:
        raise SettingsError(f"--out {shown(path)} is a folder: name a file in it")
    if path.is_file() and is_folder:
        raise SettingsError(f"--out {shown(path)} is a file: a dataset is a folder")


def _messages_column(run: RunDirectory) -> str | None:
    """The column of turns, where the settings name it and say of no instruction."""
    corpus = run.artifact("1-corpus")
    settings = {} if corpus is None else corpus.manifest.get("settings", {}).get("corpus", {})
    columns: dict[str, str] = settings.get("columns", {})
    return None if "instruction" in columns else columns.get("messages")


def _export_file(
    selection: Artifact, form: str, path: Path, messages: str | None, overwrite: bool
) -> tuple[dict[str, int], list[str]]:
    written: tuple[dict[str, int], list[str]] = {}, []
    with suppress(_UnchangedError), atomic_path(path) as temporary:
        written = write_file(selection, form, temporary, messages)
        if storage.exists(path):
            if file_sha256(path) == file_sha256(temporary):
                raise _UnchangedError
            _refuse_other(path, overwrite)
    return written


def _export_folder(selection: Artifact, path: Path, overwrite: bool) -> dict[str, int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        counts = write_dataset(selection, temporary)
        there = {file.relative_to(path).as_posix(): file for file in storage.files_in(path)}
        if there:
            made = {file.name: file for file in temporary.iterdir()}
            if _contents(there) == _contents(made):
                return counts
            if not set(_DATASET_FILES) <= there.keys():
                raise SettingsError(
                    f"{shown(path)} holds other files than a saved dataset's: choose another --out"
                )
            _refuse_other(path, overwrite)
        storage.remove_tree(path)
        if path.exists():  # moved aside, so that it is never half of each
            path.rename(temporary.with_name(f"{temporary.name}-old"))
        temporary.rename(path)
        for file in sorted(path.iterdir()):  # in a bucket: state.json, which is read first, last
            storage.publish(file)
    finally:
        for folder in (temporary, temporary.with_name(f"{temporary.name}-old")):
            shutil.rmtree(folder, ignore_errors=True)
    return counts


def _contents(files: dict[str, Path]) -> dict[str, str]:
    digest: Callable[[Path], str] = file_sha256
    return {name: digest(file) for name, file in files.items()}


def _refuse_other(path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise SettingsError(
            f"{shown(path)} exists and holds something else: "
            "add --overwrite to replace it, or choose another --out"
        )


def _tell_llama_factory(told: dict[str, Any] | None, path: Path) -> str | None:
    """Name the file in dataset_info.json beside it; where another one lies, say what to add."""
    if told is None:
        return None
    entry = {path.stem: {"file_name": path.name, **told}}
    info = path.with_name("dataset_info.json")
    if not storage.exists(info):
        write_json(info, entry)
        return shown(info)
    try:
        known = read_json(info)
    except ValueError:
        known = None
    if isinstance(known, dict) and known.get(path.stem) == entry[path.stem]:
        return shown(info)
    say(f"add this to {shown(info)}, which is there already and left as it is: {entry}")
    return None


_LOST = {
    "told_as_text": "{n} conversations have tools, or do not go from question to answer, which "
    "{form} has no place for: earlier turns are text in the instruction; messages keeps them",
    "with_history": "{n} rows have a system prompt or earlier turns in the columns system and "
    "history, which LLaMA-Factory reads and Axolotl does not",
    "turns_left_out": "{n} turns after a last answer are left out, since LLaMA-Factory skips rows "
    "with them; messages keeps them",
    "not_alternating": "{n} conversations do not alternate between user and assistant: "
    "LLaMA-Factory skips those rows",
    "developer_turns": "{n} developer turns are system turns there",
    "calls_beside_text": "{n} turns have tool calls beside their text, which LLaMA-Factory does "
    "not read; messages keeps them",
    "parts_joined": "{n} contents of several parts are one text; messages keeps them apart",
    "media_lost": "{n} images or the like lie in the turns themselves, with no address that {form} "
    "could name; messages keeps them",
}


def _say_what_was_lost(form: str, counts: dict[str, int]) -> None:
    for name, sentence in _LOST.items():
        if counts.get(name):
            say(sentence.format(n=f"{counts[name]:,}", form=form))
    for name, number in counts.items():
        what, _, key = name.partition("_")
        if what in ("lost", "unread"):
            fate = (
                "has no place in alpaca"
                if what == "lost"
                else "is kept, but no key of LLaMA-Factory"
            )
            more = ": turns of weight 0 would be trained on" if key == "weight" else ""
            say(f"the key {key} of turns, in {number:,} conversations, {fate}{more}")
