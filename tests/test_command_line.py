"""What a job prints where something went wrong: fit for a terminal, and one sentence for users."""

import json
import logging

import pytest

from engine.command_line import main_of_run
from engine.errors import InputError
from engine.progress import Progress, printable, say

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
