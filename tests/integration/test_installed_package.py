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
from engine.artifacts.rows import TableParts
from engine.artifacts.run_directory import RunDirectory
from engine.config import ModelConfig
from engine.models.encoder import Encoder
from tests.small_job import write_rows

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


def test_a_teacher_with_a_model_and_an_objective_beside_owned_rows(
    small_job, config, site, tmp_path
):
    write_rows(tmp_path / "owned.jsonl", 40, 5, "o")
    job = {
        **yaml.safe_load(config.read_text()),
        "owned": {"path": str(tmp_path / "owned.jsonl")},
        "teacher": {"name": "answers_alike", "model": small_job["embedding"]["model"]},
    }
    config.write_text(yaml.safe_dump(job))
    settings = ("--teacher.answers_alike.power", 3, "--selection.objective", "new_alone")
    done = select([site], config, *settings, "--selection.new_alone.strictness", 0.5)
    assert done.returncode == 0, done.stderr
    run = RunDirectory.at(tmp_path / "run")

    labels = read_table(run.artifact("4-teacher").path("labels")).to_pandas()
    encoder = Encoder(ModelConfig(**small_job["embedding"]["model"]))
    answers = {}
    for side in ("candidates", "targets"):
        rows = TableParts(run.artifact("1-corpus"), side)
        texts = [example.output for example in rows.examples(np.arange(len(rows)))]
        answers[side] = encoder.encode(texts, 32).vectors
    pairs = (answers["candidates"][labels["candidate"]], answers["targets"][labels["target"]])
    cosines = (pairs[0] * pairs[1]).sum(axis=1)
    np.testing.assert_allclose(labels["score"], np.maximum(cosines, 0) ** 3, atol=1e-4)
    assert labels["score"].std() > 0.01

    # by hand: the influence and the owned rows', scaled as the labels of training are
    selection, influence = run.artifact("7-selection"), run.artifact("6-influence")
    training = labels["score"][labels["quadrant"] == 0]
    low, high = np.float32(training.min()), np.float32(training.max())
    blocks = [load_array(influence.directory / part.path) for part in influence.parts("dense")]
    dense = np.concatenate(blocks)
    owned = load_array(selection.path("owned"))
    worth = np.maximum(np.maximum((dense - low) / (high - low), 0) - 0.5 * owned, 0).sum(axis=1)
    ranking = read_table(selection.path("ranking"))
    assert owned.max() > 0 and len(ranking) == 30
    np.testing.assert_allclose(ranking["gain"], np.sort(worth)[::-1][:30], rtol=1e-4)
    np.testing.assert_allclose(worth[ranking["row"]], ranking["gain"], rtol=1e-4)


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
