"""Prompts as ids: what is shown, what is learned, and what may be cut."""

import pytest

from engine.errors import ModelError
from engine.evaluation.prompts import PromptBuilder
from engine.example import Example
from engine.models.prompt_tokenizer import ChatFrame

INSTRUCTION = "Answer."


class Characters:
    """One id per character; a chat frame of three ids that no character has."""

    bos, eos = 1_000, 1_001

    def __init__(self, chat=True):
        self._chat = chat

    def tokenize(self, text):
        return [ord(character) for character in text]

    def chat_frame(self):
        if not self._chat:
            raise ModelError("no chat template; use another teacher.prompt_style")
        return ChatFrame([2_000], [2_001], [2_002, 2_003])


def example(name, prompt="ask", output="say"):
    return Example(id=name, key=name, instruction=prompt, input="", output=output)


def text(ids):
    return "".join(chr(i) if i < 1_000 else f"<{i}>" for i in ids)


def test_bare_prompt_and_response_are_the_chat_template_round_the_texts():
    prompts = PromptBuilder(Characters(), "chat", INSTRUCTION)
    assert text(prompts.bare(example("a"))) == "<2000>ask<2001>"
    assert text(prompts.response(example("a"))) == "say<2002><2003>"
    assert prompts.stop == [2_002]


def test_plain_prompts_need_no_template():
    prompts = PromptBuilder(Characters(chat=False), "plain", INSTRUCTION)
    assert text(prompts.bare(example("a"))) == "<1000>ask\nAnswer:"
    assert text(prompts.response(example("a"))) == " say<1001>"


def test_a_model_without_template_is_refused_with_the_setting_of_this_job():
    with pytest.raises(ModelError, match=r"evaluation\.prompt_style"):
        PromptBuilder(Characters(chat=False), "chat", INSTRUCTION)


def test_examples_come_most_similar_first_and_before_the_query():
    prompts = PromptBuilder(Characters(), "chat", INSTRUCTION)
    shown = [example("b", "near", "1"), example("c", "far", "2")]
    built = prompts.with_examples(example("a"), shown, room=1_000)
    assert built.shown == 2
    assert text(built.ids) == (
        "<2000>Answer.\n\nExample: near 1\n\nExample: far 2\n\nQuery: ask<2001>"
    )


@pytest.mark.parametrize("room", range(20, 90))
def test_truncation_drops_the_least_similar_example_and_never_the_query(room):
    prompts = PromptBuilder(Characters(), "chat", INSTRUCTION)
    shown = [example("b", "nearest", "11"), example("c", "near", "22"), example("d", "far", "33")]
    built = prompts.with_examples(example("a", "the whole question"), shown, room)
    whole = prompts.with_examples(example("a", "the whole question"), [], 1_000)
    if room < len(whole.ids):
        assert built is None
        return
    assert len(built.ids) <= room
    said = text(built.ids)
    assert said.endswith("\n\nQuery: the whole question<2001>")
    kept = [word for word in ("nearest 11", "near 22", "far 33") if word in said]
    assert kept == ["nearest 11", "near 22", "far 33"][: built.shown]
    if built.shown < 3:  # one more would not have fitted
        more = len(f"\n\nExample: {['nearest 11', 'near 22', 'far 33'][built.shown]}")
        assert len(built.ids) + more > room


def test_a_training_row_loses_the_head_of_its_prompt_and_no_response():
    prompts = PromptBuilder(Characters(), "chat", INSTRUCTION)
    row = prompts.training_row(example("a", "0123456789", "answer"), max_tokens=14)
    assert text(row.prompt) == "<2000>6789<2001>"
    assert text(row.response) == "answer<2002><2003>"
    assert prompts.training_row(example("a", "0123456789", "answer"), max_tokens=10) is None
