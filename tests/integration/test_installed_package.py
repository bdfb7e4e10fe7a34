"""Components of another package, which is really installed: found by a job and by its workers."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from engine.artifacts.files import load_array, read_json, read_table
from engine.artifacts.run_directory import RunDirectory

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests/packages/extension"


def install(source: Path, folder: Path) -> Path:
    """Install a package, as pip does, where only who is told of the folder sees it."""
    copied = shutil.copytree(source, folder / "source")
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--disable-pip-version-check", "--target"]
    subprocess.run([*command, str(site), str(copied)], check=True)
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(SOURCE, tmp_path_factory.mktemp("installed"))


def start(path, *words):
    places = os.pathsep.join(map(str, [*path, ROOT]))
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
    )


def select(path, config, *words):
    return start(path, ROOT / "jobs/select.py", "--config", config, *words)


@pytest.fixture
def config(small_job, tmp_path):
    job = {
        **small_job,
        "teacher": {"name": "shared_words"},
        "student": {"name": "candidate_means"},
        "execution": "local",
        "run_dir": str(tmp_path / "run"),
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def test_a_job_uses_all_three(config, site, tmp_path):
    settings = ("--teacher.shared_words.least_letters", 4, "--selection.strongest.mean_weight", 2)
    done = select([site], config, *settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["student"] == "candidate_means"
    run = RunDirectory.at(tmp_path / "run")

    scores = read_table(run.artifact("4-teacher").path("labels"))["score"].to_numpy()
    assert 0 <= scores.min() < scores.max() <= 1

    selection, influence = run.artifact("7-selection"), run.artifact("6-influence")
    assert selection.counts["objective"] == "strongest", "that of the teacher"
    told = read_json(run.path / "config.json")
    assert told["teacher"]["shared_words"] == {"least_letters": 4}
    assert told["selection"]["strongest"] == {"mean_weight": 2.0}

    # every target has the same influence, so the strongest are those of the highest mean
    means = load_array(influence.path("means"))
    picked = read_table(selection.path("ranking"))["row"].to_numpy()
    assert len(picked) == 30
    assert np.sort(means[picked])[0] >= np.sort(np.delete(means, picked))[-1]
    page = run.artifact("8-report").path("report").read_text()
    assert all(name in page for name in ("shared_words", "candidate_means", "strongest"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--teacher.name", "shared_wrods"), "got 'shared_wrods'; did you mean shared_words?"),
        (
            ("--teacher.shared_words.least_leters", "2"),
            "unknown setting teacher.shared_words.least_leters; did you mean least_letters?",
        ),
        (
            ("--selection.strongest.mean_weight", "-1"),
            "setting selection.strongest.mean_weight: Input should be greater than or equal to 0",
        ),
    ],
)
def test_its_names_and_settings_are_spelled_like_the_engine_s(config, site, words, said):
    done = select([site], config, *words)
    assert done.returncode == 2 and said in done.stderr


def test_where_it_is_not_installed_its_names_are_unknown(config):
    done = select([], config)
    assert done.returncode == 2
    assert "setting teacher.name: must be one of delift," in done.stderr


def test_a_package_that_cannot_be_imported_is_told_in_one_sentence(config, tmp_path):
    broken = shutil.copytree(SOURCE, tmp_path / "broken")
    (broken / "nn_cift_extension/teacher.py").write_text("import nothing_of_that_name\n")
    there = install(broken, tmp_path)
    done = select([there], config)
    assert done.returncode == 2
    assert (
        "error: teacher shared_words of an installed package cannot be imported from "
        "nn_cift_extension.teacher:SharedWordsTeacher: ModuleNotFoundError" in done.stderr
    )
    # what does not name it does not notice
    code = "from engine.config import parse_config; parse_config({'corpus': {'path': 'x'}})"
    done = start([there], "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_engine_s_own_need_no_metadata():
    """As where `ray job submit` has put a working directory."""
    code = (
        "import importlib.metadata as m; m.entry_points = lambda **named: ()\n"
        "from engine.components import component, component_names\n"
        "from engine.config.facts import TEACHERS, STUDENTS, OBJECTIVES\n"
        "for kind, name in (TEACHERS, 'less'), (STUDENTS, 'linear'), (OBJECTIVES, 'round_robin'):\n"
        "    assert len(component_names(kind)) >= 6 and component(kind, name).name == name"
    )
    done = start([], "-c", code)
    assert done.returncode == 0, done.stderr
