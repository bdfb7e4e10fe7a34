#!/usr/bin/env python
"""Why was a row kept or dropped?

python jobs/explain.py --run-dir runs/mine --id ROW

Says why, its rank or what it would have added, and which selected row is nearest to it.
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


def explain(arguments: RunArguments) -> dict[str, Any]:
    """Say it in words on stderr; returns all that is known of the row."""
    from engine.artifacts.run_directory import RunDirectory
    from engine.errors import RunDirectoryError
    from engine.progress import say
    from engine.selection.explain import explain

    run = RunDirectory.at(arguments.run_dir)
    corpus, selection = run.artifact("1-corpus"), run.artifact("7-selection")
    if corpus is None or selection is None:
        raise RunDirectoryError(f"{run} has no finished selection: run jobs/select.py first")
    told = explain(corpus, selection, arguments.values["id"])
    say("\n  ".join(told["why"]))
    return told


if __name__ == "__main__":
    flags = {"id ROW": "of the row, as in the corpus or, where it has none, the ranking"}
    sys.exit(main_of_run(__doc__, flags, explain))
