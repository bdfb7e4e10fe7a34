"""Components are found by name, carry their facts, and cost settings no heavy import."""

import subprocess
import sys

import pytest

from engine.components import component, component_names, may_have_settings
from engine.config import parse_config
from engine.config.facts import OBJECTIVES, STUDENTS, TEACHERS
from engine.errors import SettingsError
from engine.teachers.teacher import Teacher

KINDS = {kind.word: kind for kind in (TEACHERS, STUDENTS, OBJECTIVES)}
HEAVY = {"torch", "ray", "numba", "transformers", "sentence_transformers", "scipy", "sklearn"}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_name_is_one_class(kind):
    names = component_names(kind)
    assert len(names) >= 6 and names == sorted(set(names))
    assert [component(kind, name).name for name in names] == names


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_who_has_settings_is_told_without_an_import(kind):
    having = [n for n in component_names(kind) if component(kind, n).Settings is not None]
    assert set(having) <= set(may_have_settings(kind))


def test_settings_and_mistakes_in_them_cost_no_heavy_import():
    code = (
        "import sys\n"
        "from engine.config import parse_config\n"
        "from engine.errors import SettingsError\n"
        "job = {'corpus': {'path': 'x'}, 'student': {'name': 'vectors'}}\n"
        "parse_config(job)\n"
        "try: parse_config(job | {'studnt': {}})\n"
        "except SettingsError: pass\n"
        f"assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("kind", ["teacher", "objective"])  # those that settings ask
def test_facts_cost_no_heavy_import(kind):
    code = (
        "import sys\n"
        "from engine.components import component, component_names\n"
        f"from engine.config.facts import {kind.upper()}S as kind\n"
        "for name in component_names(kind): component(kind, name)\n"
        f"assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", component_names(TEACHERS))
def test_a_teacher_declares_what_has_no_default(name):
    teacher = component(TEACHERS, name)
    assert issubclass(teacher, Teacher)
    assert teacher.label and teacher.unit in ("pair", "point")
    assert set(teacher.feature_sides) <= {"candidate", "target"}
    assert not teacher.reads_language_model or teacher.default_model


def test_an_unknown_name_is_told_with_what_was_meant():
    with pytest.raises(SettingsError, match=r"unknown teacher 'delfit'.*mean delift"):
        component(TEACHERS, "delfit")


def test_the_settings_of_a_teacher_stand_beside_those_of_the_named_one():
    values = {"corpus": {"path": "x"}, "teacher": {"name": "less", "selectit": {"levels": 3}}}
    teacher = parse_config(values).teacher
    own = teacher.own(component(TEACHERS, "less").Settings)
    assert own.lora_rank == 128
    assert teacher.model_dump()["selectit"]["levels"] == 3
    assert "selectit" not in teacher.parts(), "another teacher's settings change no score"
    assert teacher.parts()["less"] == own
