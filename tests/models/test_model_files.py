"""Models of strangers: what their files may not make a loader do."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models import gguf, resolve
from engine.models.encoder import Encoder
from engine.models.language_model import LanguageModel
from engine.models.token_counter import TokenCounter
from tests.tiny_models import build_tiny_encoder, build_tiny_language_model

PROGRAM = "from pathlib import Path\nPath({mark!r}).touch()\nclass Model: pass\n"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Mark:
    """Pickled, it makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    build_tiny_encoder(folder / "encoder")
    build_tiny_language_model(folder / "lm")
    return folder


@pytest.fixture
def encoder(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built / "encoder", tmp_path / "encoder"))


@pytest.fixture
def lm(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built / "lm", tmp_path / "lm"))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "a-stranger-was-here"


def change(path: Path, **values: object) -> None:
    old = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**old, **values}))


def refused(path: Path, reason: str) -> None:
    """Neither loader takes it, each with the same one sentence."""
    for load in (Encoder, LanguageModel, TokenCounter):
        with pytest.raises(ModelError, match=reason) as caught:
            load(ModelConfig(path=str(path)))
        assert "\n" not in str(caught.value)


def test_the_models_as_they_are_load(encoder: Path, lm: Path):
    assert Encoder(ModelConfig(path=str(encoder))).dim == 32
    assert LanguageModel(ModelConfig(path=str(lm))).eos == 257


def test_pickles_named_in_the_index_of_safetensors_are_not_opened(lm: Path, mark: Path):
    tensors = load_file(lm / "model.safetensors")
    (lm / "model.safetensors").rename(lm / "looks-good.safetensors")
    torch.save({**tensors, "x": _Mark(mark)}, lm / "evil.bin")
    names = dict.fromkeys(tensors, "evil.bin")
    change(lm / "model.safetensors.index.json", metadata={}, weight_map=names)
    refused(lm, r"names 'evil\.bin' as weights: expected safetensors files beside it")
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["../other/model.safetensors", "/etc/model.safetensors", "..\\model.safetensors", 5]
)
def test_weights_of_elsewhere_are_not_read(lm: Path, name: object):
    change(lm / "model.safetensors.index.json", metadata={}, weight_map={"a": name})
    refused(lm, "as weights: expected safetensors files beside it")


@pytest.mark.parametrize(
    "kind",
    [
        "stranger.Module",
        "os.system",
        "sentence_transformers.base.model.pickle",
        "sentence_transformers.models.Router",
        "sentence_transformers.models.WordEmbeddings",
        "sentence_transformers.models.Pooling.x",
        "torch.nn.Identity",
    ],
)
def test_classes_of_others_are_not_imported(
    encoder: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    (encoder / "stranger.py").write_text(PROGRAM.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(encoder))  # as if it were installed as well
    modules = json.loads((encoder / "modules.json").read_text())
    modules[1]["type"] = kind
    (encoder / "modules.json").write_text(json.dumps(modules))
    refused(encoder, "asks for the class '.*', whose code would run")
    assert not mark.exists() and "stranger" not in sys.modules


@pytest.mark.parametrize("folder", ["../lm", "/etc", "a/../../b", "a\\..\\b", "a\0b"])
def test_modules_lie_inside_the_model(encoder: Path, folder: str):
    modules = json.loads((encoder / "modules.json").read_text())
    modules[1]["path"] = folder
    (encoder / "modules.json").write_text(json.dumps(modules))
    refused(encoder, "names the folder .*, which is not in it")


def test_modules_with_pickled_weights_are_refused(encoder: Path, mark: Path):
    modules = json.loads((encoder / "modules.json").read_text())
    dense = {"name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (encoder / "modules.json").write_text(json.dumps([*modules, {"idx": 2, **dense}]))
    (encoder / "2_Dense").mkdir()
    change(encoder / "2_Dense" / "config.json", in_features=32, out_features=8, bias=False)
    torch.save({"linear.weight": _Mark(mark)}, encoder / "2_Dense" / "pytorch_model.bin")
    refused(encoder, r"its module 2_Dense has no model\.safetensors")
    assert not mark.exists()


@pytest.mark.parametrize("which", ["lm", "encoder"])
def test_an_adapter_brings_no_other_model(request: pytest.FixtureRequest, which: str):
    path = request.getfixturevalue(which)
    change(path / "adapter_config.json", base_model_name_or_path="someone/else", peft_type="LORA")
    refused(path, r"holds adapter_config\.json")


@pytest.mark.parametrize("section", ["model_args", "model_kwargs"])
@pytest.mark.parametrize("argument", ["adapter_kwargs", "gguf_file", "subfolder", "weights_only"])
def test_settings_of_an_encoder_point_nowhere_else(encoder: Path, section: str, argument: str):
    change(encoder / "sentence_bert_config.json", **{section: {argument: False}})
    refused(encoder, f"sets {argument}, which decides what files are read")


@pytest.mark.parametrize("value", ["someone/kernel", {"text": "someone/kernel"}])
def test_no_kernel_is_fetched_from_a_hub(lm: Path, value: object):
    change(lm / "config.json", attn_implementation=value)
    refused(lm, "asks for the attention 'someone/kernel', which is code of a hub repository")
    change(lm / "config.json", attn_implementation="sdpa")
    assert LanguageModel(ModelConfig(path=str(lm))).eos == 257


@pytest.mark.parametrize("name", ["modules.json", "config.json", "model.safetensors.index.json"])
def test_files_that_are_no_json_are_one_sentence(encoder: Path, name: str):
    (encoder / name).write_bytes(b"\xff\x1b[31m" + b"[" * 100_000)
    refused(encoder, f"{name} is not JSON")


def _with_program(path: Path, mark: Path) -> None:
    (path / "modeling_stranger.py").write_text(PROGRAM.format(mark=str(mark)))
    names = {"AutoConfig": "modeling_stranger.Model", "AutoModel": "modeling_stranger.Model"}
    names["AutoModelForCausalLM"] = "modeling_stranger.Model"
    change(path / "config.json", auto_map=names, model_type="stranger")
    tokenizer = {"AutoTokenizer": ["modeling_stranger.Model", "modeling_stranger.Model"]}
    change(path / "tokenizer_config.json", auto_map=tokenizer, tokenizer_class="Model")


@pytest.mark.parametrize("load", [Encoder, LanguageModel, TokenCounter])
def test_programs_of_a_model_are_not_run_and_nobody_is_asked(
    built: Path, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, load: type
):
    path = Path(shutil.copytree(built / ("encoder" if load is Encoder else "lm"), tmp_path / "m"))
    _with_program(path, mark)
    monkeypatch.setattr("builtins.input", lambda text="": pytest.fail("asked on the terminal"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(ModelConfig(path=str(path)))
    assert not mark.exists()


def test_that_program_would_run_if_it_were_trusted(
    lm: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Or the test above could not fail."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "programs"))
    monkeypatch.setattr(sys, "path", [*sys.path])  # it puts that folder there
    _with_program(lm, mark)
    with pytest.raises(AttributeError):  # it is no configuration, which shows once it has run
        TokenCounter(ModelConfig(path=str(lm), trust_remote_code=True))
    assert mark.exists()


def test_a_gguf_is_read_without_what_lies_beside_it(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its identity is that of the file alone, so its neighbours must not change the result."""
    import transformers

    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    _with_program(tmp_path, mark)
    change(tmp_path / "adapter_config.json", base_model_name_or_path="someone/else")
    seen: list[list[str]] = []

    def look(folder: str, **arguments: object) -> None:
        seen.append(sorted(path.name for path in Path(folder).iterdir()))
        assert arguments["trust_remote_code"] is False
        assert (Path(folder) / str(arguments["gguf_file"])).read_bytes() == b"GGUF"
        raise OSError("looked")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", look)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="looked"):
        gguf._convert(tmp_path / "model.gguf", tmp_path / "out")
    assert seen == [["model.gguf"]] and not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("load", [LanguageModel, TokenCounter])
def test_a_local_model_asks_no_hub(lm: Path, monkeypatch: pytest.MonkeyPatch, load: type):
    import transformers

    monkeypatch.setattr(
        transformers.AutoTokenizer,
        "from_pretrained",
        lambda source, **arguments: pytest.fail(str(arguments["local_files_only"])),
    )
    with pytest.raises(pytest.fail.Exception, match=r"^True$"):
        load(ModelConfig(path=str(lm)))


def test_a_hub_model_is_checked_like_a_directory(encoder: Path, monkeypatch: pytest.MonkeyPatch):
    """The loaders are never reached: nothing but the small files is asked for."""
    asked: list[str] = []

    def cached_file(source: str, name: str, revision: str | None, **rest: object) -> str | None:
        assert (source, revision) == ("owner/name", COMMIT)
        asked.append(name)
        return str(encoder / name) if (encoder / name).is_file() else None

    monkeypatch.setattr("transformers.utils.cached_file", cached_file)
    config = ModelConfig(path="owner/name", revision=COMMIT)
    resolve.check_hub_files(resolve.resolve(config), config.path)
    assert {"modules.json", "adapter_config.json", "model.safetensors.index.json"} <= set(asked)
    change(encoder / "adapter_config.json", base_model_name_or_path="someone/else")
    for load in (Encoder, LanguageModel, TokenCounter):
        with pytest.raises(ModelError, match=r"owner/name holds adapter_config\.json"):
            load(config)
