"""SelectIT against the slow version, by hand, and at its limits."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig, TeacherConfig
from engine.errors import ModelError
from engine.example import Example, content_key
from engine.models.language_model import LanguageModel, NextTokenProbabilities
from engine.teachers.selectit import SelectITSettings, SelectITTeacher
from engine.teachers.teacher import Features, Usage, load_teacher, teacher_class
from tests.oracles import selectit as oracle
from tests.tiny_models import build_tiny_language_model

SENTENCES = SelectITSettings().rating_prompts


def example(instruction: str, output: str, input: str = "") -> Example:
    key = content_key(instruction, input, output)
    return Example(key[:6], key, instruction, input, output)


ROWS = [
    example("Add 2 and 2", "4"),
    example("Name a colour", "Blue is a colour."),
    example("Repeat", "word " * 20 + "end", "ünïcödé"),
    example("Say", "x"),
]


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_language_model(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def tiny(tiny_dir: Path) -> LanguageModel:
    return LanguageModel(ModelConfig(path=str(tiny_dir)))


def teacher(
    *models, sentences=SENTENCES, levels=5, alpha=0.2, form="normalised", max_tokens=2048, batch=16
) -> SelectITTeacher:
    return SelectITTeacher(lambda: models, sentences, levels, alpha, form, max_tokens, batch)


def rate(selectit: SelectITTeacher, rows: Sequence[Example]) -> Features:
    return selectit.features("candidate", rows)


# --- against the oracle --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "levels", "alpha", "form"),
    [
        (1, 5, 0.2, "normalised"),
        (3, 5, 0.2, "normalised"),
        (16, 5, 0.2, "reference"),
        (16, 9, 1.5, "normalised"),
    ],
)
def test_equals_the_oracle(tiny, tiny_dir: Path, batch: int, levels: int, alpha: float, form: str):
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_dir)
    settings = {"alpha": alpha, "levels": levels, "form": form}
    features = rate(teacher(tiny, batch=batch, **settings), ROWS)
    expected = [oracle.score(model, tokenizer, SENTENCES, row, **settings) for row in ROWS]
    np.testing.assert_allclose(features.values[:, 0], expected, atol=1e-4)
    assert features.values.shape == (4, 1) and features.values.dtype == np.float32
    assert features.problems == [None] * 4
    assert np.ptp(features.values) > 0.01  # the tiny model does tell rows apart


def test_two_models_weigh_by_their_parameters(tiny, tmp_path: Path):
    other = LanguageModel(ModelConfig(path=str(build_tiny_language_model(tmp_path, seed=1))))
    alone = [rate(teacher(model), ROWS).values for model in (tiny, other)]
    both = rate(teacher(tiny, other), ROWS)
    np.testing.assert_allclose(both.values, np.mean(alone, axis=0), atol=1e-5)
    assert tiny.num_parameters == other.num_parameters
    assert both.usage == rate(teacher(tiny), ROWS).usage + rate(teacher(other), ROWS).usage


def test_other_rows_of_the_call_matter_through_rounding_only(tiny):
    together = rate(teacher(tiny), ROWS).values
    alone = [rate(teacher(tiny), [row]).values[0] for row in ROWS]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_order_of_the_rows_does_not_change_a_byte(tiny):
    selectit = teacher(tiny, batch=3)
    forward, backward = rate(selectit, ROWS).values, rate(selectit, ROWS[::-1]).values
    assert forward.tobytes() == backward[::-1].tobytes()


# --- by hand -------------------------------------------------------------------------------------


class FakeModel:
    """One id per character, ids are code points; digit probabilities from a table of the prompt."""

    bos = 1
    name = "fake"

    def __init__(
        self,
        table: Callable[[str], list[float]] = lambda prompt: [0, 0, 0, 0, 0.1],
        context_size: int = 10_000,
        num_parameters: int = 100,
    ):
        self.table = table
        self.context_size = context_size
        self.num_parameters = num_parameters
        self.prompts: list[str] = []

    def tokenize(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def next_token_probabilities(
        self, prompts: Sequence[Sequence[int]], tokens: Sequence[int], batch_size: int
    ) -> NextTokenProbabilities:
        assert all(prompt[0] == self.bos for prompt in prompts)
        texts = ["".join(map(chr, prompt[1:])) for prompt in prompts]
        self.prompts += texts
        values = np.array([self.table(text) for text in texts], np.float32)
        return NextTokenProbabilities(
            values.reshape(len(texts), len(tokens)), sum(map(len, prompts))
        )


def test_template_and_score_by_hand():
    tables = {"First?": [0, 0, 0, 0, 0.3], "Next?": [0.1, 0.3, 0, 0, 0]}
    model = FakeModel(lambda prompt: tables[prompt.split("\n")[0]])
    row = example(" Say hello", "Hello there! ", "to Ann ")
    features = rate(teacher(model, sentences=(" First?", "Next? ")), [row])
    rest = "\nInstruction: Say hello to Ann\nResponse: Hello there!\nThe answer is: "
    assert model.prompts == ["First?" + rest, "Next?" + rest]
    first, second = 5.0, 2 * (0.5 + 3 * 0.75) / 4
    mean, spread = (first + second) / 2, (first - second) / 2
    np.testing.assert_allclose(features.values, [[mean / (1 + 0.2 * spread)]], rtol=1e-6)
    assert features.usage == Usage(2, sum(map(len, model.prompts)) + 2, 0)


def test_models_of_different_size_by_hand():
    small = FakeModel(lambda prompt: [0, 0, 0, 0, 1.0], num_parameters=100)
    large = FakeModel(lambda prompt: [0, 1.0, 0, 0, 0], num_parameters=300)
    np.testing.assert_allclose(rate(teacher(small, large), ROWS[:1]).values, [[0.25 * 5 + 1.5]])


def test_a_score_is_the_same_for_all_targets_and_asks_nobody():
    model = FakeModel()
    selectit = teacher(model)
    scores = selectit.score(ROWS[0], np.array([2.5], np.float32), ROWS[1:], None)
    assert scores.values.tolist() == [2.5] * 3 and scores.values.dtype == np.float32
    assert scores.problems == [None] * 3 and scores.usage == Usage() and not model.prompts
    scores = selectit.score(ROWS[0], np.array([np.nan], np.float32), ROWS[1:2], None)
    assert np.isnan(scores.values).all() and "no score" in str(scores.problems[0])


# --- digits --------------------------------------------------------------------------------------


class MergingModel(FakeModel):
    """Reads some texts as one token."""

    def __init__(self, merged: Sequence[str]):
        super().__init__()
        self.merged = merged

    def tokenize(self, text: str) -> list[int]:
        for number, end in enumerate(self.merged):
            if text.endswith(end):
                return [*super().tokenize(text[: -len(end)]), 0x10000 + number]
        return super().tokenize(text)


def test_a_digit_with_its_space_in_one_token():
    selectit = teacher(MergingModel([f" {digit}" for digit in range(1, 6)]))
    assert selectit._raters[0]._closing[-1] == ord(":")
    assert selectit._raters[0]._digits == [0x10000 + i for i in range(5)]


def test_a_digit_behind_a_space_of_the_prompt():
    selectit = teacher(FakeModel())
    assert selectit._raters[0]._closing[-2:] == [ord(":"), ord(" ")]
    assert selectit._raters[0]._digits == [ord(digit) for digit in "12345"]


def test_a_digit_without_a_space():
    selectit = teacher(MergingModel([": "]))  # the colon and its space cannot be told apart
    assert selectit._raters[0]._digits == [ord(digit) for digit in "12345"]
    merged = teacher(MergingModel([f": {digit}" for digit in range(1, 6)]))
    assert merged._raters[0]._closing[-1] == ord(":")


class SplittingModel(FakeModel):
    """Has no token for the digit 3, and one for 4 and 5."""

    def __init__(self, split: str = "", same: str = ""):
        super().__init__()
        self.split, self.same = split, same

    def tokenize(self, text: str) -> list[int]:
        ids = []
        for character in text:
            ids += [7, 8] if character in self.split else [ord(character)]
        return [9 if chr(token) in self.same else token for token in ids]


@pytest.mark.parametrize("settings", [{"split": "3"}, {"same": "23"}])
def test_a_digit_without_a_token_of_its_own_is_refused(settings: dict[str, str]):
    with pytest.raises(ModelError, match=r"^model fake: .* digit 3 after 'The answer is:'"):
        teacher(SplittingModel(**settings)).features("candidate", [example("x", "y")])


def test_a_digit_that_is_not_asked_for_needs_no_token():
    teacher(SplittingModel(split="6")).features("candidate", [example("x", "y")])
    with pytest.raises(ModelError, match=r"digit 6 .* from 1 to 9"):
        teacher(SplittingModel(split="6"), levels=9).features("candidate", [example("x", "y")])


# --- too long ------------------------------------------------------------------------------------

FRAME = len("\nFirst?\nInstruction:\nResponse: \nThe answer is: ")  # bos for the first newline


def test_a_long_instruction_loses_its_head_alike_in_all_prompts():
    model = FakeModel()
    sentences = ("First?", "Second one?")
    longer = len("Second one?") - len("First?")
    selectit = teacher(model, sentences=sentences, max_tokens=FRAME + longer + 40 + 4)
    features = rate(selectit, [example("0123456789", "r" * 40)])
    rest = f"\nInstruction:6789\nResponse: {'r' * 40}\nThe answer is: "
    assert model.prompts == ["First?" + rest, "Second one?" + rest]
    assert features.usage.num_truncated == 2 and features.problems == [None]


def test_the_context_of_the_model_is_a_limit_too():
    model = FakeModel(context_size=FRAME + 40 + 4)
    rate(teacher(model, sentences=("First?",)), [example("0123456789", "r" * 40)])
    assert "\nInstruction:6789\n" in model.prompts[0]


def test_a_response_that_does_not_fit_is_never_cut_and_shifts_nobody():
    model = FakeModel()
    selectit = teacher(model, sentences=("First?",), max_tokens=FRAME + 40)
    fits, too_long = example("q", "r" * 40), example("q", "r" * 41)
    rows = [ROWS[0], too_long, fits, example("q", " "), ROWS[3]]
    features = rate(selectit, rows)
    assert np.isnan(features.values[:, 0]).tolist() == [False, True, False, True, False]
    assert "does not fit" in str(features.problems[1]) and "42 tokens" in str(features.problems[1])
    assert features.problems[3] == "the response is empty"
    assert features.usage.calls == 3
    assert not any("r" * 41 in prompt for prompt in model.prompts)
    assert sum(f" {'r' * 40}\n" in prompt for prompt in model.prompts) == 1


def test_one_model_that_cannot_read_a_row_leaves_it_out_for_all():
    small, large = FakeModel(context_size=FRAME + 40), FakeModel()
    features = rate(teacher(small, large, sentences=("First?",)), [example("q", "r" * 41)])
    assert np.isnan(features.values).all() and features.usage == Usage()


def test_a_megabyte_row_is_cut_before_it_is_read():
    seen: list[int] = []

    class Counting(FakeModel):
        def tokenize(self, text: str) -> list[int]:
            seen.append(len(text))
            return super().tokenize(text)

    rows = [example("x" * 1_000_000, "y" * 1_000_000), example("x" * 1_000_000, "y")]
    features = rate(teacher(Counting(), max_tokens=512), rows)
    assert max(seen) <= 64 * 512
    assert "does not fit in max_tokens (512)" in str(features.problems[0])
    assert features.problems[1] is None and features.usage.num_truncated == len(SENTENCES)


@pytest.mark.parametrize("values", [[0.0] * 5, [0.1, 0.1, math.nan, 0.1, 0.1]])
def test_a_model_without_belief_gives_nan_with_a_problem(values: list[float]):
    features = rate(teacher(FakeModel(lambda prompt: values)), ROWS[:1])
    assert np.isnan(features.values).all() and "no usable" in str(features.problems[0])


# --- registry and identity -----------------------------------------------------------------------


def settings(tiny_dir: Path, **changes: object) -> TeacherConfig:
    model = {"path": str(tiny_dir), "dtype": "float32", **changes.pop("model", {})}
    return TeacherConfig.model_validate({"name": "selectit", "model": model, **changes})


def test_loaded_by_name(tiny, tiny_dir: Path):
    config = settings(tiny_dir, selectit={"alpha": 0.7, "models": [{"path": str(tiny_dir)}]})
    loaded = load_teacher(config, seed=0)
    assert isinstance(loaded, SelectITTeacher)
    assert (loaded.unit, loaded.pairwise, loaded.feature_sides) == ("point", False, ("candidate",))
    expected = rate(teacher(tiny, tiny, alpha=0.7), ROWS).values
    np.testing.assert_array_equal(rate(loaded, ROWS).values, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 100},
        {"batch_size": 3},
        {"model": {"dtype": "bfloat16"}},
        {"model": {"quantization": "nf4"}},
        {"model": {"threads": 2}},
        {"model": {"path": "owner/other"}},
        {"selectit": {"models": [{"path": "owner/other"}]}},
        {"selectit": {"models": [{"path": "owner/other", "quantization": "int8"}]}},
        {"selectit": {"rating_prompts": ["Rate it."]}},
        {"selectit": {"levels": 4}},
        {"selectit": {"alpha": 0.3}},
        {"selectit": {"prob_form": "reference"}},
    ],
)
def test_identity_holds_all_that_scores_depend_on(tiny_dir: Path, change: dict[str, object]):
    identity = teacher_class("selectit").identity
    first = identity(settings(tiny_dir))
    assert identity(settings(tiny_dir, **change)) != first
    others = {"instruction": "Other.", "max_example_tokens": 9, "less": {"lora_rank": 2}}
    assert first == identity(settings(tiny_dir, execution={"max_actors": 7}, **others))
