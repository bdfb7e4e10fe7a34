"""What a job prints where something went wrong: fit for a terminal, and one sentence for users."""

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from engine.commands.command_line import main_of_run
from engine.errors import InputError
from engine.stages.pipeline import STAGES
from engine.terminal.progress import Progress, in_stage, printable, say

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py"))

# colours, a window title, a cursor that goes up and wipes a line, C1, right-to-left, a bell
HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x1b[1A\x1b[2K\r\x9b31m\u202edrow\u2066\x7fz"
UNFIT = ("\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2066", "\x7f")


def fit(text):
    return not any(character in text for character in UNFIT)


def test_printable_keeps_text_and_spells_out_what_acts_on_a_terminal():
    assert printable("héllo wörld 北京 🙂\n\ttab\N{NO-BREAK SPACE}%") == (
        "héllo wörld 北京 🙂\n\ttab\N{NO-BREAK SPACE}%"
    )
    shown = printable(HOSTILE)
    assert fit(shown) and shown.startswith("a\\x1b[31mred\\x1b]0;title\\x07")
    assert printable("\u202e\udcff\u2028") == "\\u202e\\udcff\\u2028"


def test_what_is_said_is_fit_for_a_terminal(capsys):
    say(f"one\n{HOSTILE}")
    with Progress(HOSTILE, 2, "rows") as progress:
        say(progress._line())
    printed = capsys.readouterr().err
    assert fit(printed) and printed.count("\\x1b[31mred") == 2 and "one\n" in printed


def fail_with(error, folder):
    def job(arguments):
        raise error

    return main_of_run("", {}, job, ["--run-dir", str(folder)])


def test_an_error_is_one_line_of_bounded_length(tmp_path, capsys):
    error = InputError(f"row 1: {HOSTILE}\nerror: nothing wrong\u2028here {'x' * 10**6}")
    assert fail_with(error, tmp_path) == 2
    printed = capsys.readouterr().err
    assert fit(printed) and printed.count("\n") == 1 and len(printed) < 5000
    assert printed.startswith("error: row 1: a\\x1b[31mred") and "here xxx" in printed
    assert printed.endswith(" characters)\n")


def test_a_bug_of_ours_shows_its_traceback_without_acting_on_the_terminal(tmp_path, capsys):
    assert fail_with(ValueError(HOSTILE), tmp_path) == 1
    printed = capsys.readouterr().err
    assert fit(printed) and "Traceback" in printed and "\\x1b[31mred" in printed


def test_logs_of_libraries_too(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging.root, "handlers", [])

    def job(arguments):
        logging.getLogger("library").warning("loading %s", HOSTILE)
        return {"id": HOSTILE}

    assert main_of_run("", {}, job, ["--run-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "loading a\\x1b[31mred" in printed.err and fit(printed.err)
    assert fit(printed.out) and json.loads(printed.out) == {"id": HOSTILE}


# --- --help -------------------------------------------------------------------------------------


def start(name, *arguments):
    command = [sys.executable, str(ROOT / "jobs" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.mark.parametrize("name", JOBS)
def test_help_reads_well(name):
    done = start(name, "--help")
    assert done.returncode == 0 and not done.stderr
    text = done.stdout
    assert max(map(len, text.splitlines())) <= 80
    alone = name == "doctor.py"  # takes neither settings nor a run
    heads = ["usage: jobs/", "examples:\n", "flags of this job:\n", "flags of all jobs:\n"]
    if alone:
        heads.remove("flags of this job:\n")
    heads += ["settings:\n"] * ("--section.key" in text) + ["exit codes:\n"]
    places = [text.find(head) for head in heads]
    assert min(places) >= 0 and places == sorted(places), text
    for flag in ("--run-dir", "--overwrite")[: 0 if alone else 2]:
        assert f"{flag} " in text
    for flag in ("--quiet", "--json-logs", "--help"):
        assert f"{flag} " in text
    source = (ROOT / "engine/commands" / name).read_text()
    sentence = source.split('"""')[1].split("\n\n")[0]
    assert " ".join(sentence.split()) in " ".join(text.split())
    examples = text[places[1] : places[2]]
    assert f"jobs/{name} " in examples
    if alone:
        return
    own = text[places[2] : places[3]]
    assert ("--config FILE" in own) != ("--run-dir DIR" in own)
    for flag in ("until", "best", "cluster", "gpu-speedup", "id", "corpus", "format", "out"):
        assert (f'"{flag} ' in source) == (f"  --{flag} " in own), flag


def test_the_help_names_the_stages():
    text = " ".join(start("select.py", "--help").stdout.split())
    assert f"stop after this stage: {', '.join(stage.name for stage in STAGES)} flags" in text


# --- what was meant -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--overwritte"], "unknown flag --overwritte; did you mean --overwrite?"),
        (["--overwritte", "--until", "x"], "unknown flag --overwritte; did you mean --overwrite?"),
        (["--rundir", "x"], "unknown flag --rundir; did you mean --run-dir?"),
        (["--json_logs"], "unknown flag --json_logs; did you mean --json-logs?"),
        (["--budget", "3"], "unknown flag --budget; did you mean --selection.budget?"),
        (["--selektion", "3"], "unknown flag --selektion; did you mean --selection?"),
        (["--zzzz"], "unknown flag --zzzz; known: --config, --run-dir, --until, --overwrite"),
        (["--teacher.nmae", "less"], "demo.yaml: unknown setting teacher.nmae; did you mean name?"),
        (["--teacher.name", "delfit"], "got 'delfit'; did you mean delift?"),
        (["--teacher.name"], "--teacher.name needs a value"),
        (["stray"], "unexpected argument 'stray'"),
        (["--until", "smaple"], "the stages are ingest, embed, sample,"),
        (["--until", "smaple"], "report; did you mean sample?"),
    ],
)
def test_a_wrong_word_is_told_in_one_sentence(arguments, sentence, tmp_path):
    config = ["--config", "jobs/configs/demo.yaml", "--run-dir", str(tmp_path / "run")]
    done = start("select.py", *config, *arguments)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.count("\n") == 1 and sentence in done.stderr, done.stderr


def test_missing_flags_and_settings_where_none_are_taken(tmp_path):
    done = start("explain.py", "--run-dir", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "arguments are required: --id; jobs/explain.py --help tells" in done.stderr
    for arguments, sentence in [
        (["--seed", 3], "--seed: this job takes no settings"),
        (["--idd", 3], "unknown flag --idd; did you mean --id?"),
    ]:
        done = start("explain.py", "--run-dir", tmp_path, "--id", "a", *arguments)
        assert done.returncode == 2 and done.stderr == f"error: {sentence}\n"


# --- --quiet and --json-logs --------------------------------------------------------------------

KEYS = {"time", "level", "event", "stage", "message"}


def busy(arguments):
    """A job that says something in every way there is."""
    say("a\nb")
    with in_stage("embed"), Progress("embed rows", 10, "rows", done=2) as progress:
        progress.advance(8)
    logging.getLogger("library").warning("careful %s", HOSTILE)
    logging.getLogger("library").error("broken")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    sys.stderr.write(f"loading {HOSTILE}\n")
    return {"id": HOSTILE}


def test_json_logs_are_one_object_a_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    assert main_of_run("", {}, busy, ["--run-dir", str(tmp_path), "--json-logs"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"id": HOSTILE} and fit(printed.err)
    lines = [json.loads(line) for line in printed.err.splitlines()]
    assert all(line.keys() >= KEYS for line in lines)
    told = {line["message"].split(" ")[0]: line for line in lines}
    assert told["a\nb"]["event"] == "message" and told["a\nb"]["stage"] is None
    progress = next(line for line in lines if line["event"] == "progress")
    assert progress["stage"] == "embed" and progress["label"] == "embed rows"
    assert (progress["done"], progress["total"], progress["eta_s"]) == (10, 10, 0)
    assert progress["unit"] == "rows" and progress["rate"] > 0
    assert told["careful"]["event"] == "log" and told["careful"]["logger"] == "library"
    assert told["broken"]["level"] == "error"
    assert told["loading"]["event"] == "stderr"
    assert any("UserWarning: old" in line["message"] for line in lines)


def test_errors_are_json_too(tmp_path, capsys):
    def fail(error):
        def job(arguments):
            raise error

        code = main_of_run("", {}, job, ["--run-dir", str(tmp_path), "--json-logs"])
        return code, json.loads(capsys.readouterr().err)

    code, line = fail(InputError("no row\nhere"))
    assert code == line["exit_code"] == 2 and line["event"] == line["level"] == "error"
    assert line["message"] == "no row here" and line["kind"] == "InputError"
    code, line = fail(ValueError(HOSTILE))
    assert code == line["exit_code"] == 1 and line["event"] == "internal_error"
    assert line["kind"] == "ValueError" and "Traceback" in line["traceback"]
    code, line = fail(KeyboardInterrupt())
    assert code == line["exit_code"] == 130 and line["event"] == "interrupted"
    # of the parser
    assert main_of_run("", {"id": "x"}, busy, ["--json-logs"]) == 2
    assert "required" in json.loads(capsys.readouterr().err)["message"]


def test_quiet_leaves_errors(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])

    def job(arguments):
        result = busy(arguments)
        assert sys.stderr is not sys.__stderr__
        return result

    assert main_of_run("", {}, job, ["--run-dir", str(tmp_path), "--quiet"]) == 0
    printed = capsys.readouterr()
    # what a library writes to stderr by itself may be an error, and is passed on
    assert [line.split(" ")[0] for line in printed.err.splitlines()] == ["broken", "loading"]
    assert json.loads(printed.out) == {"id": HOSTILE}
    assert fail_with(InputError("no row"), tmp_path) == 2
    capsys.readouterr()
    assert main_of_run("", {"id": "x"}, job, ["--quiet"]) == 2
    assert capsys.readouterr().err.startswith("error: the following arguments are required")


CHATTER = "[2026-11-26 07:43:28,309 I 25126 25126] logging.cc:303: Set ray log level"
PROGRAM = f"""
import os, sys
from engine.commands.command_line import main_of_run
def job(arguments):
    os.write(2, b"{CHATTER}\\n")
    os.write(2, b"half of ")
    os.write(2, b"a line")
    return {{}}
sys.exit(main_of_run("", {{}}, job))
"""


def test_what_is_written_to_the_descriptor_is_caught(tmp_path):
    """Ray's core writes there, past everything that Python could replace."""

    def done(*flags):
        command = [sys.executable, "-c", PROGRAM, "--run-dir", str(tmp_path), *flags]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)

    assert done().stderr == f"{CHATTER}\nhalf of a line"
    assert done("--quiet").stderr == "half of a line\n"
    lines = [json.loads(line) for line in done("--json-logs").stderr.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("stderr", "info"),
        ("stderr", "warning"),
    ]
    assert lines[1]["message"] == "half of a line"
    assert done("--json-logs").returncode == 0
