"""Reading: the hostile files against their manifest, and slices against whole files."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config import CorpusConfig
from engine.corpus.json_arrays import iterate_array
from engine.corpus.readers import (
    Record,
    SourceSlice,
    count_lines,
    line_offsets,
    list_slices,
    read_slice,
)
from engine.corpus.schema import ParsedRow, parse
from engine.errors import InputError

HOSTILE = Path(__file__).resolve().parents[2].parent / "shared" / "hostile"


def config_of(path: Path | str, **settings: Any) -> CorpusConfig:
    return CorpusConfig.model_validate({"path": str(path), **settings})


def read(config: CorpusConfig, slice_bytes: int = 2**24) -> list[Record]:
    """All records, with absolute line numbers."""
    slices = list_slices(config, slice_bytes)
    readers = [read_slice(part, config) for part in slices]
    parts = [list(reader) for reader in readers]
    offsets = line_offsets(slices, [reader.num_lines for reader in readers])
    return [
        record._replace(location=record.location._replace(line=record.location.line + offset))
        for records, offset in zip(parts, offsets, strict=True)
        for record in records
    ]


def outcome(config: CorpusConfig) -> tuple[list[ParsedRow], dict[int, str]]:
    """Good rows, and the reason of every bad one by line."""
    good, bad = [], dict[int, str]()
    for record in read(config):
        row = parse(record.values, {}) if record.values is not None else record.problem
        if isinstance(row, ParsedRow):
            good.append(row)
        else:
            bad[record.location.line] = str(row)
    return good, bad


def write_lines(path: Path, num_rows: int = 40) -> list[dict[str, Any]]:
    """Lines of many lengths, with blank, bad and CRLF ones between, and no newline at the end."""
    rows = [{"id": i, "instruction": "é" * (i * 7 % 31), "output": "o"} for i in range(num_rows)]
    lines = [json.dumps(row, ensure_ascii=i % 2 == 0).encode() for i, row in enumerate(rows)]
    lines[3:3] = [b"", b"not json", b"  \r", b"\xff"]
    lines[20] += b"\r"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines))
    return rows


def table(num_rows: int) -> pa.Table:
    return pa.Table.from_pylist(
        [{"id": str(i), "instruction": f"q{i}", "output": "a"} for i in range(num_rows)]
    )


# --- the hostile files -------------------------------------------------------------------------


@pytest.fixture
def hostile() -> Path:
    if not HOSTILE.is_dir():
        pytest.skip(f"{HOSTILE} is absent")
    return HOSTILE


@pytest.mark.parametrize(
    ("name", "num_good", "bad_lines"),
    [
        ("ok.parquet", 20, []),
        ("ok.jsonl", 20, []),
        ("malformed_lines.jsonl", 8, [4, 6, 7, 8, 9, 13]),
        ("array.json", 20, []),
        ("blank_instruction.jsonl", 4, [5, 6, 7, 8, 9, 10]),
        ("null_input_ok.jsonl", 20, []),
        ("huge_row.jsonl", 6, []),
        ("invalid_utf8.jsonl", 4, [3]),
        ("bom_crlf.jsonl", 20, []),
        ("duplicate_ids.jsonl", 8, []),  # ingest compares rows; here each is fine by itself
        ("wrong_types.jsonl", 5, [1, 2, 3, 5, 6]),  # integer and null ids are legal
        ("extra_and_mixed_keys.jsonl", 3, []),
        ("messages_ok.jsonl", 5, []),
        ("nul_bytes.jsonl", 4, [2]),
        ("unicode.jsonl", 8, []),
        ("single_row.jsonl", 1, []),
        ("missing_columns.parquet", 2, []),  # prompt and completion, which are said
    ],
)
def test_hostile_rows(hostile: Path, name: str, num_good: int, bad_lines: list[int]):
    good, bad = outcome(config_of(hostile / name))
    assert len(good) == num_good
    assert sorted(bad) == bad_lines


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty.jsonl", "no rows in {file}"),
        ("empty.parquet", "not a parquet file: {file} (0 bytes)"),
        ("zero_rows.parquet", "no rows in {file}"),
        ("truncated.parquet", "truncated or corrupt parquet: {file}"),
        ("not_parquet.parquet", '{file} is not parquet: it starts with b\'{{"id": "r0",\''),
        ("a_directory.parquet", "no data file in directory {file}"),
        ("missing.jsonl", "No such file: {file}"),
    ],
)
def test_hostile_files(hostile: Path, name: str, message: str):
    with pytest.raises(InputError) as error:
        list_slices(config_of(hostile / name))
    assert str(error.value).startswith(message.format(file=hostile / name))


def test_hostile_texts_come_back_unchanged(hostile: Path):
    lines = (hostile / "unicode.jsonl").read_bytes().decode().split("\n")
    expected = [json.loads(line)["instruction"] for line in lines if line]
    good, _ = outcome(config_of(hostile / "unicode.jsonl"))
    assert [row.example.instruction for row in good] == expected
    nul_rows, _ = outcome(config_of(hostile / "nul_bytes.jsonl"))
    assert nul_rows[0].num_nul == 1
    ids = [row.example.id for row in outcome(config_of(hostile / "bom_crlf.jsonl"))[0]]
    assert ids == [f"r{i}" for i in range(20)]


def test_hostile_equals_control(hostile: Path):
    control = outcome(config_of(hostile / "ok.jsonl"))
    assert outcome(config_of(hostile / "ok.parquet")) == control
    assert outcome(config_of(hostile / "not_parquet.parquet", format="jsonl")) == control
    examples = [row.example for row in outcome(config_of(hostile / "null_input_ok.jsonl"))[0]]
    assert all(example.input == "" for example in examples)


def test_a_mapping_makes_missing_columns_usable(hostile: Path):
    columns = {"instruction": "prompt", "output": "completion"}
    records = read(config_of(hostile / "missing_columns.parquet", columns=columns))
    assert all(isinstance(parse(record.values or {}, columns), ParsedRow) for record in records)


# --- slices are equivalent to the whole ---------------------------------------------------------


@pytest.mark.parametrize("slice_bytes", [1, 2, 7, 50, 64, 333, 1000, 10_000])
def test_byte_slices_equivalence(tmp_path: Path, slice_bytes: int):
    config = config_of(tmp_path / "rows.jsonl")
    rows = write_lines(tmp_path / "rows.jsonl")
    records = read(config, slice_bytes)
    assert records == read(config)
    assert [record.values for record in records if record.values] == rows
    assert [record.location.line for record in records if record.problem] == [5, 7]


@pytest.mark.parametrize("slice_bytes", [1, 300, 10_000])
def test_byte_slices_tile_the_file_at_line_starts(tmp_path: Path, slice_bytes: int):
    path = tmp_path / "rows.jsonl"
    write_lines(path)
    data, slices = path.read_bytes(), list_slices(config_of(path), slice_bytes)
    assert [part.start for part in slices] == [0, *(part.stop for part in slices[:-1])]
    assert slices[-1].stop == len(data)
    assert all(part.start == 0 or data[part.start - 1 : part.start] == b"\n" for part in slices)
    config = config_of(path)
    for part in slices:
        reader = read_slice(part, config)
        list(reader)
        assert reader.num_lines == count_lines(part, config)


def test_one_line_longer_than_many_slices(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"instruction": "x" * size, "output": "y"}) for size in (1, 5000, 1)]
    path.write_text("\n".join(lines) + "\n")
    assert len(list_slices(config_of(path), 100)) == 2  # the marks inside the line make one cut
    assert read(config_of(path), 100) == read(config_of(path))


@pytest.mark.parametrize("slice_bytes", [1, 400, 10_000_000])
def test_row_group_slices_equivalence(tmp_path: Path, slice_bytes: int):
    path = tmp_path / "rows.parquet"
    pq.write_table(table(50), path, row_group_size=7)
    records = read(config_of(path), slice_bytes)
    assert [record.values for record in records] == table(50).to_pylist()
    assert [record.location.line for record in records] == list(range(1, 51))


def test_slices_survive_json(tmp_path: Path):
    write_lines(tmp_path / "rows.jsonl")
    slices = list_slices(config_of(tmp_path / "rows.jsonl"), 200)
    sent = json.dumps([dataclasses.asdict(part) for part in slices])
    assert [SourceSlice(**part) for part in json.loads(sent)] == slices


def test_line_offsets_follow_the_files():
    slices = [SourceSlice("jsonl", "a", 0, 5), SourceSlice("jsonl", "a", 5, 9)]
    slices += [SourceSlice("parquet", "b", 0, 1), SourceSlice("parquet", "b", 1, 2, 10)]
    slices += [SourceSlice("jsonl", "c", 0, 5)]
    assert line_offsets(slices, [3, 4, 10, 10, 2]) == [0, 3, 0, 0, 0]


# --- formats ------------------------------------------------------------------------------------


def test_formats_equivalence(tmp_path: Path):
    rows = table(30).to_pylist()
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    contents = {
        "a.jsonl": lines,
        "b.ndjson": lines,
        "c.json": lines,
        "d.json": json.dumps(rows).encode(),
        "e.json": json.dumps(rows, indent=1).encode(),
        "f.jsonl": b"\xef\xbb\xbf" + json.dumps(rows, indent=1).encode(),
        "g.csv": text.getvalue().encode("utf-8-sig"),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
    for name in contents:
        for path in (tmp_path / name, tmp_path / f"{name}.gz"):
            records = read(config_of(path))
            assert [record.values for record in records] == rows, path
            assert [record.location.line for record in records] == list(range(1, 31)), path


def test_csv_rows(tmp_path: Path):
    path = tmp_path / "rows.csv"
    long = "x" * 200_000
    path.write_bytes(
        b'instruction,output\n"two\nlines, ""quoted""",a\ntoo,many,fields\nfew\n\n'
        b"bad \xff,a\n" + f"{long},a\n".encode() + b'"a"b,c\nlast,"open\nnever closed\n'
    )
    records = read(config_of(path))
    assert records[0].values == {"instruction": 'two\nlines, "quoted"', "output": "a"}
    assert records[4].values == {"instruction": long, "output": "a"}
    problems = [str(record.problem) for record in records if record.problem]
    assert problems[:3] == [
        "2 fields were expected, got 3",
        "2 fields were expected, got 1",
        "not valid UTF-8",
    ]
    assert problems[3].startswith("not valid CSV: ")
    assert problems[4].endswith("(the row starts at line 10)")
    assert len(records) == 7


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"a": "\\ud83d"}', "lone surrogate \\ud83d: half a character, not valid text"),
        (b'{"a": {"\\uDC00": 1}}', "lone surrogate \\udc00: half a character, not valid text"),
        (b'"text"', "a JSON object was expected, got text"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON: Exceeds the limit"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b'{"a": "\x00"}', "not valid JSON: Invalid control character at column 8"),
        (b'{"a": "\xed\xa0\xbd"}', "not valid UTF-8: byte 0xED at position 8"),
    ],
)
def test_lines_that_are_no_rows(tmp_path: Path, line: bytes, problem: str):
    good = b'{"a": "\\ud83d\\ude00"}'
    (tmp_path / "rows.jsonl").write_bytes(good + b"\n" + line + b"\n" + good)
    first, second, third = read(config_of(tmp_path / "rows.jsonl"))
    assert first.values == third.values == {"a": "\U0001f600"}
    assert str(second.problem).startswith(problem)


def test_lines_that_begin_with_a_list_are_still_lines(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('["a"]\n{"a": 1}\n')
    first, second = read(config_of(tmp_path / "rows.jsonl"))
    assert first.problem == "a JSON object was expected, got a list"
    assert second.values == {"a": 1}


@pytest.mark.parametrize("chunk_chars", [1, 2, 5, 17, 1000])
def test_array_chunks_equivalence(chunk_chars: int):
    values = [{"a": 'x\\"]'}, 12345, -1.5e10, [], [[1], {}], None, "é", True, {"b": ["y" * 50]}]
    for indent in (None, 2):
        text = json.dumps(values, indent=indent)
        found = list(iterate_array(io.StringIO(text), chunk_chars))
        assert [value for value, _ in found] == values
        assert [json.loads(source) for _, source in found] == values


@pytest.mark.parametrize("text", ["[1 2]", "[1,]", "[,1]", "[1] 2", "[1", "[", "[1,,2]", "[{]"])
def test_arrays_that_break_off(text: str):
    with pytest.raises(ValueError):
        list(iterate_array(io.StringIO(text), 1))


def test_bad_elements_of_an_array(tmp_path: Path):
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"a": 1}, 2, {"a": "\xff"}, {"a": "\\ud83d"}, {"a": 3}]')
    records = read(config_of(path))
    assert [record.location.line for record in records] == [1, 2, 3, 4, 5]
    assert [record.values for record in records] == [{"a": 1}, None, None, None, {"a": 3}]
    path.write_text('[{"a": 1}, {"a" 2}]')
    with pytest.raises(InputError, match=r"rows.json is not a valid JSON array: element 2: Expec"):
        read(config_of(path))


def test_parquet_cells_that_python_has_no_value_for(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    text = pa.Array.from_buffers(
        pa.string(),
        3,
        [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc")],
    )
    pq.write_table(pa.table({"instruction": text, "output": ["x", "y", "z"]}), path)
    first, second, third = read(config_of(path))
    assert first.values == {"instruction": "a", "output": "x"}
    assert second.problem == "not valid UTF-8 in column instruction"
    assert third.values == {"instruction": "c", "output": "z"}


def test_parquet_page_rot_is_an_input_error(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    pq.write_table(table(2000), path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    with pytest.raises(InputError, match="truncated or corrupt parquet"):
        read(config_of(path))


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.json.gz", "rows.csv.gz"])
def test_truncated_gzip_is_an_input_error(tmp_path: Path, name: str):
    content = "".join(f'{{"instruction": "{i * 7919}"}}\n' for i in range(100_000))
    if name.startswith("rows.csv"):
        content = "instruction,output\n" + "".join(f"{i * 7919},b\n" for i in range(100_000))
    data = gzip.compress(content.encode())
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="truncated or corrupt gzip"):
        read(config_of(tmp_path / name))


# --- what is found, and what is refused ---------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    row = '{"instruction": "a", "output": "b"}\n'
    for name in ("b/2.jsonl", "b/1.jsonl", "a.json", "b/c/3.ndjson"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(row)
    for name in ("_SUCCESS", ".hidden.jsonl", "README.md", "b/empty.jsonl", "dataset_infos.json"):
        (tmp_path / name).write_text("")
    pq.write_table(table(2), tmp_path / "d.parquet")
    return tmp_path


def names_of(root: Path, config: CorpusConfig) -> list[str]:
    return [str(Path(part.path).relative_to(root)) for part in list_slices(config)]


def test_a_directory_is_searched_in_order(tree: Path):
    everything = ["a.json", "b/1.jsonl", "b/2.jsonl", "b/c/3.ndjson", "d.parquet"]
    assert names_of(tree, config_of(tree)) == everything
    assert names_of(tree, config_of(tree, format="parquet")) == ["d.parquet"]
    assert names_of(tree, config_of(tree / "**")) == everything


def test_patterns_and_lists(tree: Path):
    assert names_of(tree, config_of(tree / "b" / "*.jsonl")) == ["b/1.jsonl", "b/2.jsonl"]
    paths = [str(tree / "d.parquet"), str(tree / "b/1.jsonl"), str(tree / "b")]
    config = CorpusConfig(path=tuple(paths))
    assert names_of(tree, config) == ["d.parquet", "b/1.jsonl", "b/2.jsonl", "b/c/3.ndjson"]


def refuse(config: CorpusConfig, message: str) -> None:
    with pytest.raises(InputError) as error:
        list_slices(config)
    assert message in str(error.value)


def test_paths_that_hold_nothing(tree: Path):
    (tree / "empty").mkdir()
    refuse(config_of(tree / "empty"), f"no data file in directory {tree / 'empty'}: expected .par")
    refuse(config_of(tree / "*.csv"), "*.csv (no file matches this pattern)")
    refuse(config_of(tree / "b/empty.jsonl"), "no rows in")
    refuse(config_of(tree / "b/empt*.jsonl"), "its 1 data files are all empty")
    refuse(config_of(tree / "README.md"), "cannot tell the format of")
    refuse(CorpusConfig(path=()), "empty list")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"PAR1....", "it looks like parquet, rename it or set format: parquet"),
        ("a.csv", b"PK\x03\x04", "is not CSV"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "UTF-16 text, save it as UTF-8"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.parquet", b"instruction,output\n", "it looks like another format"),
        ("a.jsonl.gz", b'{"a": 1}', "truncated or corrupt gzip"),
        ("a.jsonl", b" \n\r\n\t", "no rows in"),
        ("a.json", b"[ \n ]", "no rows in"),
        ("a.json", b'{\n "a": [1]\n}', "holds one JSON object over many lines"),
        ("a.json", b'[{"a": 1}, {"a"', "truncated JSON array"),
        ("a.csv", b"", "no rows in"),
        ("a.csv", b"instruction,output\n\n", "no rows in"),
        ("a.csv", b"task,output\nx,y\n", "missing column instruction; found task, output;"),
        ("a.csv", b"prompt,query,output\nx,y,z\n", "prompt and query may both be it"),
        ("a.csv", b"instruction;output\nx;y\n", "looks separated by ;"),
        ("a.arrow", b"ARROW1..", "truncated or corrupt Arrow file"),
        ("a.jsonl", b"\xfd7zXZ\x00....", "truncated or corrupt xz"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd....", "truncated or corrupt zstd"),
        ("a.jsonl.zst", b"BZh9....", "truncated or corrupt bzip2"),
        ("a.csv", b"instruction,output,output\nx,y,z\n", "the header names output twice"),
        ("a.csv", b"instruction,output,\xff\nx,y,z\n", "the header is not valid UTF-8"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, data: bytes, message: str):
    (tmp_path / name).write_bytes(data)
    refuse(config_of(tmp_path / name), message)


# --- Hugging Face datasets ------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = datasets.Dataset.from_list(table(25).to_pylist())
    rows.save_to_disk(str(tmp_path / "one"))
    splits = {"train": rows.select(range(20)), "test": rows.select(range(20, 25))}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "splits"))
    yield tmp_path


@pytest.mark.parametrize("slice_bytes", [1, 100, 2**24])
def test_saved_datasets_equivalence(saved: Path, slice_bytes: int):
    records = read(config_of(saved / "one"), slice_bytes)
    assert [record.values for record in records] == table(25).to_pylist()
    assert [record.location.line for record in records] == list(range(1, 26))


@pytest.mark.parametrize("name", ["../one/data-00000-of-00001.arrow", "/etc/passwd", "..", "", 5])
@pytest.mark.parametrize("folder", ["one", "splits/train"])
def test_a_saved_dataset_reads_its_own_files_only(saved: Path, folder: str, name: object):
    state = json.loads((saved / folder / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (saved / folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match=r"names .*, which is not in it"):
        read(config_of(saved / folder.partition("/")[0]))


@pytest.mark.parametrize("name", ["../one", "/etc", "..", ""])
def test_a_saved_dataset_has_its_splits_in_it(saved: Path, name: str):
    (saved / "splits" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", name]}))
    with pytest.raises(InputError, match=r"names .*, which is not in it"):
        read(config_of(saved / "splits"))


def test_splits_of_a_saved_dataset(saved: Path):
    assert len(read(config_of(saved / "splits"))) == 20
    assert len(read(config_of(saved / "splits", split="test"))) == 5
    refuse(config_of(saved / "splits", split="valid"), "no split valid in")
    refuse(config_of(saved / "one", columns={"input": "ctx"}), "missing column ctx")


def test_a_dataset_is_loaded_by_name(saved: Path):
    (saved / "repository").mkdir()
    pq.write_table(table(12), saved / "repository" / "train.parquet")
    records = read(config_of(f"hf:{saved / 'repository'}"))
    assert [record.values for record in records] == table(12).to_pylist()
    refuse(config_of(f"hf:{saved / 'nothing'}"), "cannot load the Hugging Face dataset hf:")
