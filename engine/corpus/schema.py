"""What a raw row must look like, and what becomes of it. These are the documented rules.

Columns. A row has `instruction`, `output` and, if it likes, `input` and `id`; `columns:` in the
settings maps our names to other ones ({instruction: prompt}).

1. Texts. instruction, input and output must be strings. A number, boolean, list or object is
   rejected, never converted.
2. input: null or missing is "".
3. Blank. instruction and output must hold something visible: null, "", and texts made only of
   whitespace (U+00A0 and U+3000 too), zero-width, format or control characters are rejected.
4. id: a string is kept; an integer, also one that a float holds (pandas), becomes its decimal text;
   null, NaN, missing and "" mean that the content key (128-bit hash of the three texts; of a
   conversation that shows more than they do, of all its columns) is the id; anything else is
   rejected.
5. NUL characters are taken out of the id and the texts, and counted.
6. Lone surrogates (half a character, from a broken escape) reject the row. Every other character
   comes back as it was: nothing is trimmed, folded or normalised; NFC and NFD twins are two rows.
7. Chat. A row whose instruction is absent or null, and that has a list of turns under `messages`,
   `conversations` or the mapped `messages` column, is a conversation. A mapped `messages` column
   wins over an `instruction` column that was not mapped. A list may be JSON text. How turns,
   `system` and `tools` become instruction and output: engine/corpus/conversations.py; the input
   is "". Likewise an instruction that is a list of turns, with the output after it; and the
   columns `system` and `history` of an Alpaca row.
8. Common names. Where a row has no column of ours and none is mapped, `prompt`, `question` or
   `query` is the instruction and `completion`, `response` or `answer` the output, if the row has
   one of them; with two, which one is to be said. `chosen` (beside `prompt`, or a whole
   conversation) is the output with `preference: chosen` only.
9. Media. Images, audio and video, as parts of turns or in columns of that name, are not read:
   counted, or with `media: refuse` rejected.
10. All other columns are carried along in `extra`, in the order of the row; of conversations
   all columns but the id.
11. Filter. `where` compares columns of the file by their own names: equal value and kind (true is
   not 1, "1" is not 1), null equals null, and a column that the row lacks never matches. The
   columns of a CSV are text, and so is what they are compared with.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from engine.config import CorpusConfig
from engine.corpus.column_names import ANSWERS, QUESTIONS, explain, only
from engine.corpus.conversations import (
    Conversation,
    as_turns,
    history_turns,
    media_columns,
    read_conversation,
    system_of,
    turns_of_both,
)
from engine.corpus.extras import extra_as_json
from engine.corpus.problems import RowError, kind_of
from engine.example import Example, content_key

__all__ = [
    "ParsedRow",
    "RowParser",
    "Rules",
    "as_text",
    "explain_missing_columns",
    "extra_as_json",
    "matches",
    "parse",
    "rules_of",
]

_CHAT_COLUMNS = ("messages", "conversations")
_INVISIBLE = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
_LARGEST_WHOLE = 2**53  # of larger floats the last digits are not those that were written
_ABSENT = object()


class Rules(NamedTuple):
    """The settings of CorpusConfig that the meaning of a row depends on, beside its columns."""

    media: Literal["keep", "refuse"] = "keep"
    reasoning: Literal["read", "skip"] = "read"
    preference: Literal["refuse", "chosen"] = "refuse"


DEFAULT_RULES = Rules()


class ParsedRow(NamedTuple):
    """A valid row.

    Attributes:
        example: what the engine works on.
        extra: every column that example was not made of, by its own name.
        num_nul: NUL characters that were taken out.
        media: images and the like that are not read, by type.
        read_as: common names that were taken for ours, as {ours: theirs}.
    """

    example: Example
    extra: dict[str, Any]
    num_nul: int
    media: Mapping[str, int] = Counter()
    read_as: Mapping[str, str] = {}


def rules_of(config: CorpusConfig) -> Rules:
    """What the settings of a corpus say of the meaning of a row."""
    return Rules(config.media, config.reasoning, config.preference)


def parse(
    values: Mapping[str, Any], columns: Mapping[str, str], rules: Rules = DEFAULT_RULES
) -> ParsedRow | str:
    """A raw row as a valid row, or the reason why it is none; see RowParser."""
    return RowParser(columns, rules).parse(values)


def matches(values: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a raw row passes CorpusConfig.where (rule 11); an empty filter lets all pass."""
    for column, wanted in where.items():
        value = values.get(column, _ABSENT)
        choices = wanted if isinstance(wanted, tuple) else (wanted,)
        if not any(_equal(value, choice) for choice in choices):
            return False
    return True


def as_text(where: Mapping[str, Any]) -> dict[str, Any]:
    """A filter for columns that are all text, as those of a CSV are: 1999 is "1999" there."""
    return {
        column: tuple(
            text
            for choice in (wanted if isinstance(wanted, tuple) else (wanted,))
            for text in _texts_of(choice)
        )
        for column, wanted in where.items()
    }


def explain_missing_columns(
    found: Collection[str], columns: Mapping[str, str], rules: Rules = DEFAULT_RULES
) -> str | None:
    """Which columns a table or row lacks, which it has, and how to map them; None if it is fine.

    A column that `columns` names must exist in a table even when it is optional: a misspelt
    mapping would otherwise read as "no input". Rows are only held to the required ones.
    """
    missing = [name for name in columns.values() if name not in found]
    if not missing:
        try:
            there = dict.fromkeys(found, True)
            if not RowParser(columns, rules).is_chat(there):
                RowParser(columns, rules).text_columns(there)
            return None
        except RowError as problem:
            return str(problem)
    return explain(missing, found, columns)


class RowParser:
    """Reads the rows of one corpus. About 10 microseconds a plain row, 30 a conversation.

    Args:
        columns: our names to those of the file, as CorpusConfig.columns.
        rules: what else the settings say.
    """

    def __init__(self, columns: Mapping[str, str], rules: Rules = DEFAULT_RULES) -> None:
        self._columns = columns
        self._rules = rules
        self._id = columns.get("id", "id")
        self._wins = "messages" in columns and "instruction" not in columns
        self._names = tuple(columns.get(n, n) for n in ("instruction", "output"))
        names = (self._id, *self._names)
        # With {instruction: input} the column named input is spoken for.
        is_free = "input" in columns or "input" not in names
        self._input = columns.get("input", "input") if is_free else None

    def parse(self, values: Mapping[str, Any]) -> ParsedRow | str:
        """A valid row, or the reason why it is none. Never raises for what a row may hold."""
        try:
            return self._parse(values)
        except RowError as problem:
            return str(problem)

    def is_chat(self, values: Mapping[str, Any]) -> bool:
        """Whether a row, or a table by its columns, is a conversation (rule 7)."""
        return self._chat_column(values) is not None

    def text_columns(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """The columns of instruction and output (rule 8); raises RowError if that is not clear."""
        instruction, output = self._names
        if instruction in values and output in values:
            return instruction, output
        found = [
            name if name in values or ours in self._columns else only(names, values, ours)
            for ours, name, names in (
                ("instruction", instruction, QUESTIONS),
                ("output", output, ANSWERS),
            )
        ]
        if values.get("chosen") is not None and found[1] is None:
            found = self._of_preference(found[0], values["chosen"])
        missing = [
            name
            for name, theirs in zip(self._names, found, strict=True)
            if theirs is None or theirs not in values
        ]
        if missing:
            raise RowError(explain(missing, values, self._columns))
        return str(found[0]), str(found[1])

    def _of_preference(self, instruction: str | None, chosen: Any) -> list[str | None]:
        if self._rules.preference == "refuse":
            raise RowError(
                "the row is a preference (chosen, rejected): preference: chosen takes the chosen "
                "answer"
            )
        if instruction is None and as_turns(chosen) is None and not isinstance(chosen, bool):
            raise RowError("chosen is no list of turns, and no prompt says what it answers")
        return [instruction or "chosen", "chosen"]

    def _chat_column(self, values: Mapping[str, Any]) -> str | None:
        if not self._wins and values.get(self._names[0]) is not None:
            return None
        names = (self._columns["messages"],) if "messages" in self._columns else _CHAT_COLUMNS
        return next((name for name in names if values.get(name) is not None), None)

    def _parse(self, values: Mapping[str, Any]) -> ParsedRow:
        chat = self._chat_column(values)
        if chat is not None:
            return self._of_turns(values, as_turns(values[chat]) or values[chat], chat)
        if "messages" in self._columns or self._names[0] not in values:
            self._refuse_null_chat(values)
        instruction, output = self.text_columns(values)
        question, answer = values[instruction], values[output]
        is_text = isinstance(question, str) and isinstance(answer, str)
        if not is_text or question[:2] == answer[:2] == "[{":
            turns = turns_of_both(question, answer)
            if turns is not None:
                return self._of_turns(values, turns, instruction)
        texts = (
            _text(question, instruction),
            _text(values.get(self._input), self._input) if self._input else "",
            _text(answer, output),
        )
        used = (self._id, instruction, output, self._input)
        if values.get("system") or values.get("history"):
            turns = _turns_of_alpaca(values, *texts)
            if turns is not None:
                own = {"instruction": question, "input": texts[1], "output": answer}
                rest = {name: value for name, value in values.items() if name not in used[1:]}
                return self._of_turns({**rest, **own}, turns, instruction)
        return self._row(values, texts, used, media_columns(values))

    def _of_turns(self, values: Mapping[str, Any], turns: Any, column: str) -> ParsedRow:
        found = read_conversation(turns, column, values, self._rules.reasoning == "read")
        media = media_columns(values)
        media = found.media + media if media else found.media
        return self._row(values, (found.instruction, "", found.output), (self._id,), media, found)

    def _row(
        self,
        values: Mapping[str, Any],
        texts: tuple[str, str, str],
        used: tuple[str | None, ...],
        media: Counter[str],
        conversation: Conversation | None = None,
    ) -> ParsedRow:
        if media and self._rules.media == "refuse":
            raise RowError(f"the row holds {_listed(media)}, which nothing reads (media: refuse)")
        row_id = _id_text(values.get(self._id), self._id)
        extra = {name: value for name, value in values.items() if name not in used}
        if not row_id and (media or (conversation is not None and conversation.unread)):
            # Equal texts, and yet perhaps another row: all its columns tell.
            row_id = content_key(texts[0], _encodable(extra_as_json(extra)), texts[2])
        num_nul = 0
        if "\0" in row_id or "\0" in texts[0] or "\0" in texts[1] or "\0" in texts[2]:
            num_nul = sum(text.count("\0") for text in (row_id, *texts))
            row_id = row_id.replace("\0", "")
            texts = (
                texts[0].replace("\0", ""),
                texts[1].replace("\0", ""),
                texts[2].replace("\0", ""),
            )
        example = _example(row_id, *texts)
        is_ours = conversation is not None or used[1:3] == self._names
        read_as = {} if is_ours else self._taken_for_ours(used)
        return ParsedRow(example, extra, num_nul, media, read_as)

    def _taken_for_ours(self, used: tuple[str | None, ...]) -> dict[str, str]:
        names = zip(("instruction", "output"), self._names, used[1:3], strict=True)
        return {ours: str(theirs) for ours, name, theirs in names if theirs != name}

    def _refuse_null_chat(self, values: Mapping[str, Any]) -> None:
        names = (self._columns["messages"],) if "messages" in self._columns else _CHAT_COLUMNS
        name = next((name for name in names if name in values), None)
        if name is not None and not any(values.get(n) is not None for n in (*QUESTIONS, "chosen")):
            raise RowError(f"{name} is null")


def _turns_of_alpaca(
    values: Mapping[str, Any], instruction: str, input_text: str, output: str
) -> list[Any] | None:
    """The turns of a row whose history came before, or that has a system prompt; else None."""
    before = history_turns(values.get("history"))
    if not before and not system_of(values):
        return None
    prompt = f"{instruction} {input_text}" if input_text else instruction
    if _is_blank(prompt):
        raise RowError("instruction is blank")
    return [*before, {"role": "user", "content": prompt}, {"role": "assistant", "content": output}]


def _example(row_id: str, instruction: str, input_text: str, output: str) -> Example:
    if _is_blank(instruction):
        raise RowError("instruction is blank")
    if _is_blank(output):
        raise RowError("output is blank")
    try:
        row_id.encode()
        key = content_key(instruction, input_text, output)
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise RowError(f"lone surrogate {half}: half a character, not valid text") from None
    return Example(row_id or key, key, instruction, input_text, output)


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    raise RowError(f"{name} must be text, got {kind_of(value)}")


def _id_text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        if value.is_integer() and abs(value) < _LARGEST_WHOLE:
            return str(int(value))
        raise RowError(
            f"{name} must be text or an integer, got a number with a fraction or too large"
        )
    raise RowError(f"{name} must be text or an integer, got {kind_of(value)}")


def _is_blank(text: str) -> bool:
    # Almost every text starts with a letter: ask that first.
    return not text[:1].isalnum() and all(unicodedata.category(c) in _INVISIBLE for c in text)


def _equal(value: Any, wanted: Any) -> bool:
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _texts_of(value: Any) -> tuple[str, ...]:
    if value is None:
        return ("",)
    if isinstance(value, bool):
        text = str(value)
        return text, text.lower(), text.upper()
    return (value if isinstance(value, str) else json.dumps(value),)


def _listed(media: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(media.items()))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
