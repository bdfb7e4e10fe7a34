"""All settings of one run, and what they have to do with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from engine.components import component, component_names
from engine.config.base import CorpusConfig, Section
from engine.config.evaluation import EvaluationConfig
from engine.config.facts import OBJECTIVES, TEACHERS, ObjectiveFacts
from engine.config.network import (
    LANGUAGE_MODEL_FEATURES,
    DriftConfig,
    EmbeddingConfig,
    FeatureName,
    GateConfig,
    InfluenceConfig,
    NetworkConfig,
    StudentConfig,
)
from engine.config.quality import QualityConfig
from engine.config.screening import DuplicatesConfig, LeakConfig, as_corpora
from engine.config.selection import OBJECTIVE_SETTINGS, Cover, SelectionConfig
from engine.config.study import StudyConfig
from engine.config.teacher import SampleConfig, TeacherConfig, with_whole_sample

__all__ = [
    "Config",
    "RayConfig",
    "ReportConfig",
]


TEST = "evaluation.test"


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
    execution: Literal["ray", "local"] = Field(
        "ray",
        description="who works: Ray, here or on a cluster, or this process alone, which starts "
        "nothing and suits a few hundred rows; the same bytes either way",
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
    protect: Annotated[tuple[CorpusConfig, ...], BeforeValidator(as_corpora)] = Field(
        (),
        description="sets of rows that may not be trained on, such as benchmarks: paths, or "
        "sections as `corpus`; evaluation.test is one without being named",
    )
    on_leak: LeakConfig = LeakConfig()
    duplicates: DuplicatesConfig = DuplicatesConfig()
    embedding: EmbeddingConfig = Field(default_factory=lambda: EmbeddingConfig.model_validate({}))
    features: tuple[FeatureName, ...] = Field(
        ("text", "prompt", "response", "agreement", "length"),
        min_length=1,
        description="what a student reads of a row, on either side: embeddings of its text, of the "
        "prompt and of the response alone, the cosine of those two, their lengths; states and "
        "losses are one pass of teacher.model for each row, and one more of its response",
    )
    sample: SampleConfig = SampleConfig()
    teacher: TeacherConfig = Field(default_factory=lambda: TeacherConfig.model_validate({}))
    student: StudentConfig = StudentConfig()
    network: NetworkConfig = Field(default_factory=lambda: NetworkConfig.model_validate({}))
    gate: GateConfig = GateConfig()
    quality: QualityConfig | None = Field(
        None, description="a teacher of rows beside the main one: bad rows are not for selection"
    )
    influence: InfluenceConfig = InfluenceConfig()
    selection: SelectionConfig = SelectionConfig()
    drift: DriftConfig = DriftConfig()
    report: ReportConfig = ReportConfig()
    evaluation: EvaluationConfig | None = None
    study: StudyConfig | None = None
    ray: RayConfig = RayConfig()

    @property
    def protected(self) -> dict[str, CorpusConfig]:
        """What may not be trained on: `protect`, and the test set of the evaluation, by name."""
        named = {f"protect-{number}": rows for number, rows in enumerate(self.protect)}
        return named if self.evaluation is None else {**named, TEST: self.evaluation.test}

    @property
    def objective(self) -> str:
        """The objective of the selection: as set, or the teacher's own."""
        if self.selection.objective is not None:
            return self.selection.objective
        own = component(OBJECTIVES, self.teacher.facts.default_objective or "facility_location")
        if not own.reads_kernel:
            return own.name
        if self.owned is not None:
            return "facility_location_conditional_gain"
        has_targets = self.target is not None and self.selection.cover != "self"
        return own.name if own.covers != "target" or has_targets else "facility_location"

    @property
    def cover(self) -> Cover:
        """What the picks of the objective cover; without a target set there is only `self`."""
        by_objective: Cover = "self" if self._wants_candidates else "target"
        return "self" if self.target is None else self.selection.cover or by_objective

    @property
    def _wants_candidates(self) -> bool:
        """Whether the objective compares candidates with each other."""
        facts = component(OBJECTIVES, self.objective)
        return facts.covers == "self" or self.selection.form == 1

    @property
    def _reads_prompt_and_response(self) -> bool:
        return "agreement" in self.features or {"prompt", "response"} <= set(self.features)

    @model_validator(mode="before")
    @classmethod
    def _ask_for_what_is_free(cls, values: Any) -> Any:
        return with_whole_sample(values)

    @model_validator(mode="before")
    @classmethod
    def _name_the_section(cls, values: Any) -> Any:
        teacher = values.get("teacher") if isinstance(values, Mapping) else None
        if isinstance(teacher, Mapping) and "path" in teacher:
            raise ValueError(
                "unknown setting teacher.path: a file of scores is teacher.given.path, a model "
                "teacher.model.path"
            )
        return values

    @model_validator(mode="after")
    def _check_given(self) -> Config:
        teacher, name = self.teacher, self.teacher.name
        self._check_evaluation_of_given()
        if not teacher.facts.is_given:
            return self
        if self.selection.second_look:
            raise ValueError(
                f"selection.second_look asks the teacher again, and nobody can ask {name}, a file: "
                "leave it out"
            )
        if self.gate.on_low_fidelity == "extend":
            raise ValueError(
                "gate.on_low_fidelity extend asks the teacher for more, and nobody can ask "
                f"{name}, a file: set it to warn or fail"
            )
        if self.sample.fraction != SampleConfig().fraction:
            raise ValueError(
                f"sample.fraction is of teachers that are asked, and teacher {name} knows what its "
                "file scores: leave it out"
            )
        return self

    def _check_evaluation_of_given(self) -> None:
        if self.evaluation is None:
            return
        asking = {"teacher", "small"} & set(self.evaluation.arms)
        for teacher in self.evaluation.teachers or (self.teacher,):
            if teacher.facts.is_given and asking:
                raise ValueError(
                    f"evaluation.arms: {min(asking)} asks the teacher about everything, and nobody "
                    f"can ask {teacher.name}, a file: leave it out"
                )

    @model_validator(mode="after")
    def _check_features(self) -> Config:
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features names one twice: {', '.join(self.features)}")
        by_model = [name for name in self.features if name in LANGUAGE_MODEL_FEATURES]
        if by_model and not self.teacher.facts.reads_language_model:
            known = [component(TEACHERS, n) for n in component_names(TEACHERS, installed=False)]
            others = [kind.name for kind in known if kind.reads_language_model]
            raise ValueError(
                f"features: {by_model[0]} is read by the teacher's language model, and teacher "
                f"{self.teacher.name} has none: leave it out, or use one of "
                f"{', '.join(others)}"
            )
        if self.teacher.facts.from_embeddings:
            if not self._reads_prompt_and_response:
                raise ValueError(
                    f"teacher {self.teacher.name} compares the embeddings of prompt and response: "
                    "add agreement to features"
                )
            if self.sample.fraction < 1:
                raise ValueError(
                    f"teacher {self.teacher.name} costs nothing, so every row has its score and "
                    "none is learned: leave out sample.fraction"
                )
        return self

    def _check_second_look(self) -> None:
        if self.sample.fraction == 1:
            raise ValueError(
                "selection.second_look: with sample.fraction 1 the teacher is asked about "
                "everything before: leave one of them out"
            )
        if self.cover == "self" and self.teacher.facts.pairwise:
            raise ValueError(
                "selection.second_look asks the teacher about the targets, and here the picks "
                "cover the candidates: set target.path, and leave out selection.cover"
            )

    def _check_quality(self) -> None:
        gate = self.quality
        assert gate is not None, "there is no gate"
        needed = gate.teacher.facts.from_embeddings and not self._reads_prompt_and_response
        if needed:
            raise ValueError(
                f"quality.teacher {gate.teacher.name} compares the embeddings of prompt and "
                "response: add agreement to features"
            )
        if gate.weight is not None and self.cover == "self" and self.target is not None:
            raise ValueError(
                "quality.weight lowers influence, and here the picks cover each other by cosines: "
                "use quality.drop_worst"
            )

    @model_validator(mode="after")
    def _check_objective(self) -> Config:
        name, cover = self.objective, self.selection.cover
        facts = component(OBJECTIVES, name)
        for setting in OBJECTIVE_SETTINGS:
            if getattr(self.selection, setting) is not None and setting not in facts.settings():
                others = [kind.name for kind in _objectives() if setting in kind.settings()]
                raise ValueError(
                    f"selection.{setting} is a setting of {' and '.join(others)}, "
                    f"not of {name}: leave it out"
                )
        if self.selection.zero_gain_tail == "cover_again" and not facts.has_rounds:
            others = [kind.name for kind in _objectives() if kind.has_rounds]
            raise ValueError(
                f"selection.zero_gain_tail: cover_again is of {', '.join(others)}, not "
                f"of {name}: leave it out"
            )
        if self.selection.relevant_share < 1 and self.selection.form != 1:
            raise ValueError("selection.relevant_share is a setting of mutual information, form: 1")
        if self.selection.floor and not (self.target and self.cover == "self"):
            raise ValueError("selection.floor is for cosines: it needs cover: self and a target")
        if self.selection.second_look:
            self._check_second_look()
        if self.quality is not None:
            self._check_quality()
        if not facts.reads_kernel:
            return self
        if not self.teacher.facts.pairwise and cover != "self":
            raise ValueError(
                f"teacher {self.teacher.name} scores rows, not pairs, so {name} has "
                "nothing to cover: use selection.objective top_mean"
            )
        if facts.covers == "target" and self.target is None:
            raise ValueError(
                f"objective {name} is about a target set: set target.path, and leave out "
                "selection.cover"
            )
        if cover == "target" and self.target is None:
            raise ValueError("selection.cover: target needs a target set: set target.path")
        if cover == "target" and self._wants_candidates:
            raise ValueError(f"objective {name} of this form covers the candidates: cover: self")
        asks_targets = facts.covers == "target" and self.selection.form != 1
        if cover == "self" and asks_targets:
            raise ValueError(f"objective {name} of this form covers the targets: cover: target")
        if facts.needs_owned and self.owned is None:
            raise ValueError(f"objective {name} asks what is new beside owned rows: set owned.path")
        by_network = self.owned is not None and not (self.target and cover == "self")
        if by_network and self.sample.fraction == 1:
            raise ValueError(
                "what owned rows do is told by the network: sample.fraction must be below 1, got 1"
            )
        return self


def _objectives() -> list[type[ObjectiveFacts]]:
    return [component(OBJECTIVES, name) for name in component_names(OBJECTIVES, installed=False)]
