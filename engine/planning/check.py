"""Check: what would leak or is said twice, before a run is started.

The comparison is that of ingest, with everything told and nothing left out; it works beside the run
directory and leaves nothing there.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from engine import storage
from engine.artifacts.files import atomic_path
from engine.artifacts.run_directory import RunDirectory, discard
from engine.config import Config
from engine.corpus.leaks import KINDS
from engine.corpus.screening import Screening
from engine.errors import LeakError, SettingsError
from engine.runtime.opening import opened
from engine.runtime.stage import StageContext
from engine.runtime.workflow import paths_to_see
from engine.stages.ingest import read_and_screen
from engine.terminal.progress import say

__all__ = ["check"]

SHOWN, EXCERPT = 10, 160  # leaks, characters of each text


def check(config: Config, run_dir: str | None = None, out: Path | None = None) -> dict[str, Any]:
    """Compare the candidates with all that is protected and with each other.

    Args:
        config: settings; `on_leak` says what is not to pass: a set whose leaks are to `warn` does.
        run_dir: in place of the config's.
        out: parquet file for the leaks.

    Returns {candidates, leaks: {set: {kind: rows}}, duplicates: {kind: rows}, passed, out}. Raises
    LeakError, with the same, for a leak that is not to pass, SettingsError where there is nothing
    to compare with, and what reading a corpus raises. Cost: one pass over the corpus; no model.
    """
    if out is not None and out.is_dir():
        raise SettingsError(f"--out {out} is a folder: name a file in it")
    home = RunDirectory.at(run_dir or config.run_dir).path
    scratch = home.with_name(home.name + ".check")
    was_there = home.parent.is_dir()
    discard(scratch)
    try:
        scratch.mkdir(parents=True)
        with opened(config, None) as executor:
            executor.refuse_unseen(paths_to_see(config, RunDirectory(scratch)))
            context = StageContext(_all_told(config), scratch / "1-corpus", {}, executor)
            parsed, screened = read_and_screen(context)
            found = {
                "candidates": sum(parsed["candidates"].kept),
                "leaks": screened.counts.get("leaks", {}),
                "duplicates": _duplicates(context.directory),
            }
            _show(context.directory / "leaks.parquet", screened, out)
    finally:
        discard(scratch)
        if not was_there and home.parent.is_dir() and not any(home.parent.iterdir()):
            home.parent.rmdir()
    return _judged(config, found, out)


def _all_told(config: Config) -> Config:
    """The settings with no leak left out, no job stopped, and duplicates looked for."""
    told = config.on_leak.model_copy(update={"protected": "warn", "targets": "warn"})
    found = config.duplicates
    if found.drop == "keep":
        found = found.model_copy(update={"drop": "near"})
    return config.model_copy(update={"on_leak": told, "duplicates": found})


def _duplicates(directory: Path) -> dict[str, int]:
    kinds = pq.read_table(storage.fetch(directory / "duplicates.parquet"), columns=["kind"])["kind"]
    return {kind: kinds.to_pylist().count(kind) for kind in ("exact", "near")}


def _show(path: Path, screened: Screening, out: Path | None) -> None:
    """Say the first leaks, with the beginnings of both texts; copy all to `out`."""
    if "leaks" not in screened.parts:
        say("nothing to compare with: no target, no evaluation.test, no protect; duplicates only")
        return
    file = pq.ParquetFile(storage.fetch(path))
    shown = 0
    for batch in file.iter_batches(batch_size=SHOWN):
        for row in batch.to_pylist():
            if shown == SHOWN:
                break
            shown += 1
            say(
                f"{row['kind']} ({row['score']:.2f}) in {row['set']}: {row['file']}, line "
                f"{row['line']}\n    {_excerpt(row['text'])}\n  repeats {row['protected_file']}, "
                f"line {row['protected_line']}\n    {_excerpt(row['protected_text'])}",
                "leak",
            )
    if file.metadata.num_rows > shown:
        say(f"and {file.metadata.num_rows - shown:,} more" + ("" if out else ": --out keeps all"))
    if out is not None:
        with atomic_path(out.absolute()) as temporary:
            shutil.copyfile(storage.fetch(path), temporary)


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[:EXCERPT]} ..."


def _judged(config: Config, found: dict[str, Any], out: Path | None) -> dict[str, Any]:
    """The result, or the LeakError that holds it."""
    settings = config.on_leak
    stopping = [
        f"{counts[kind]:,} {kind} in {name}"
        for name, counts in found["leaks"].items()
        for kind in KINDS
        if counts[kind] and kind in settings.kinds
        if (settings.targets if name == "targets" else settings.protected) != "warn"
    ]
    for name, counts in found["leaks"].items():
        listed = ", ".join(f"{n:,} {kind}" for kind, n in counts.items())
        say(f"{name}: {listed} of {found['candidates']:,} candidates")
    listed = ", ".join(f"{n:,} {kind}" for kind, n in found["duplicates"].items())
    say(f"duplicates: {listed}")
    result = {**found, "passed": not stopping, "out": None if out is None else str(out)}
    if stopping:
        raise LeakError(
            f"candidates repeat what may not be trained on: {', '.join(stopping)}; a run leaves "
            "them out with on_leak: drop",
            result,
        )
    say("no leak that on_leak does not pass")
    return result
