import os
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from engine.artifacts.files import atomic_path, digest, disk_problems_told, read_json, write_json
from engine.artifacts.parts import finish_part, finished_part
from engine.artifacts.run_directory import RunDirectory
from engine.errors import RunDirectoryError, StorageError


def test_atomic_path_leaves_the_old_file_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]


def test_a_part_is_finished_only_with_its_record(tmp_path):
    path = tmp_path / "part.npy"
    path.write_bytes(b"123")
    assert finished_part(path) is None
    made = finish_part(tmp_path, path, 3, {"calls": 2.0})
    assert finished_part(path) == made
    path.unlink()
    assert finished_part(path) is None


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_digest_depends_on_values_not_on_key_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_commit_sweeps_what_is_not_listed_and_keeps_the_store(tmp_path):
    run = RunDirectory(tmp_path)
    stage_dir = run.reopen("4-teacher")
    for name in ("kept.txt", "stale.txt", "store/paid/for.txt", "old/part.txt"):
        (stage_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (stage_dir / name).write_text(name)
    part = finish_part(stage_dir, stage_dir / "kept.txt", 1)
    assert run.artifact("4-teacher") is None
    run.commit("4-teacher", {"fingerprint": "f", "counts": {}, "parts": {"kept": [vars(part)]}})
    left = sorted(p.relative_to(stage_dir).as_posix() for p in stage_dir.rglob("*") if p.is_file())
    assert left == ["kept.txt", "kept.txt.json", "manifest.json", "store/paid/for.txt"]
    assert read_json(stage_dir / "manifest.json")["schema_version"] == 1


def test_two_jobs_cannot_share_a_run_directory(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with run.lock(), pytest.raises(RunDirectoryError, match="in use by another job"), run.lock():
        pass
    with run.lock():
        pass


@pytest.mark.parametrize("name", ["../../outside.parquet", "/etc/passwd", "a/../../b"])
def test_a_manifest_names_files_of_its_own_folder(tmp_path, name):
    parts = {"x": [{"path": name, "rows": 1, "sha256": "0"}]}
    write_json(tmp_path / "run" / "1-corpus" / "manifest.json", {"parts": parts})
    with pytest.raises(RunDirectoryError, match="which is not in its folder"):
        RunDirectory(tmp_path / "run").artifact("1-corpus")


@pytest.mark.parametrize("link", ["1-corpus", "1-corpus/candidates"])
def test_nothing_behind_a_link_is_written_or_swept(tmp_path, link):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    place = tmp_path / "run" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(precious)
    with pytest.raises(RunDirectoryError, match="is a link, and a stage deletes"):
        RunDirectory(tmp_path / "run").reopen("1-corpus")
    assert (precious / "file").read_text() == "x"


@pytest.mark.parametrize("name", ["../../secret.npy", "/etc/passwd", "b.npy", "c/a.npy"])
def test_a_record_is_of_the_file_beside_it(tmp_path, name):
    (tmp_path / "a.npy").write_bytes(b"1")
    part = finish_part(tmp_path, tmp_path / "a.npy", 1)
    assert finished_part(tmp_path / "a.npy") == part
    write_json(tmp_path / "a.npy.json", {**vars(part), "path": name})
    assert finished_part(tmp_path / "a.npy") is None


@pytest.mark.parametrize(
    "write",
    [
        lambda path: np.save(path, np.zeros(10**6)),
        lambda path: pq.write_table(pa.table({"x": np.random.rand(10**6)}), path),
        lambda path: save_file({"x": np.zeros(10**6)}, path),
        lambda path: path.write_bytes(bytes(10**7)),
    ],
    ids=["numpy", "pyarrow", "safetensors", "python"],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_told_whoever_meets_it(tmp_path, write):
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with pytest.raises(StorageError, match="no space is left"), disk_problems_told(tmp_path):
            write(tmp_path / "file.npy")
        with pytest.raises(OSError, match="No such file"), disk_problems_told(tmp_path):
            (tmp_path / "nothing").read_bytes()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
