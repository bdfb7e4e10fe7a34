"""One row of an instruction corpus, and the texts and hashes that are made of it.

The text forms are those of the publication (docs/method.md):
prompt x, reference y and data text z. The hashes are how the engine stays deterministic: rows are
drawn and ordered by a hash of their id, never by their position in a file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

__all__ = ["ANSWER_MARK", "Example", "content_key", "order_hash"]

ANSWER_MARK = "##Answer: "


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction, its optional input and its reference answer.

    Attributes:
        id: the user's id, or `content_key` when the corpus has none; unique within a corpus.
        key: `content_key` of the three texts: what paid-for work is remembered by, so that an
            edited row under an old id is never served a stale score.
        instruction: what is asked; never blank.
        input: further material, "" when there is none.
        output: the reference answer y; never blank.
    """

    id: str
    key: str
    instruction: str
    input: str
    output: str

    @property
    def prompt(self) -> str:
        """x: the instruction, plus one space and the input when there is one."""
        return f"{self.instruction} {self.input}" if self.input else self.instruction

    @property
    def text(self) -> str:
        """z: prompt, newline, answer mark and answer: what the encoder embeds."""
        return f"{self.prompt}\n{ANSWER_MARK}{self.output}"


def content_key(instruction: str, input: str, output: str) -> str:
    """128-bit hex digest of the three texts, each preceded by its length in bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (instruction, input, output):
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def order_hash(seed: int, *parts: str) -> int:
    """Uniform 64-bit hash of some strings under a seed; sorting by it is a seeded shuffle."""
    digest = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "little", signed=True))
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little")
