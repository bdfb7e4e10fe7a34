"""What would a run take? Reads the corpus, probes some rows, spends a minute or two.

nn-cift plan --config jobs/configs/my_corpus.yaml --corpus.path my_rows.jsonl
nn-cift plan --config jobs/configs/my_corpus.yaml --cluster cluster.yaml --gpu-speedup 40

For every stage rows, teacher calls, hours, memory and disk: of this run, and of asking the teacher
about everything. Leaves nothing in the run directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.commands import command_line
from engine.commands.command_line import Arguments

CLUSTER = "cluster.yaml"  # taken where it lies in the working directory
FLAGS = {
    "cluster FILE": f"file of Ray's cluster launcher, to tell its hours (default: {CLUSTER})",
    "gpu-speedup TIMES": "how many workers of this machine one of its GPUs does the work of",
}


def plan(arguments: Arguments) -> dict[str, Any]:
    """Say it as two tables on stderr; returns them as numbers."""
    from engine.errors import SettingsError
    from engine.planning.machines import read_cluster
    from engine.planning.plan import headline, make_plan, table
    from engine.terminal.progress import say

    given, speed = arguments.values["cluster"], arguments.values["gpu-speedup"]
    path = Path(given or CLUSTER)
    cluster = read_cluster(path) if given or path.is_file() else None
    try:
        speedup = None if speed is None else float(speed)
    except ValueError:
        speedup = 0.0
    if speedup is not None and not speedup > 0:
        raise SettingsError(f"--gpu-speedup must be a number above 0, got {speed}")
    made = make_plan(
        arguments.config, run_dir=arguments.run_dir, cluster=cluster, gpu_speedup=speedup
    )
    say(f"\nThis run\n\n{table(made.stages, made)}")
    say(f"\nThe teacher asked about everything\n\n{table(made.everything, made)}\n")
    say("\n".join(made.remarks))
    return headline(made)


def main(words: Sequence[str]) -> int:
    """The command with such words; returns its exit code."""
    return command_line.main(__doc__, plan, words, FLAGS)
