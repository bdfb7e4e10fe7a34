"""The command `nn-cift` of a wheel that is really installed, called from where no checkout is."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of a copy of the sources: pip builds where they lie, and would leave files there."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "engine", source / "engine", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, "wheel", *flags, str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def program(wheel) -> Path:
    """`nn-cift` in an environment of its own, which sees what this one has beside the wheel."""
    home = wheel.parent / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    python = home / "bin" / "python"
    flags = ["--no-deps", "--no-index"]
    subprocess.run([*PIP, "--python", str(python), "install", *flags, str(wheel)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    # the folder alone: .pth files in it, such as that of an editable install, are not read
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "nn-cift"


@pytest.fixture
def start(program, tmp_path):
    """Run the command outside of the checkout, with nothing that could lead back to it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words):
        return subprocess.run(
            [str(program), *map(str, words)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_all_files_of_the_engine_are_in_the_wheel(wheel):
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "engine").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there


def test_it_runs_from_the_wheel(program, start):
    done = start("--version")
    assert done.returncode == 0 and done.stdout.startswith("nn-cift ") and not done.stderr
    done = start()
    assert done.returncode == 0 and "\n  select " in done.stdout
    done = start("select", "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: nn-cift select --config FILE ")
    python = [str(program.parent / "python"), "-c", "import engine; print(engine.__file__)"]
    done = subprocess.run(python, cwd=program.parent, env={}, capture_output=True, text=True)
    assert Path(done.stdout.strip()).is_relative_to(program.parents[1])


def test_what_is_wrong_is_told_in_one_sentence(start, tmp_path):
    (tmp_path / "job.yaml").write_text("corpus: {path: nowhere.jsonl}\n")
    for words, sentence in [
        (["slect"], "unknown command 'slect': expected one of "),
        (["plan"], "--config; nn-cift plan --help tells what there is"),
        (["select", "--config", "none.yaml"], "none.yaml"),
        (["select", "--config", "job.yaml", "--selection.bugdet", 3], "did you mean budget?"),
        (["plan", "--config", "job.yaml", "--gpu-speedup", "much"], "a number above 0, got much"),
        (["explain", "--run-dir", ".", "--id", "a"], "run nn-cift select first"),
    ]:
        done = start(*words)
        assert done.returncode == 2 and not done.stdout, done.stderr
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert sentence in done.stderr
