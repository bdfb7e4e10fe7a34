#!/usr/bin/env python
"""Write the subset of a finished run as a file that a trainer reads.

python jobs/export.py --run-dir runs/mine --format messages --out sft/messages/train.jsonl
python jobs/export.py --run-dir runs/mine --format alpaca --out llama_factory/subset.json
python jobs/export.py --run-dir runs/mine/additions/NAME --format datasets --out sft/merged

Chat rows come back as the conversations that they were. With the folder of an addition as the run,
the list is the subset with its additions. How to train on each format: docs/export.md.
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


def export(arguments: RunArguments) -> dict[str, Any]:
    """Write the file, say how to train on it; returns what was counted."""
    from engine.exports.export import export

    return export(
        arguments.run_dir,
        arguments.values["format"],
        arguments.values["out"],
        overwrite=arguments.overwrite,
    )


if __name__ == "__main__":
    flags = {
        "format FORMAT": "messages, alpaca, sharegpt, datasets, parquet or jsonl",
        "out PATH": "the file, or for datasets the folder; also s3://...",
    }
    sys.exit(main_of_run(__doc__, flags, export))
