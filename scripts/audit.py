"""Ask the advisory service about every version in requirements.lock; `make check` runs it.

    python scripts/audit.py [LOCK]

    0 nothing known against them, or nothing could be asked, which one line says        1 advisories

pip-audit does the asking. It stands beside the lock, not in it: what judges the lock should be the
newest there is.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")
_SHOWN = 5  # packages that a line names


def main() -> int:
    """Print what is known and return the exit code."""
    lock = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements.lock"
    if importlib.util.find_spec("pip_audit") is None:
        return _say("not audited: pip-audit is not installed; pip install pip-audit")
    answers: list[dict[str, Any]] = []
    for pins in rounds(lock.read_text(encoding="utf-8")):
        try:
            answers += ask(pins)
        except ValueError as error:
            return _say(f"not audited: the advisory service did not answer ({error})")
    return report(answers)


def ask(pins: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """What pip-audit answers to some pins; ValueError with its last line where it does not."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "requirements.txt")
        file.write_text("".join(f"{name}=={version}\n" for name, version in pins))
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip"]
        command += ["--format", "json", "--progress-spinner", "off", "--requirement", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError, TypeError):
        said = done.stderr.strip().splitlines() or ["pip-audit said nothing"]
        raise ValueError(said[-1][:300]) from None


def rounds(lock: str) -> list[list[tuple[str, str]]]:
    """The pins of a lock, whatever Python they are for, each name once in each list."""
    found: dict[str, list[str]] = {}
    for line in lock.splitlines():
        if pin := _PIN.match(line):
            found.setdefault(pin[1], []).append(pin[2])
    most = max(map(len, found.values()), default=0)
    return [[(n, pins[i]) for n, pins in found.items() if i < len(pins)] for i in range(most)]


def report(answers: list[dict[str, Any]]) -> int:
    """Say what pip-audit's answers come to; returns the exit code."""
    skipped = [str(answer["name"]) for answer in answers if "skip_reason" in answer]
    num_asked = len(answers) - len(skipped)
    if not num_asked:
        reason = answers[0]["skip_reason"] if answers else "the lock is empty"
        return _say(f"not audited: nothing is known of any of {len(answers)} packages ({reason})")
    lines = list(dict.fromkeys(line for answer in answers for line in advisories(answer)))
    said = [f"audited: {num_asked} packages, {len(lines) or 'no'} known vulnerabilities"]
    if skipped:
        more = f" and {len(skipped) - _SHOWN} more" if len(skipped) > _SHOWN else ""
        said.append(f"not audited: {', '.join(skipped[:_SHOWN])}{more}: the service has none")
    _say("\n".join([*said, *lines]))
    return 1 if lines else 0


def advisories(answer: dict[str, Any]) -> Iterator[str]:
    """One line for each advisory against a package."""
    for found in answer.get("vulns", []):
        fixed = ", ".join(found.get("fix_versions") or []) or "no version yet"
        names = ", ".join([found["id"], *found.get("aliases", [])])
        yield f"  {answer['name']} {answer['version']}: {names}; fixed in {fixed}"


def _say(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
