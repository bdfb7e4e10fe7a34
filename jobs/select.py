#!/usr/bin/env python
"""Select the subset of an instruction corpus that is worth training on.

python jobs/select.py --config jobs/configs/demo.yaml
python jobs/select.py --config jobs/configs/my_corpus.yaml --corpus.path rows.jsonl --run-dir runs/a
ray job submit --working-dir . -- python jobs/select.py --config jobs/configs/demo.yaml

What is finished in the run directory is not done again; what was made with other settings is
redone with --overwrite only. Teacher answers are never paid for twice.
"""

import sys
from pathlib import Path

# This file's name shadows the standard library's `select` while its folder leads the path, so the
# folder makes way for the repository's root before anything else is imported.
_here = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
sys.path.insert(0, str(_here.parent))

from typing import Any

from engine.command_line import Arguments, main


def select(arguments: Arguments) -> dict[str, Any]:
    """Run the pipeline; returns the headline of its report."""
    from engine.progress import say
    from engine.stages.pipeline import run

    directory = run(
        arguments.config,
        run_dir=arguments.run_dir,
        until=arguments.until,
        overwrite=arguments.overwrite,
    )
    report = directory.artifact("8-report")
    if report is None or arguments.until is not None:
        return {"run_dir": str(directory)}
    headline = report.counts
    say(f"\n{headline['verdict']}\nsubset: {headline['subset']}\nreport: {headline['report']}")
    return {"run_dir": str(directory), **headline}


if __name__ == "__main__":
    stages = "ingest, embed, sample, score, fit, predict, select, report"
    sys.exit(main(__doc__, select, flags={"until STAGE": f"stop after this stage: {stages}"}))
