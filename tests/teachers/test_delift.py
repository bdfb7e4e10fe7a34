"""DELIFT against the slow version, by hand, and at its limits."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.config import ModelConfig, TeacherConfig
from engine.errors import ModelError
from engine.example import Example, content_key
from engine.kernels.response_error import response_error
from engine.models.language_model import LanguageModel, ResponseProbabilities
from engine.models.prompt_tokenizer import ChatFrame, Suffix
from engine.teachers.delift import REFERENCE_INSTRUCTIONS, DeliftTeacher
from engine.teachers.teacher import Usage, load_teacher, teacher_class
from tests.oracles import delift as oracle
from tests.tiny_models import build_tiny_language_model

SENTENCE = "Answer the query."


def example(instruction: str, output: str, input: str = "") -> Example:
    key = content_key(instruction, input, output)
    return Example(key[:6], key, instruction, input, output)


CANDIDATES = [example("Add 1 and 1", "2"), example("Say hello", "Hello there!", "to Ann")]
TARGETS = [
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
    model, max_tokens=2048, max_example_tokens=512, batch_size=16, prompt_style="shared"
) -> DeliftTeacher:
    return DeliftTeacher(model, SENTENCE, max_tokens, max_example_tokens, batch_size, prompt_style)


def score(delift: DeliftTeacher, candidate: Example, targets: list[Example]):
    features = delift.features("target", targets)
    return delift.score(candidate, None, targets, features.values)


# --- against the oracle --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_equals_the_oracle(tiny: LanguageModel, tiny_dir: Path, batch_size: int):
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_dir)
    for candidate in CANDIDATES:
        scores = score(teacher(tiny, batch_size=batch_size), candidate, TARGETS)
        expected = [oracle.utility(model, tokenizer, SENTENCE, candidate, t) for t in TARGETS]
        np.testing.assert_allclose(scores.values, expected, atol=1e-5)
        assert scores.problems == [None] * len(TARGETS)
        assert np.ptp(scores.values) > 1e-3  # the tiny model does tell rows apart


def test_bfloat16_is_close(tiny: LanguageModel, tiny_dir: Path):
    half = LanguageModel(ModelConfig(path=str(tiny_dir), dtype="bfloat16"))
    full = score(teacher(tiny), CANDIDATES[0], TARGETS).values
    np.testing.assert_allclose(score(teacher(half), CANDIDATES[0], TARGETS).values, full, atol=0.05)


def test_other_targets_of_the_call_do_not_matter(tiny: LanguageModel):
    together = score(teacher(tiny), CANDIDATES[1], TARGETS).values
    alone = [score(teacher(tiny), CANDIDATES[1], [t]).values[0] for t in TARGETS]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_order_of_the_targets_does_not_change_a_byte(tiny: LanguageModel):
    delift = teacher(tiny, batch_size=2)
    forward = score(delift, CANDIDATES[0], TARGETS).values
    backward = score(delift, CANDIDATES[0], TARGETS[::-1]).values
    assert forward.tobytes() == backward[::-1].tobytes()


# --- by hand -------------------------------------------------------------------------------------


def test_response_error_by_hand():
    assert response_error(np.array([1, 1], np.float32)) == 0
    assert response_error(np.array([0, 0], np.float32)) == 1
    assert response_error(np.array([0.5, 0.75], np.float32)) == math.sqrt((0.25 + 0.0625) / 2)
    assert math.isnan(response_error(np.array([], np.float32)))
    assert math.isnan(response_error(np.array([0.5, np.nan], np.float32)))


class FakeModel:
    """One id per character, ids are code points; probabilities from a table of the prompt."""

    bos = 1
    eos = 2

    def __init__(self, table: Callable[[str, str], list[float]], context_size: int = 10_000):
        self.table = table
        self.context_size = context_size
        self.prompts: list[str] = []

    def tokenize(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def response_probabilities(
        self, prefix: Sequence[int], suffixes: Sequence[Suffix], batch_size: int
    ) -> ResponseProbabilities:
        values = []
        for suffix in suffixes:
            assert suffix.response[-1] == self.eos
            prompt = [*prefix[: suffix.prefix_length], *suffix.query]
            assert prompt[0] == self.bos
            text = "".join(map(chr, prompt[1:]))
            response = "".join(map(chr, suffix.response[:-1]))
            self.prompts.append(text + "|" + response)
            values.append(np.array(self.table(text, response), np.float32))
        return ResponseProbabilities(values, len(prefix) + len(suffixes))


class ChatModel(FakeModel):
    """Puts < before and > after a question; its answers end as always."""

    def chat_frame(self) -> ChatFrame:
        return ChatFrame([self.bos, ord("<")], [ord(">")], [self.eos])


def flat(p_without: float, p_with: float) -> Callable[[str, str], list[float]]:
    return lambda prompt, response: (
        [p_with if "Example:" in prompt else p_without] * (len(response) + 1)
    )


def test_template_and_utility_by_hand():
    model = FakeModel(flat(0.5, 0.9))
    scores = score(teacher(model), CANDIDATES[1], TARGETS[:1])
    assert model.prompts == [
        "Answer the query.\n\nQuery: Add 2 and 2\nAnswer:| 4",
        "Answer the query.\n\nExample: Say hello to Ann Hello there!"
        "\n\nQuery: Add 2 and 2\nAnswer:| 4",
    ]
    np.testing.assert_allclose(scores.values, [0.5 - 0.1], atol=1e-7)


def test_every_response_token_and_the_end_count():
    model = FakeModel(
        lambda prompt, response: [1.0, 1.0, 0.0] if "Example:" in prompt else [1.0, 0.0, 0.0]
    )
    scores = score(teacher(model), CANDIDATES[0], [example("q", "r")])
    np.testing.assert_allclose(scores.values, [math.sqrt(2 / 3) - math.sqrt(1 / 3)], atol=1e-7)


def test_a_harmful_example_is_negative():
    assert score(teacher(FakeModel(flat(0.9, 0.5))), CANDIDATES[0], TARGETS).values.max() < -0.39


def test_usage_counts_sequences():
    delift = teacher(FakeModel(flat(0.5, 0.5)))
    features = delift.features("target", TARGETS)
    assert features.usage == Usage(4, len(SENTENCE) + 1 + 4, 0)
    assert features.values.shape == (4, 1)
    scores = delift.score(CANDIDATES[0], None, TARGETS, features.values)
    shown = len("\n\nExample: Add 1 and 1 2")
    assert scores.usage == Usage(4, len(SENTENCE) + 1 + shown + 4, 0)
    assert (features.usage + scores.usage).calls == 8


# --- other prompt styles -------------------------------------------------------------------------

WITHOUT, WITH = REFERENCE_INSTRUCTIONS


def test_reference_prompts_by_hand():
    model = FakeModel(flat(0.5, 0.9))
    scores = score(teacher(model, prompt_style="reference"), CANDIDATES[1], TARGETS[:1])
    assert model.prompts == [
        "Answer the following query:\n\nQuery: Add 2 and 2\nAnswer:| 4",
        "Use the example below to answer the query that follows:"
        "\n\nExample: Say hello to Ann Hello there!\n\nQuery: Add 2 and 2\nAnswer:| 4",
    ]
    np.testing.assert_allclose(scores.values, [0.5 - 0.1], atol=1e-7)


def test_reference_without_room_for_an_example_is_the_bare_prompt():
    target = example("q" * 60, "r" * 60)
    frame = len("\n\n\nQuery:\nAnswer:\n") + len(WITH)
    for spare in range(len("\n\nExample:") + 1):
        model = FakeModel(flat(0.5, 0.9))
        scores = score(
            teacher(model, frame + 122 + spare, prompt_style="reference"), CANDIDATES[0], [target]
        )
        assert scores.values.tolist() == [0.0] and scores.usage.num_truncated == 1
        assert model.prompts[0] == model.prompts[1] and model.prompts[0].startswith(WITHOUT)


def test_reference_queries_are_cut_alike_in_both_prompts():
    frame = len("\n\n\nQuery:\nAnswer:\n") + len(WITH)
    model = FakeModel(flat(0.5, 0.9))
    delift = teacher(model, frame + 61 + 4, prompt_style="reference")
    score(delift, CANDIDATES[0], [example("0123456789", "r" * 60)])
    assert all("Query:6789\n" in prompt for prompt in model.prompts)


def test_reference_equals_the_oracle(tiny: LanguageModel, tiny_dir: Path):
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_dir)
    scores = score(teacher(tiny, prompt_style="reference"), CANDIDATES[0], TARGETS)
    expected = [
        oracle.utility(model, tokenizer, REFERENCE_INSTRUCTIONS, CANDIDATES[0], t) for t in TARGETS
    ]
    np.testing.assert_allclose(scores.values, expected, atol=1e-5)


def test_chat_prompts_by_hand():
    model = ChatModel(flat(0.5, 0.9))
    scores = score(teacher(model, prompt_style="chat"), CANDIDATES[1], TARGETS[:1])
    assert model.prompts == [
        "<Answer the query.\n\nQuery: Add 2 and 2>|4",
        "<Answer the query.\n\nExample: Say hello to Ann Hello there!\n\nQuery: Add 2 and 2>|4",
    ]
    np.testing.assert_allclose(scores.values, [0.5 - 0.1], atol=1e-7)


def test_a_long_chat_query_loses_its_head_and_the_response_nothing():
    model = ChatModel(flat(0.5, 0.9))
    limit = len("\n<Answer the query.\n\nQuery:>") + 4 + 60 + 1  # bos and eos
    delift = teacher(model, limit, prompt_style="chat")
    assert score(delift, CANDIDATES[0], [example("0123456789", "r" * 60)]).problems == [None]
    assert model.prompts == ["<Answer the query.\n\nQuery:6789>|" + "r" * 60] * 2


def test_chat_needs_a_chat_template(tiny: LanguageModel):
    with pytest.raises(ModelError, match="no chat template"):
        teacher(tiny, prompt_style="chat")


# --- too long ------------------------------------------------------------------------------------

EMPTY_PROMPT = len("\nAnswer the query.\n\nQuery:\nAnswer:") + len("\n")  # with bos and eos


@pytest.mark.parametrize(
    ("most", "shown"),
    [
        (13, " abcd efghijk"),  # all of it
        (10, "cd efghijk"),
        (8, " efghijk"),  # the whole prompt is gone
        (5, " efgh"),  # then the response's end
    ],
)
def test_a_long_example_loses_the_head_of_its_prompt(most: int, shown: str):
    model = FakeModel(flat(0.5, 0.5))
    scores = score(teacher(model, max_example_tokens=most), example("abcd", "efghijk"), TARGETS)
    assert all(f"Example:{shown}\n\nQuery" in prompt for prompt in model.prompts[4:])
    assert scores.usage.num_truncated == (0 if most == 13 else 4)


def test_the_example_gives_way_for_the_one_long_target_only():
    short, long = example("q", "r"), example("q" * 60, "r" * 60)
    model = FakeModel(flat(0.5, 0.5))
    delift = teacher(model, max_tokens=EMPTY_PROMPT + 122 + len("\n\nExample:xx yz"))
    assert score(delift, example("x" * 40, "yz"), [short, long]).usage.num_truncated == 1
    shown = {p.split("|")[1].strip()[0:2]: p for p in model.prompts[2:]}
    assert "Example: " + "x" * 40 + " yz\n\n" in shown["r"]
    assert "Example:xx yz\n\nQuery: " + "q" * 60 in shown["rr"]
    assert len(shown["rr"]) + 1 == delift._limit  # bos and eos for the mark |


def test_a_shortened_example_equals_the_oracle(tiny: LanguageModel, tiny_dir: Path):
    """One that gives way for a target alone: the rest of it is read behind what is shared."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_dir)
    tokenizer = AutoTokenizer.from_pretrained(tiny_dir)
    target, cut = TARGETS[1], example("cd", "Hello there!")
    prompt = oracle.prompt_ids(tokenizer, SENTENCE, target.prompt, f"{cut.prompt} {cut.output}")
    response = tokenizer(" " + target.output, add_special_tokens=False).input_ids
    delift = teacher(tiny, max_tokens=len(prompt) + len(response) + 1)  # and eos
    scores = score(delift, example("Say ab cd", "Hello there!"), [target])
    assert scores.usage.num_truncated == 1
    expected = oracle.utility(model, tokenizer, SENTENCE, cut, target)
    np.testing.assert_allclose(scores.values, [expected], atol=1e-5)


def test_an_example_of_which_nothing_fits_is_left_out():
    target = example("q" * 60, "r" * 60)
    model = FakeModel(flat(0.5, 0.9))
    for spare in range(len("\n\nExample:") + 1):
        scores = score(teacher(model, EMPTY_PROMPT + 122 + spare), CANDIDATES[0], [target])
        assert scores.values.tolist() == [0.0] and scores.usage.num_truncated == 1
    assert not any("Example" in prompt for prompt in model.prompts)


def test_then_the_query_loses_its_head_and_the_response_nothing():
    target = example("0123456789", "r" * 60)
    model = FakeModel(flat(0.5, 0.9))
    delift = teacher(model, max_tokens=EMPTY_PROMPT + 61 + 4)
    assert score(delift, CANDIDATES[0], [target]).problems == [None]
    assert model.prompts == ["Answer the query.\n\nQuery:6789\nAnswer:| " + "r" * 60] * 2
    assert delift.features("target", [target]).usage.num_truncated == 1


def test_the_context_of_the_model_is_a_limit_too():
    model = FakeModel(flat(0.5, 0.9), context_size=EMPTY_PROMPT + 61 + 4)
    score(teacher(model), CANDIDATES[0], [example("0123456789", "r" * 60)])
    assert "Query:6789\n" in model.prompts[0]


def test_a_megabyte_row_is_cut_before_it_is_read():
    seen: list[int] = []

    class Counting(FakeModel):
        def tokenize(self, text: str) -> list[int]:
            seen.append(len(text))
            return super().tokenize(text)

    huge = example("x" * 1_000_000, "y" * 1_000_000)
    delift = teacher(Counting(flat(0.5, 0.5)), max_tokens=256, max_example_tokens=64)
    features = delift.features("target", [huge, example("x" * 1_000_000, "y")])
    assert max(seen) <= 64 * 256
    assert "does not fit in max_tokens (256)" in str(features.problems[0])
    assert features.problems[1] is None and features.usage.num_truncated == 1
    assert delift.score(huge, None, TARGETS[:1], np.ones((1, 1), np.float32)).problems == [None]


# --- rows that cannot be scored ------------------------------------------------------------------


def test_bad_rows_are_nan_and_shift_nobody():
    model = FakeModel(flat(0.5, 0.9))
    delift = teacher(model, max_tokens=128)
    bad = [example("q", "  "), example("q", "r" * 128)]
    targets = [TARGETS[0], bad[0], TARGETS[1], bad[1], TARGETS[3]]
    features = delift.features("target", targets)
    scores = delift.score(CANDIDATES[0], None, targets, features.values)
    for answer in (features, scores):
        assert np.isnan(answer.values).ravel().tolist() == [False, True, False, True, False]
        assert answer.problems[1] == "the response is empty"
        assert "128" in str(answer.problems[3]) and answer.problems[0] is None
        assert answer.usage.calls == 3
    np.testing.assert_allclose(scores.values[[0, 2, 4]], 0.4, atol=1e-7)


def test_probabilities_that_are_not_finite_are_nan_with_a_problem():
    model = FakeModel(lambda prompt, response: [math.nan] * (len(response) + 1))
    delift = teacher(model)
    features = delift.features("target", TARGETS[:1])
    assert np.isnan(features.values).all() and "not finite" in str(features.problems[0])
    scores = delift.score(CANDIDATES[0], None, TARGETS[:1], features.values)
    assert np.isnan(scores.values).all() and "without an example" in str(scores.problems[0])
    assert scores.usage.calls == 0


# --- registry and identity -----------------------------------------------------------------------


def settings(tiny_dir: Path, **changes: object) -> TeacherConfig:
    model = {"path": str(tiny_dir), "dtype": "float32", **changes.pop("model", {})}
    return TeacherConfig.model_validate({"name": "delift", "model": model, **changes})


def test_loaded_by_name(tiny: LanguageModel, tiny_dir: Path):
    config = settings(tiny_dir, instruction=SENTENCE)
    loaded = load_teacher(config, seed=0)
    assert isinstance(loaded, DeliftTeacher)
    assert (loaded.name, loaded.unit, loaded.feature_sides) == ("delift", "pair", ("target",))
    expected = score(teacher(tiny), CANDIDATES[0], TARGETS).values
    np.testing.assert_array_equal(score(loaded, CANDIDATES[0], TARGETS).values, expected)


def test_identity_of_the_default_style_never_changes():
    """Paid answers are stored under it."""
    config = TeacherConfig.model_validate(
        {"name": "delift", "model": {"path": "a/b", "revision": "c"}}
    )
    assert DeliftTeacher.identity(config) == {
        "teacher": "delift",
        "model": "a/b@c",
        "dtype": "bfloat16",
        "threads": 1,
        "max_tokens": 2048,
        "batch_size": 16,
        "template": 2,
        "instruction": "Answer the query below as well as you can.",
        "max_example_tokens": 512,
    }


def test_identity_of_the_reference_style_has_its_own_instructions(tiny_dir: Path):
    configs = [settings(tiny_dir, prompt_style="reference", instruction=text) for text in "ab"]
    first, second = map(DeliftTeacher.identity, configs)
    assert first == second and first["instruction"] == [WITHOUT, WITH]


@pytest.mark.parametrize(
    "change",
    [
        {"instruction": "Other."},
        {"prompt_style": "reference"},
        {"prompt_style": "chat"},
        {"max_tokens": 100},
        {"max_example_tokens": 100},
        {"batch_size": 3},
        {"model": {"dtype": "bfloat16"}},
        {"model": {"threads": 2}},
        {"model": {"path": "owner/other"}},
    ],
)
def test_identity_holds_all_that_scores_depend_on(tiny_dir: Path, change: dict[str, object]):
    identity = teacher_class("delift").identity
    first = identity(settings(tiny_dir))
    assert first == identity(settings(tiny_dir, execution={"max_actors": 7}))
    assert identity(settings(tiny_dir, **change)) != first
