"""Object storage against a real S3 protocol server on the loopback."""

import os
import re

import numpy as np
import pytest

from engine import storage
from engine.artifacts.files import atomic_path, load_array, read_json, save_array, write_json
from engine.artifacts.parts import finish_part, finished_part
from engine.artifacts.run_directory import RunDirectory
from engine.config import CorpusConfig
from engine.corpus.readers import list_slices, read_slice
from engine.errors import InputError, RunDirectoryError, SettingsError, StorageError
from engine.models.resolve import model_identity, resolve
from engine.stages.ingest import identity
from tests import buckets
from tests.tiny_models import build_tiny_encoder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with buckets.bucket(tmp_path_factory.mktemp("s3") / "server.log") as settings:
        yield settings


@pytest.fixture
def url(server, tmp_path, monkeypatch):
    """The address of the server; the environment reaches it, and the cache is new."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NN_CIFT_CACHE", str(tmp_path / "cache"))
    storage._filesystem.cache_clear()
    yield server["AWS_ENDPOINT_URL"]
    storage._filesystem.cache_clear()


def other_node(monkeypatch, tmp_path):
    """From here on this process has another disk."""
    monkeypatch.setenv("NN_CIFT_CACHE", str(tmp_path / "other"))


def test_a_path_is_the_mirror_of_an_address_and_back(tmp_path, monkeypatch):
    monkeypatch.setenv("NN_CIFT_CACHE", str(tmp_path))
    path = storage.mirror("s3://bucket/runs/a/")
    assert path.is_relative_to(tmp_path) and storage.uri_of(path) == "s3://bucket/runs/a"
    assert storage.uri_of(path / "x/y.npy") == "s3://bucket/runs/a/x/y.npy"
    assert storage.uri_of(tmp_path / "runs") is None
    assert [storage.is_remote(p) for p in ("gs://b/x", "hf:name", "/a/b", "file:///a")] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://key:secret@bucket/x", "credentials and options do not belong"),
        ("s3://bucket/x?secret_key=secret", "credentials and options do not belong"),
        ("s3://bucket/../x", "not an address"),
        ("s3://bucket/a//x", "not an address"),
        ("s3:///x", "not an address"),
    ],
)
def test_addresses_of_no_use(uri, said):
    with pytest.raises(SettingsError, match=said) as caught:
        storage.mirror(uri)
    assert "secret@" not in str(caught.value) and "=secret" not in str(caught.value)


def test_a_scheme_that_nobody_knows():
    with pytest.raises(SettingsError, match="no file system for nowhere://"):
        storage.exists(storage.mirror("nowhere://bucket/x"))


def test_other_schemes_go_through_fsspec(tmp_path, monkeypatch):
    monkeypatch.setenv("NN_CIFT_CACHE", str(tmp_path))
    path = storage.mirror("memory://bucket/run/value.json")
    write_json(path, 1)
    path.unlink()
    assert read_json(path) == 1


def test_what_is_written_here_is_read_on_another_node(url, tmp_path, monkeypatch):
    run = RunDirectory.at("s3://bucket/runs/a")
    path = run.path / "1-corpus" / "values.npy"
    save_array(path, np.arange(5))
    finish_part(run.path, path, 5, {"seconds": 1.0})
    assert finished_part(path).rows == 5
    assert str(run) == "s3://bucket/runs/a"
    other_node(monkeypatch, tmp_path)
    there = RunDirectory.at("s3://bucket/runs/a").path / "1-corpus" / "values.npy"
    assert there != path and not there.exists()
    assert finished_part(there).rows == 5 and not there.exists()
    assert load_array(there, mmap_mode="r").tolist() == [0, 1, 2, 3, 4]


def test_a_copy_that_is_not_the_newest_is_not_read(url, tmp_path, monkeypatch):
    here = storage.mirror("s3://bucket/again/value.json")
    write_json(here, "old")
    first = os.environ["NN_CIFT_CACHE"]
    other_node(monkeypatch, tmp_path)
    there = storage.mirror("s3://bucket/again/value.json")
    assert read_json(there) == "old"
    os.utime(there, ns=(0, 0))  # as if it had been brought long ago
    monkeypatch.setenv("NN_CIFT_CACHE", first)
    write_json(here, "new")
    assert read_json(there) == "new"


def test_a_file_named_by_its_content_is_asked_about_once(url, monkeypatch):
    path = storage.mirror("s3://bucket/once/part-00000-0123456789abcdef.npy")
    save_array(path, np.arange(3))

    def refuse(uri):
        raise AssertionError(f"asked about {uri}")

    monkeypatch.setattr(storage, "_info", refuse)
    assert load_array(path).tolist() == [0, 1, 2]


def test_a_failed_write_leaves_nothing(url):
    path = storage.mirror("s3://bucket/half/x.txt")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert buckets.names_in(url, "half") == [] and not storage.exists(path)


def test_a_stage_is_reopened_committed_and_swept_in_the_bucket(url):
    run = RunDirectory.at("s3://bucket/swept")
    path, old = (run.path / "1-corpus" / name for name in ("new.npy", "old.npy"))
    for file in (path, old, run.path / "1-corpus/store/paid.npy"):
        save_array(file, np.arange(2))
    part = finish_part(run.path / "1-corpus", path, 2)
    manifest = {"parts": {"rows": [vars(part)]}, "counts": {}, "fingerprint": "f"}
    run.commit("1-corpus", manifest)
    assert [name.removeprefix("swept/1-corpus/") for name in buckets.names_in(url, "swept")] == [
        "manifest.json",
        "new.npy",
        "new.npy.json",
        "store/paid.npy",
    ]
    assert run.artifact("1-corpus").fingerprint == "f"
    run.reopen("1-corpus")
    assert run.artifact("1-corpus") is None


def test_a_run_in_use_is_left_alone_and_one_of_the_dead_is_taken(url, monkeypatch):
    from engine.artifacts import run_directory

    run = RunDirectory.at("s3://bucket/locked")
    monkeypatch.setattr(run_directory.time, "sleep", lambda seconds: None)
    with run.lock():
        assert buckets.names_in(url, "locked") == ["locked/lock.json"]
        with pytest.raises(RunDirectoryError, match=r"^s3://bucket/locked is in use"), run.lock():
            pass
    assert buckets.names_in(url, "locked") == []
    write_json(run.path / "lock.json", {"host": "elsewhere", "pid": 1, "token": "x"})
    beats = iter([1, 1, 2])
    monkeypatch.setattr(run_directory.storage, "modified_ns", lambda path: next(beats))
    with pytest.raises(RunDirectoryError, match="is in use"), run.lock():
        pass
    monkeypatch.setattr(run_directory.storage, "modified_ns", lambda path: 1)
    monkeypatch.setattr(run_directory, "LOCK_DEAD_S", 0.01)
    with run.lock():
        assert read_json(run.path / "lock.json")["pid"] == os.getpid()


# --- corpora -------------------------------------------------------------------------------------

ROW = '{"instruction": "Say %d", "output": "%d"}\n'


def rows_of(path, **settings):
    config = CorpusConfig(path=path, **settings)
    return [
        record.values["output"]
        for part in list_slices(config, slice_bytes=200)
        for record in read_slice(part, config)
    ]


def test_a_corpus_is_read_where_it_lies(url, hostile, tmp_path):
    text = "".join(ROW % (i, i) for i in range(20))
    buckets.put(url, "rows/a.jsonl", text.encode())
    buckets.put(url, "rows/deep/b.jsonl", (ROW % (20, 20)).encode())
    buckets.put(url, "rows/_SUCCESS", b"")
    buckets.put(url, "rows/.hidden/c.jsonl", (ROW % (99, 99)).encode())
    wanted = [str(i) for i in range(20)]
    assert rows_of("s3://bucket/rows/a.jsonl") == wanted
    assert len(list_slices(CorpusConfig(path="s3://bucket/rows/a.jsonl"), slice_bytes=200)) > 3
    assert rows_of("s3://bucket/rows") == [*wanted, "20"]
    assert rows_of("s3://bucket/rows/*.jsonl") == wanted
    assert rows_of("s3://bucket/r*s/**/b.jsonl") == ["20"]
    for name in ("ok.parquet", "array.json", "messages_ok.jsonl"):
        buckets.put(url, f"formats/{name}", (hostile / name).read_bytes())
        assert rows_of_any(f"s3://bucket/formats/{name}") == rows_of_any(str(hostile / name))
    assert not list((tmp_path / "cache").rglob("*.jsonl")), "a corpus was copied"


def rows_of_any(path):
    config = CorpusConfig(path=path)
    return [r.values for part in list_slices(config) for r in read_slice(part, config)]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s3://bucket/nowhere.jsonl", "No such file: s3://bucket/nowhere.jsonl"),
        ("s3://bucket/bad/empty.jsonl", "no rows in s3://bucket/bad/empty.jsonl"),
        ("s3://bucket/bad/not.parquet", "is not parquet: it starts with"),
        ("s3://bucket/bad/x.bin", "cannot tell the format of s3://bucket/bad/x.bin"),
        ("s3://nobucket/x.jsonl", "No such file: s3://nobucket/x.jsonl"),
    ],
)
def test_a_corpus_of_no_use_in_a_bucket(url, path, said):
    buckets.put(url, "bad/empty.jsonl", b"")
    buckets.put(url, "bad/not.parquet", b"{}" * 50)
    buckets.put(url, "bad/x.bin", b"x")
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        list_slices(CorpusConfig(path=path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_store_that_fails_while_a_corpus_is_read_is_not_a_bad_corpus(
    url, monkeypatch, hostile, name
):
    data = (hostile / "ok.parquet").read_bytes() if "parquet" in name else b"{}\n" * 2**23
    buckets.put(url, f"failing/{name}", data)
    real = storage._Object.readinto
    slices = list_slices(CorpusConfig(path=f"s3://bucket/failing/{name}"))

    def readinto(self, buffer):
        with storage._told("read", self._uri):
            raise OSError("AWS Error NETWORK_CONNECTION")
        return real(self, buffer)

    monkeypatch.setattr(storage._Object, "readinto", readinto)
    with pytest.raises(StorageError, match="cannot read s3://bucket/failing/a"):
        list(read_slice(slices[0], CorpusConfig(path="x")))


def test_another_content_is_another_corpus(url):
    from engine.config import parse_config

    config = parse_config({"corpus": {"path": "s3://bucket/told/a.jsonl"}})
    buckets.put(url, "told/a.jsonl", (ROW % (1, 1)).encode())
    before = identity(config)
    assert identity(config) == before
    buckets.put(url, "told/a.jsonl", (ROW % (2, 22)).encode())
    assert identity(config) != before


def test_a_model_is_brought_and_is_the_same_model(url, tmp_path):
    from engine.config import ModelConfig

    local = build_tiny_encoder(tmp_path / "encoder")
    for file in sorted(local.rglob("*")):
        if file.is_file():
            buckets.put(url, f"models/e/{file.relative_to(local)}", file.read_bytes())
    remote = ModelConfig(path="s3://bucket/models/e")
    assert model_identity(remote) == model_identity(ModelConfig(path=str(local)))
    assert resolve(remote).is_local
    with pytest.raises(StorageError, match="there is no file at s3://bucket/models/none"):
        resolve(ModelConfig(path="s3://bucket/models/none"))


def test_errors_do_not_tell_secrets(url, monkeypatch):
    def refuse(place):
        raise OSError(f"signature of {buckets.KEY_ID} with {buckets.SECRET} does not match")

    class Refusing:
        get_file_info = staticmethod(refuse)

    monkeypatch.setattr(storage, "filesystem_of", lambda uri: (Refusing, "x"))
    with pytest.raises(StorageError, match=r"signature of \*\*\* with \*\*\*"):
        storage.exists(storage.mirror("s3://bucket/x"))
