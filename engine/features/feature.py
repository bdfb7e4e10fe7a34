"""The features of a row that a student can read, and how they lie beside each other.

    text         embedding of the data text z, of unit length           D numbers
    prompt       the same of the prompt alone                            D
    response     the same of the response alone                          D
    agreement    cosine of prompt and response, weighed 3                1, nothing to compute
    length       log(1 + characters) of prompt and response              2, nothing to compute
    states       mean of the last hidden states of teacher.model         H, one pass of the row
    losses       log(1 + loss) of the response, with, without prompt     2, and one more of it

A row that answers another question shows in prompt beside response and not in the text as a whole
(docs/negative_results.md). The weights are what kernels see of each: distances add up, so a block
counts by the square of its own. They were chosen on the demo and hold on ../shared/data, measured
by benchmarks/students.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.config import FeatureName
from engine.example import Example
from engine.kernels.arrays import FloatArray
from engine.kernels.product import unit_rows

__all__ = ["FEATURES", "Feature", "assembled", "sources_of", "text_lengths"]

Source = Literal["text", "prompt", "response", "length", "reading"]


@dataclass(frozen=True)
class Feature:
    """One of them.

    Attributes:
        sources: files that it is made of, by their group.
        make: arrays of those (n, .) -> (n, width) float32, weighed.
    """

    sources: tuple[Source, ...]
    make: Callable[..., FloatArray]


def _as_it_is(embedding: FloatArray) -> FloatArray:
    return embedding


def _agreement(prompt: FloatArray, response: FloatArray) -> FloatArray:
    cosine: FloatArray = 3 * np.einsum("nd,nd->n", prompt, response)[:, None]
    return cosine


def _length(lengths: FloatArray) -> FloatArray:
    return lengths


def _states(reading: FloatArray) -> FloatArray:
    unit = unit_rows(reading[:, :-2])
    return np.asarray(unit, np.float32)


def _losses(reading: FloatArray) -> FloatArray:
    return np.log1p(np.maximum(reading[:, -2:], 0))


FEATURES: dict[FeatureName, Feature] = {
    "text": Feature(("text",), _as_it_is),
    "prompt": Feature(("prompt",), _as_it_is),
    "response": Feature(("response",), _as_it_is),
    "agreement": Feature(("prompt", "response"), _agreement),
    "length": Feature(("length",), _length),
    "states": Feature(("reading",), _states),
    "losses": Feature(("reading",), _losses),
}


def sources_of(names: Sequence[FeatureName]) -> list[Source]:
    """Files that some features are made of, each once; the text's embedding always among them.

    The text is what selection compares rows by, whatever students read.
    """
    found: list[Source] = ["text"]
    for name in names:
        found += [source for source in FEATURES[name].sources if source not in found]
    return found


def assembled(names: Sequence[FeatureName], sources: dict[Source, FloatArray]) -> FloatArray:
    """The features side by side, (n, F) float32, in the order of `FEATURES`: the text first."""
    ordered = [name for name in FEATURES if name in names]
    blocks = [FEATURES[n].make(*(sources[s] for s in FEATURES[n].sources)) for n in ordered]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1, dtype=np.float32)


def text_lengths(examples: Sequence[Example]) -> FloatArray:
    """log(1 + characters) of prompt and response, (n, 2) float32."""
    sizes = [(len(example.prompt), len(example.output)) for example in examples]
    return np.log1p(np.array(sizes, np.float64).reshape(-1, 2)).astype(np.float32)
