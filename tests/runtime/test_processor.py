import pytest

from engine.runtime import processor


@pytest.mark.parametrize(
    ("text", "emulates"),
    [
        ("model name\t: AMD EPYC 7571\nflags\t\t: fpu avx avx2 fma\n", True),
        ("flags\t\t: fpu avx512f avx512_bf16 fma\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", True),
        ("nothing that is known\n", False),
    ],
)
def test_flags_say_whether_bfloat16_is_computed(monkeypatch, tmp_path, text, emulates):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(processor, "_CPU_INFO", path)
    assert processor.emulates_bfloat16() is emulates


def test_unknown_where_nothing_tells(monkeypatch, tmp_path):
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "missing")
    assert not processor.emulates_bfloat16()
