#!/usr/bin/env python
"""Score new rows with the frozen student of a finished run and add what they bring.

python jobs/score_new.py --run-dir runs/mine --corpus new_rows.jsonl
python jobs/score_new.py --run-dir runs/mine --corpus new_rows.jsonl --selection.budget 0.1
    --drift.audit_candidates 0 --corpus.where '{split: train}'

Only the new rows are embedded and predicted. Writes the list of additions, the subset with them,
and whether the student may still be trusted on rows like these: RUN/additions/NAME/.
"""

import sys
from pathlib import Path

# This folder holds a select.py, which shadows the standard library's `select`: the folder makes way
# for the repository's root before anything else is imported.
_here = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
sys.path.insert(0, str(_here.parent))

from typing import Any

from engine.command_line import RunArguments, main_of_run


def score_new(arguments: RunArguments) -> dict[str, Any]:
    """Do what is missing of the addition; returns its headline."""
    from engine.progress import say
    from engine.stages.additions import headline, score_new

    directory = score_new(
        arguments.run_dir,
        arguments.values["corpus"],
        overrides=arguments.overrides,
        overwrite=arguments.overwrite,
    )
    told = headline(directory)
    say(
        f"\n{told['added']:,} of {told['new_rows']:,} new rows add something; "
        f"{told['merged']:,} rows with the subset before: {told['subset']}"
    )
    if told["refit"]:
        say(f"the student should be fitted again: {'; '.join(told['reasons'])}")
    return {"run_dir": str(directory), **told}


if __name__ == "__main__":
    flags = {
        "corpus PATH": "the new rows: file, directory or glob, in the format of the run's corpus"
    }
    settings = """\
Those of the sections corpus, selection, drift and ray can be given as
--section.key VALUE, with VALUE read as YAML. All others are the run's.
docs/settings.md has all of them with their meaning."""
    sys.exit(main_of_run(__doc__, flags, score_new, settings=settings))
