"""Settings: every key of the config and of the sample sheet, typed, with its default and meaning.

In a notebook, ``TrainingSettings(epochs=3)`` or ``TaskSettings(model="m", label="type")`` have the
workflow's defaults, and ``help`` lists the keys. The workflow reads all settings from its config.
``make docs`` writes config/README.md and workflow/schemas from these classes.
"""

from scdyn.settings.base import HARDWARE, Plain, Settings
from scdyn.settings.config import Config, PeerSettings, StudySettings
from scdyn.settings.data import (
    QC_PRESETS,
    CorpusSettings,
    IngestSettings,
    InputThresholds,
    QualitySettings,
    ReferenceSettings,
    ResourceSettings,
    SampleRow,
    SimulationSettings,
)
from scdyn.settings.grn import LEFT_OUT, GrnSettings
from scdyn.settings.model import (
    OF_PAPER,
    SIZES,
    ModelSettings,
    PretrainingSettings,
    TrainingSettings,
)
from scdyn.settings.task import (
    ENSEMBLE,
    HEAD_ONLY,
    MAIN,
    BaselineSettings,
    CheckSettings,
    ClassWeights,
    EditSettings,
    EncodingSettings,
    EvaluationSettings,
    ExplanationSettings,
    FineTuningSettings,
    HeadSettings,
    InSilicoSettings,
    MeasuredKnockout,
    ReducedSettings,
    SplitSettings,
    TaskSettings,
    VariantChanges,
    VariantSettings,
    WeightSettings,
    find_method,
    is_compared,
)

__all__ = [
    "HARDWARE",
    "HEAD_ONLY",
    "LEFT_OUT",
    "ENSEMBLE",
    "MAIN",
    "QC_PRESETS",
    "OF_PAPER",
    "SIZES",
    "BaselineSettings",
    "CheckSettings",
    "ClassWeights",
    "Config",
    "CorpusSettings",
    "EditSettings",
    "EncodingSettings",
    "EvaluationSettings",
    "ExplanationSettings",
    "FineTuningSettings",
    "GrnSettings",
    "HeadSettings",
    "InSilicoSettings",
    "IngestSettings",
    "InputThresholds",
    "ReducedSettings",
    "MeasuredKnockout",
    "ModelSettings",
    "PeerSettings",
    "Plain",
    "PretrainingSettings",
    "QualitySettings",
    "ReferenceSettings",
    "ResourceSettings",
    "SampleRow",
    "Settings",
    "SimulationSettings",
    "SplitSettings",
    "StudySettings",
    "TaskSettings",
    "TrainingSettings",
    "VariantChanges",
    "VariantSettings",
    "WeightSettings",
    "find_method",
    "is_compared",
]
