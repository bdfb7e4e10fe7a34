"""Every setting of the system: one section per stage, unknown keys rejected.

A setting says *what* is computed and belongs to the fingerprint of its stage, except the
`execution` sections and `ray`, which only say *where*: the engine's output is the same bytes for
any number of actors. `load_config` merges a YAML file with `--section.key value` overrides.

    base        a model, a set of rows, where work is done
    facts       what settings know of a teacher, a student, an objective
    own         settings that one of those alone has
    screening   on_leak, duplicates
    teacher     sample, teacher
    network     embedding, network, gate, influence, drift
    selection   selection
    evaluation  evaluation
    study       study
    run         report, ray, and all of them together
    load        from files and command lines

Import from here; docs/settings.md describes each.
"""

from engine.config.base import (
    PACKAGED_ENCODER,
    PACKAGED_LANGUAGE_MODEL,
    CorpusConfig,
    Execution,
    ModelConfig,
    Section,
)
from engine.config.evaluation import ArmKind, EvaluationConfig, FineTuningConfig, JudgeConfig
from engine.config.given import GivenConfig
from engine.config.load import load_config, override, parse_config, yaml_value
from engine.config.network import (
    DriftConfig,
    EmbeddingConfig,
    FeatureName,
    GateConfig,
    InfluenceConfig,
    NetworkConfig,
    StudentConfig,
)
from engine.config.run import Config, RayConfig, ReportConfig
from engine.config.screening import DuplicatesConfig, LeakConfig
from engine.config.selection import Cover, QuotaConfig, SelectionConfig
from engine.config.study import SearchRange, StudyConfig
from engine.config.teacher import AuditConfig, SampleConfig, TeacherConfig

__all__ = [
    "PACKAGED_ENCODER",
    "PACKAGED_LANGUAGE_MODEL",
    "ArmKind",
    "AuditConfig",
    "Config",
    "CorpusConfig",
    "Cover",
    "DriftConfig",
    "DuplicatesConfig",
    "EmbeddingConfig",
    "EvaluationConfig",
    "Execution",
    "FeatureName",
    "FineTuningConfig",
    "GateConfig",
    "GivenConfig",
    "InfluenceConfig",
    "JudgeConfig",
    "LeakConfig",
    "ModelConfig",
    "NetworkConfig",
    "QuotaConfig",
    "RayConfig",
    "ReportConfig",
    "SampleConfig",
    "SearchRange",
    "Section",
    "SelectionConfig",
    "StudentConfig",
    "StudyConfig",
    "TeacherConfig",
    "load_config",
    "override",
    "parse_config",
    "yaml_value",
]
