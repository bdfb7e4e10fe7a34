"""SIGTERM unwinds a process, and does not kill it while it is shut down."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHUT_DOWN_SLOWLY = """
import os, signal, time
from engine.terminal import ends

ends._AGAIN_S = 0.05
try:
    with ends.terminable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            with ends.undisturbed():
                signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does
                time.sleep(0.5)
except ends.Terminated:
    print("unwound")
"""
SWALLOWED = """
import os, signal, time
from engine.terminal import ends

ends._AGAIN_S = 0.05
try:
    with ends.terminable():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        except BaseException:
            pass  # as libraries do in their callbacks
        time.sleep(5)
except ends.Terminated:
    print("unwound")
"""


def said_by(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def test_no_second_sigterm_kills_what_is_shutting_down():
    assert said_by(SHUT_DOWN_SLOWLY) == (0, "unwound\n", "")


def test_a_sigterm_that_was_swallowed_comes_again():
    assert said_by(SWALLOWED) == (0, "unwound\n", "")
