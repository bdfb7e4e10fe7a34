"""Which student, and which settings, learn a teacher best? Many fits on Ray Tune, one table.

nn-cift tune --config jobs/configs/study_size.yaml
nn-cift tune --config jobs/configs/study_size.yaml --best best.yaml

The teacher is asked about everything once; then many students are fitted on parts of its answers.
Trials, table and charts lie in RUN/study/NAME.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.commands import command_line
from engine.commands.command_line import Arguments

FLAGS = {"best FILE": "write the winning settings to this file"}


def tune(arguments: Arguments) -> dict[str, Any]:
    """Run the study; returns where its table lies and what won."""
    from engine.artifacts.files import read_json
    from engine.errors import SettingsError
    from engine.study.study import run_study
    from engine.terminal.called import typed

    if arguments.until is not None:
        raise SettingsError(f"--until is a flag of {typed('select')}: a study does all its trials")
    folder = run_study(arguments.config, run_dir=arguments.run_dir, overwrite=arguments.overwrite)
    if arguments.values["best"] is not None:
        Path(arguments.values["best"]).write_bytes((folder / "best.yaml").read_bytes())
    found = read_json(folder / "study.json")
    return {
        "trials": str(folder / "trials.parquet"),
        "settings": len(found["rows"]),
        "objective": found["objective"],
        "best": found["rows"][0] if found["rows"] else None,
    }


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main(__doc__, tune, words, FLAGS)
