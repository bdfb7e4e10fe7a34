"""The audit of the lock: what it asks about, and what it makes of the answers."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = 'a==1.0\nb==2.0; python_version == "3.10"\nb==3.0; python_version >= "3.11"\n# c==1\n'
FOUND = {"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["1.1"], "description": "x"}
UNKNOWN = {"name": "b", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def answer(audit, tmp_path, monkeypatch):
    """Run the audit of a small lock where pip-audit prints this; returns what it was asked."""
    (tmp_path / "lock").write_text(LOCK)
    asked = []

    def run_with(out, err="", code=0):
        def run(command, **rest):
            asked.append(Path(command[command.index("--requirement") + 1]).read_text().split())
            return SimpleNamespace(stdout=out, stderr=err, returncode=code)

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(sys, "argv", ["audit.py", str(tmp_path / "lock")])
        monkeypatch.setattr(audit.importlib.util, "find_spec", lambda name: object())
        return audit.main(), asked

    return run_with


def dependencies(*answers):
    return json.dumps({"dependencies": list(answers), "fixes": []})


def test_versions_of_every_python_are_asked_about(answer, capsys):
    fine = {"name": "a", "version": "1.0", "vulns": []}
    code, asked = answer(dependencies(fine))
    assert code == 0 and asked == [["a==1.0", "b==2.0"], ["b==3.0"]]
    assert capsys.readouterr().out == "audited: 2 packages, no known vulnerabilities\n"


def test_known_vulnerabilities_fail_and_are_listed_once(answer, capsys):
    bad = {"name": "a", "version": "1.0", "vulns": [FOUND]}
    code, _ = answer(dependencies(bad, bad, UNKNOWN), "Found 1 known vulnerability", 1)
    assert code == 1
    assert capsys.readouterr().out.splitlines() == [
        "audited: 4 packages, 1 known vulnerabilities",
        "not audited: b, b: the service has none",
        "  a 1.0: PYSEC-1, CVE-2; fixed in 1.1",
    ]


@pytest.mark.parametrize(
    ("out", "err", "said"),
    [
        (dependencies(UNKNOWN, UNKNOWN), "", "nothing is known of any of 4 packages (Dependency"),
        (dependencies(), "", "nothing is known of any of 0 packages (the lock is empty)"),
        ("", "Traceback\nrequests.ConnectionError: no route\n", "did not answer (requests.Conn"),
        ("", "", "did not answer (pip-audit said nothing)"),
        ("[]", "", "did not answer"),
    ],
)
def test_what_could_not_be_asked_is_one_honest_line(answer, capsys, out, err, said):
    assert answer(out, err, 1)[0] == 0
    printed = capsys.readouterr().out
    assert printed.startswith("not audited: ") and said in printed and printed.count("\n") == 1


def test_without_pip_audit_it_says_so(audit, monkeypatch, capsys):
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda name: None)
    assert audit.main() == 0
    assert capsys.readouterr().out.startswith("not audited: pip-audit is not installed")


def test_every_pin_of_our_lock_is_asked_about(audit):
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pins = [pin for pins in audit.rounds(lock) for pin in pins]
    assert len(pins) == len([line for line in lock.splitlines() if not line.startswith("#")])
    assert ("torch", "2.13.0") in pins


def test_make_check_runs_it():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (recipe,) = [rule for rule in makefile.split("\n\n") if rule.startswith("check:")]
    assert "scripts/audit.py" in recipe
