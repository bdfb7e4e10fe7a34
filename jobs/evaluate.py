#!/usr/bin/env python
"""Does a model do better with the subset, and with whose? Against random rows, and all of them.

python jobs/evaluate.py --config jobs/configs/evaluate.yaml

A model answers test rows with the rows of every arm, shown in its prompt and by QLoRA. The table
of what it made of them is printed and lies in RUN/evaluation/5-results.
"""

import sys
from pathlib import Path

# This folder holds a select.py, which shadows the standard library's `select`: the folder makes way
# for the repository's root before anything else is imported.
_here = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
sys.path.insert(0, str(_here.parent))

from typing import Any

from engine.command_line import Arguments, main


def evaluate(arguments: Arguments) -> dict[str, Any]:
    """Evaluate all arms; prints the table and returns where it lies."""
    from engine.artifacts.files import shown
    from engine.errors import SettingsError
    from engine.progress import say
    from engine.stages.arms import evaluate
    from engine.storage import fetch

    if arguments.until is not None:
        raise SettingsError("--until is a flag of jobs/select.py: evaluate does all its stages")
    directory = evaluate(arguments.config, run_dir=arguments.run_dir, overwrite=arguments.overwrite)
    artifact = directory.artifact("5-results")
    assert artifact is not None
    say("\n" + fetch(artifact.path("markdown")).read_text(encoding="utf-8"))
    return {
        "evaluation": str(directory),
        "results": shown(artifact.path("results")),
        "table": shown(artifact.path("markdown")),
        **artifact.counts,
    }


if __name__ == "__main__":
    sys.exit(main(__doc__, evaluate))
