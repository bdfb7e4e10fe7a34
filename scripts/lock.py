"""Write requirements.lock: exact versions for every given Python, told apart by markers.

    python scripts/lock.py python3.10 python3.11

Each interpreter's own pip resolves pyproject.toml with the extras below; versions on which all
agree are written once. torch's CUDA libraries are left to torch's own pins, so that the same lock
serves the CPU build and the CUDA build.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "eval,study,demo,dev,docs"
PINNED = ["torch==2.13.0"]
LEFT_TO_TORCH = ("nvidia-", "cuda-", "triton", "nn-cift-engine")


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """The interpreter's version, e.g. 3.11, and its resolution as {package: version}."""
    version = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.json"
        subprocess.run([python, "-m", "venv", f"{directory}/venv"], check=True)
        command = [f"{directory}/venv/bin/python", "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", str(report), f"{ROOT}[{EXTRAS}]", *PINNED]
        subprocess.run(command, check=True, stdout=sys.stderr)
        installed = json.loads(report.read_text())["install"]
    packages = {
        item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"]
        for item in installed
    }
    return version, {
        name: pinned.split("+")[0]
        for name, pinned in packages.items()
        if not name.startswith(LEFT_TO_TORCH)
    }


def merge(resolutions: list[tuple[str, dict[str, str]]]) -> list[str]:
    """One line per package, or one per Python version where they differ."""
    lines = []
    last = len(resolutions) - 1
    for name in sorted({name for _, packages in resolutions for name in packages}):
        pins = [packages.get(name) for _, packages in resolutions]
        if len(set(pins)) == 1:
            lines.append(f"{name}=={pins[0]}")
            continue
        for position, (python, packages) in enumerate(resolutions):
            if name in packages:
                # the newest Python's pins serve the ones after it
                relation = ">=" if position == last else "=="
                lines.append(f'{name}=={packages[name]}; python_version {relation} "{python}"')
    return lines


def main() -> None:
    """Resolve for every interpreter on the command line and write the lock."""
    resolutions = [resolve(python) for python in sys.argv[1:]]
    pythons = " ".join(f"python{version}" for version, _ in resolutions)
    header = f"# made by: python scripts/lock.py {pythons}"
    (ROOT / "requirements.lock").write_text("\n".join([header, *merge(resolutions)]) + "\n")


if __name__ == "__main__":
    main()
