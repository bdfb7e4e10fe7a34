"""`nn-cift` and the scripts in jobs/: two doors to the same commands."""

import json
import re
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from engine.commands.start import COMMANDS, main
from engine.terminal.called import as_called, called, calling, typed

ROOT = Path(__file__).resolve().parents[2]


def script_of(command):
    return f"jobs/{command.replace('-', '_')}.py"


# --- the overview -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["--help", "select"]])
def test_the_overview_has_a_line_for_each_command(words, capsys):
    assert main(words) == 0
    printed = capsys.readouterr()
    assert not printed.err and max(map(len, printed.out.splitlines())) <= 80
    listed = re.findall(r"^  ([a-z-]+) +\S", printed.out, re.MULTILINE)
    assert listed == list(COMMANDS)
    assert printed.out.startswith("usage: nn-cift COMMAND ")


def test_every_command_is_a_module_and_a_script():
    modules = {path.stem for path in (ROOT / "engine/commands").glob("[!_]*.py")}
    modules -= {"start", "command_line", "help_text"}
    scripts = {path.stem for path in (ROOT / "jobs").glob("*.py")}
    assert modules == scripts == {command.replace("-", "_") for command in COMMANDS}


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nn-cift {version('nn-cift-engine')}\n"


def test_the_overview_loads_nothing_that_takes_time():
    code = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from engine.commands.start import main\n"
        "main([]), main(['--version'])\n"
        "new = set(sys.modules) - before\n"
        "foreign = {name.split('.')[0] for name in new} - {'engine'} - sys.stdlib_module_names\n"
        "assert not foreign, foreign\n"
        "assert not {'engine.config', 'engine.commands.command_line'} & new"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


# --- what was meant -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("slect", "unknown command 'slect': expected one of plan, check, select,"),
        ("slect", "tune; did you mean select?"),
        ("score_new", "did you mean score-new?"),
        ("zzzz", "evaluate, tune\n"),
        ("--verison", "a command must come first, got --verison: one of plan, check, select,"),
        ("--verison", "tune; did you mean --version?"),
        ("--config", "evaluate, tune\n"),
        ("\x1b[31m", "unknown command '\\x1b[31m': expected"),
    ],
)
def test_a_word_that_is_no_command_is_told_in_one_sentence(word, sentence, capsys):
    assert main([word, "--config", "x.yaml"]) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1
    assert printed.err.startswith("error: ") and sentence in printed.err


def test_that_sentence_can_be_json_too(capsys):
    assert main(["slect", "--json-logs"]) == 2
    line = json.loads(capsys.readouterr().err)
    assert line["exit_code"] == 2 and "did you mean select?" in line["message"]


# --- both doors do the same, each in its own words ----------------------------------------------


def through_script(command, words, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "argv", [script_of(command), *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / script_of(command)), run_name="__main__")
    return ended.value.code


def through_program(command, words):
    try:
        return main([command, *words])
    except SystemExit as ended:  # of argparse, after its help
        return ended.code


def in_words_of_the_program(text):
    """Without times and the breaks of lines, which lie elsewhere where commands are longer."""
    text = " ".join(text.replace("\\\n", " ").split())
    text = re.sub(r'"time": "[^"]*"', "", text)
    name = r"(?:python )?jobs/(\w+)\.py"
    return re.sub(name, lambda found: f"nn-cift {found[1].replace('_', '-')}", text)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        *((command, ["--help"]) for command in COMMANDS),
        *((command, []) for command in COMMANDS),
        *((command, ["--config", "no.yaml", "--run-dir", "no"]) for command in COMMANDS),
        ("tune", ["--config", "jobs/configs/study_size.yaml", "--until", "fit"]),
        ("evaluate", ["--config", "jobs/configs/evaluate.yaml", "--until", "fit"]),
        ("plan", ["--config", "jobs/configs/demo.yaml", "--gpu-speedup", "fast"]),
        ("select", ["--config", "jobs/configs/demo.yaml", "--until", "smaple", "--json-logs"]),
        ("select", ["--config", "jobs/configs/demo.yaml", "--selection.bugdet", "3", "--quiet"]),
        ("explain", ["--run-dir", ".", "--id", "a"]),
        ("export", ["--run-dir", ".", "--format", "jsonl", "--out", "x.jsonl"]),
        ("score-new", ["--run-dir", ".", "--corpus", "x.jsonl"]),
    ],
)
def test_both_doors_say_the_same(command, words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    code = 0 if words == ["--help"] else 2
    assert through_script(command, words, monkeypatch) == code
    of_script = capsys.readouterr()
    assert through_program(command, words) == code
    of_program = capsys.readouterr()
    assert of_program.out + of_program.err
    assert not re.search(r"jobs/\w+\.py", of_program.out + of_program.err)
    for one, other in zip(of_script, of_program, strict=True):
        assert in_words_of_the_program(one) == in_words_of_the_program(other)
    if words == ["--help"]:
        assert of_program.out.startswith(f"usage: nn-cift {command} ")
        assert of_script.out.startswith(f"usage: {script_of(command)} ")
        assert f"python {script_of(command)} " in of_script.out
        assert "nn-cift" not in of_script.out.replace("nn-cift-", "")


def test_nothing_of_a_call_stays_behind():
    assert (called(), typed("score-new")) == ("nn-cift", "nn-cift score-new")
    text = "nn-cift score-new --run-dir a\nray job submit -- nn-cift select; nn-cift --help"
    with calling("tune", by_script=True):
        assert (called(), typed("score-new")) == ("jobs/tune.py", "jobs/score_new.py")
        assert as_called(text) == (
            "python jobs/score_new.py --run-dir a\n"
            "ray job submit -- python jobs/select.py; nn-cift --help"
        )
        with calling("plan", by_script=False):
            assert called() == "nn-cift plan" and as_called(text) == text
        assert called() == "jobs/tune.py"
    assert called() == "nn-cift"
