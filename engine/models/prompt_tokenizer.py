"""Prompts as ids, joined from pieces: nothing in a row's text can change the pieces round it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import ModelError
from engine.example import ANSWER_MARK, Example

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "ChatFrame",
    "PromptTokenizer",
    "Suffix",
    "TrainingRow",
    "tokenised_row",
]

# No tokenizer packs natural text this densely: longer texts need not be tokenised in full.
CHARACTERS_PER_TOKEN = 64
# Stand for the two texts of a conversation while its template is cut to pieces.
_USER_MARK, _ASSISTANT_MARK = "\ue000", "\ue001"
# Llama's templates write a date: not today's, or answers would change with it.
_DATE = "26 Jul 2024"


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One row as token ids; neither part is empty, the response ends with eos."""

    prompt: Sequence[int]
    response: Sequence[int]

    @property
    def size(self) -> int:
        """Tokens that are read: all but the last, which is only predicted."""
        return len(self.prompt) + len(self.response) - 1


@dataclass(frozen=True, slots=True)
class Suffix:
    """What follows the shared prefix in one prompt.

    Attributes:
        query: token ids that are read but not scored; never empty.
        response: token ids that are scored, the final eos included; never empty.
        prefix_length: how many of the prefix's tokens come before it; None is all of them.
    """

    query: Sequence[int]
    response: Sequence[int]
    prefix_length: int | None = None


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """Ids that a model's chat template puts around a question and its answer.

    Attributes:
        before: what opens a conversation, special tokens included.
        between: what ends the user's message and opens the assistant's.
        end: what ends the assistant's message.
    """

    before: list[int]
    between: list[int]
    end: list[int]


class PromptTokenizer:
    """A Hugging Face tokenizer that makes pieces of prompts.

    Args:
        tokenizer: as transformers loads it.
        name: what the settings call its model, for messages.

    Raises ModelError when it has no end-of-sequence token.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        if tokenizer.eos_token_id is None:
            raise ModelError(f"model {name}: its tokenizer has no end-of-sequence token")
        self._tokenizer = tokenizer
        self._name = name
        self._anchor = self._find_anchor()

    @property
    def bos(self) -> int | None:
        """Id that the tokenizer puts before a text; None when it puts none."""
        ids = list(self._tokenizer("a", add_special_tokens=True).input_ids)
        bos: int | None = self._tokenizer.bos_token_id
        return bos if bos is not None and ids and ids[0] == bos else None

    @property
    def eos(self) -> int:
        """Id that ends a response."""
        return int(self._tokenizer.eos_token_id)

    def tokenize(self, text: str, read_special: bool = False) -> list[int]:
        """Ids of a piece of a prompt: no special token is added, or read from a row's text.

        Pieces are joined id by id, so a tokenizer that puts a space before every text is kept
        from doing so: "Query:" is the same ids here as in the middle of a prompt. `read_special`
        is for text of a template, whose special tokens are meant.
        """
        if not self._anchor:
            return self._ids(text, read_special)
        ids = self._ids("\n" + text, read_special)
        size = len(self._anchor)
        return ids[size:] if ids[:size] == self._anchor else self._ids(text, read_special)

    def text(self, ids: Sequence[int]) -> str:
        """What a model wrote, without special tokens and white space round it."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def chat_frame(self) -> ChatFrame:
        """The chat template around one question and one answer.

        The end is without white space after it; the end-of-sequence token where the template has
        none. Raises ModelError when there is no chat template, or it hides one of the texts.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            raise ModelError(
                f"model {self._name} has no chat template; use an instruction-tuned model, or "
                "another teacher.prompt_style"
            )
        text = self._rendered()
        before, _, rest = text.partition(_USER_MARK)
        between, _, after = rest.partition(_ASSISTANT_MARK)
        if text.count(_USER_MARK) != 1 or rest.count(_ASSISTANT_MARK) != 1:
            raise ModelError(
                f"model {self._name}: its chat template does not show one question and then one "
                "answer; use another teacher.prompt_style"
            )
        pieces = [self.tokenize(piece, True) for piece in (before, between, after.rstrip())]
        return ChatFrame(pieces[0], pieces[1], pieces[2] or [self.eos])

    def _rendered(self) -> str:
        messages = [
            {"role": "user", "content": _USER_MARK},
            {"role": "assistant", "content": _ASSISTANT_MARK},
        ]
        render = self._tokenizer.apply_chat_template
        try:
            return str(render(messages, tokenize=False, date_string=_DATE))
        except Exception as error:  # a template is a program: it raises whatever it likes
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"model {self._name}: its chat template fails: {reason}") from error

    def _ids(self, text: str, read_special: bool = False) -> list[int]:
        encoded = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=not read_special
        )
        return list(encoded.input_ids)

    def _find_anchor(self) -> list[int]:
        """Ids of a newline, when the tokenizer treats the start of a text specially; else []."""
        newline = self._ids("\n")
        return [] if self._ids("\na") == newline + self._ids("a") else newline


def tokenised_row(
    tokenizer: PromptTokenizer, limit: int, example: Example, cut_response: bool = False
) -> tuple[TrainingRow | str, bool]:
    """The data text of a row as ids, and whether it was cut; or why it has none.

    Three pieces, each stripped and tokenised alone (the token that starts a text once, if the
    tokenizer has one): `{bos}{x}`, `\\n##Answer:`, `{space}{y}{eos}`. A prompt too long loses its
    head. A response that alone does not fit is a problem, or with `cut_response` loses its end.
    """
    answer = example.output.strip()
    if not answer:
        return "the response is empty", False
    too_long = f"the response does not fit in max_tokens ({limit})"
    most_characters = limit * CHARACTERS_PER_TOKEN
    if len(answer) > most_characters and not cut_response:
        return too_long, False
    response = [*tokenizer.tokenize(" " + answer[:most_characters]), tokenizer.eos]
    head = [] if tokenizer.bos is None else [tokenizer.bos]
    mark = tokenizer.tokenize("\n" + ANSWER_MARK.rstrip())
    room = limit - len(head) - len(mark) - len(response)
    truncated = False
    if room < 0:
        if not cut_response or limit <= len(head) + len(mark):
            return f"{too_long}: it has {len(response)} tokens", False
        response, room, truncated = response[:room], 0, True
    text = example.prompt.strip()
    ids = tokenizer.tokenize(text[-most_characters:])
    kept = ids[max(0, len(ids) - room) :]
    truncated |= len(kept) < len(ids) or len(text) > most_characters
    return TrainingRow([*head, *kept, *mark], response), truncated
