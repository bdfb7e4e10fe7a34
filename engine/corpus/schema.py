"""What a raw row must look like, and what becomes of it. These are the documented rules.

Columns. A row has `instruction`, `output` and, if it likes, `input` and `id`; `columns:` in the
settings maps our names to other ones ({instruction: prompt}). No other names are guessed.

1. Texts. instruction, input and output must be strings. A number, boolean, list or object is
   rejected, never converted.
2. input: null or missing is "".
3. Blank. instruction and output must hold something visible: null, "", and texts made only of
   whitespace (U+00A0 and U+3000 too), zero-width, format or control characters are rejected.
4. id: a string is kept; an integer becomes its decimal text; null, missing and "" mean that the
   content key (128-bit hash of the three texts) is the id; anything else is rejected.
5. NUL characters are taken out of the id and the texts, and counted.
6. Lone surrogates (half a character, from a broken escape) reject the row. Every other character
   comes back as it was: nothing is trimmed, folded or normalised; NFC and NFD twins are two rows.
7. Chat. A row whose instruction is absent or null, and that has a list of turns under `messages`,
   `conversations` or the mapped `messages` column, is a conversation. A mapped `messages` column
   wins over an `instruction` column that was not mapped. How turns become instruction and output:
   `split_conversation`; the input is "".
8. All other columns are carried along in `extra`, in the order of the row; in a chat row that
   includes the turns.
9. Filter. `where` compares columns of the file by their own names: equal value and kind (true is
   not 1, "1" is not 1), null equals null, and a column that the row lacks never matches.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from engine.corpus.conversations import split_conversation
from engine.corpus.extras import extra_as_json
from engine.corpus.problems import RowError, kind_of
from engine.example import Example, content_key
from engine.spelling import closest

__all__ = ["ParsedRow", "explain_missing_columns", "extra_as_json", "matches", "parse"]

_CHAT_COLUMNS = ("messages", "conversations")
_LIKELY_NAMES = {
    "instruction": ("prompt", "question", "query", "instructions", "input"),
    "output": ("completion", "response", "answer", "outputs", "target", "chosen", "label"),
    "messages": ("conversation", "chat", "dialogue", "dialog", "turns"),
}
_INVISIBLE = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
_MAX_NAMES = 20
_ABSENT = object()


class ParsedRow(NamedTuple):
    """A valid row.

    Attributes:
        example: what the engine works on.
        extra: every column that example was not made of, by its own name.
        num_nul: NUL characters that were taken out.
    """

    example: Example
    extra: dict[str, Any]
    num_nul: int


def parse(values: Mapping[str, Any], columns: Mapping[str, str]) -> ParsedRow | str:
    """A raw row as a valid row, or the reason why it is none. For ingest, one call a row.

    `columns` maps our names to those of the file, as CorpusConfig.columns. Never raises for what
    a row may hold; about 10 microseconds a row.
    """
    try:
        return _parse(values, columns)
    except RowError as problem:
        return str(problem)


def matches(values: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Whether a raw row passes CorpusConfig.where (rule 9); an empty filter lets all pass."""
    for column, wanted in where.items():
        value = values.get(column, _ABSENT)
        choices = wanted if isinstance(wanted, tuple) else (wanted,)
        if not any(_equal(value, choice) for choice in choices):
            return False
    return True


def explain_missing_columns(found: Collection[str], columns: Mapping[str, str]) -> str | None:
    """Which columns a table or row lacks, which it has, and how to map them; None if it is fine.

    A column that `columns` names must exist in a table even when it is optional: a misspelt
    mapping would otherwise read as "no input". Rows are only held to the required ones.
    """
    missing = [name for name in columns.values() if name not in found]
    if _chat_column(found, columns) is None:
        required = (columns.get(name, name) for name in ("instruction", "output"))
        missing = list(dict.fromkeys([*missing, *(name for name in required if name not in found)]))
    return _explain(missing, found, columns) if missing else None


def _parse(values: Mapping[str, Any], columns: Mapping[str, str]) -> ParsedRow:
    chat = _chat_column(values, columns)
    used: tuple[str, ...]
    if chat is not None:
        used = (columns.get("id", "id"),)
        (instruction, output), input_text = split_conversation(values[chat], chat), ""
    else:
        used = _text_columns(columns)
        instruction, output, input_text = _plain_texts(values, columns, used)
    row_id = _id_text(values.get(used[0]), used[0])
    num_nul = sum(text.count("\0") for text in (row_id, instruction, input_text, output))
    if num_nul:
        row_id, instruction = row_id.replace("\0", ""), instruction.replace("\0", "")
        input_text, output = input_text.replace("\0", ""), output.replace("\0", "")
    example = _example(row_id, instruction, input_text, output)
    extra = {name: value for name, value in values.items() if name not in used}
    return ParsedRow(example, extra, num_nul)


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


def _text_columns(columns: Mapping[str, str]) -> tuple[str, ...]:
    """The columns of the id, instruction and output, and of the input where there can be one."""
    names = [columns.get(name, name) for name in ("id", "instruction", "output")]
    # With {instruction: input} the column named input is spoken for.
    if "input" in columns or "input" not in names:
        names.append(columns.get("input", "input"))
    return tuple(names)


def _plain_texts(
    values: Mapping[str, Any], columns: Mapping[str, str], names: tuple[str, ...]
) -> tuple[str, str, str]:
    _, instruction, output, *inputs = names
    if instruction not in values or output not in values:
        missing = [name for name in (instruction, output) if name not in values]
        raise RowError(_explain(missing, values, columns))
    return (
        _text(values[instruction], instruction),
        _text(values[output], output),
        _text(values.get(inputs[0]), inputs[0]) if inputs else "",
    )


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
    raise RowError(f"{name} must be text or an integer, got {kind_of(value)}")


def _chat_column(
    found: Mapping[str, Any] | Collection[str], columns: Mapping[str, str]
) -> str | None:
    """The column of turns that makes this a conversation (rule 7), for a row or for a table."""
    wins = "messages" in columns and "instruction" not in columns
    if not wins and _has(found, columns.get("instruction", "instruction")):
        return None
    names = (columns["messages"],) if "messages" in columns else _CHAT_COLUMNS
    return next((name for name in names if _has(found, name)), None)


def _has(found: Mapping[str, Any] | Collection[str], name: str) -> bool:
    return found.get(name) is not None if isinstance(found, Mapping) else name in found


def _is_blank(text: str) -> bool:
    # Almost every text starts with a letter: ask that first.
    return not text[:1].isalnum() and all(unicodedata.category(c) in _INVISIBLE for c in text)


def _equal(value: Any, wanted: Any) -> bool:
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _explain(missing: list[str], found: Collection[str], columns: Mapping[str, str]) -> str:
    ours = {theirs: name for name, theirs in columns.items()}
    lacking = [ours.get(name, name) for name in missing]
    names = list(found)
    listed = ", ".join(names[:_MAX_NAMES]) + (", ..." if len(names) > _MAX_NAMES else "")
    free = [column for column in names if column not in columns.values()]
    guess = ", ".join(
        f"{name}: {_likely(name, column, free)}"
        for name, column in zip(lacking, missing, strict=True)
    )
    return (
        f"missing column{'s' * (len(missing) > 1)} {', '.join(missing)}; found {listed or 'none'}; "
        f"name the right ones with the option columns: {{{guess}}}"
    )


def _likely(name: str, column: str, found: list[str]) -> str:
    """Which of the columns may be the missing one, by spelling or by what it is often called."""
    close = closest(column, found, likeness=0.75)
    likely = (close, *_LIKELY_NAMES.get(name, ()))
    return next((column for column in likely if column in found), "NAME")
