#!/usr/bin/env python
"""Which student, and which settings, learn a teacher best? Many fits on Ray Tune, one table.

python jobs/tune.py --config jobs/configs/study_size.yaml
python jobs/tune.py --config jobs/configs/study_size.yaml --best best.yaml

The teacher is asked about everything once; then many students are fitted on parts of its answers.
Trials, table and charts lie in RUN/study/NAME.
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


def tune(arguments: Arguments) -> dict[str, Any]:
    """Run the study; returns where its table lies and what won."""
    from engine.artifacts.files import read_json
    from engine.errors import SettingsError
    from engine.study.study import run_study

    if arguments.until is not None:
        raise SettingsError("--until is a flag of jobs/select.py: a study does all its trials")
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


if __name__ == "__main__":
    sys.exit(main(__doc__, tune, flags={"best FILE": "write the winning settings to this file"}))
