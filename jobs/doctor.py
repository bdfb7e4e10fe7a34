#!/usr/bin/env python
"""`nn-cift doctor` from a checkout, without installing it: engine/commands/doctor.py."""

import sys
from pathlib import Path

# This folder holds a select.py, which shadows the standard library's `select`: the folder makes way
# for the repository's root before anything else is imported.
_here = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
sys.path.insert(0, str(_here.parent))

from engine.commands.start import start

if __name__ == "__main__":
    sys.exit(start("doctor", by_script=True))
