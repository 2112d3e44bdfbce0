"""The config: all blocks of config.yaml, and a check of the names that refer to other blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from scdyn.settings.base import (
    Count,
    Name,
    PathText,
    Pattern,
    Seed,
    Selection,
    Settings,
    Text,
    read_text,
    refuse,
)
from scdyn.settings.data import (
    CorpusSettings,
    IngestSettings,
    ReferenceSettings,
    ResourceSettings,
    SimulationSettings,
)
from scdyn.settings.grn import GrnSettings
from scdyn.settings.model import OF_PAPER, SIZES, ModelSettings, fill_in_training
from scdyn.settings.task import MAIN, FineTuningSettings, TaskSettings, choose_fine_tuning

Folder = Annotated[
    str,
    Pattern(
        "",
        r"^/?[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*/?$",
        "A folder of letters, digits, _ . and -, without spaces, no part of which begins with a "
        "dot or a hyphen",
    ),
    AfterValidator(lambda path: path.rstrip("/")),
]


class PeerSettings(Settings):
    """Compare with scVI and scANVI, and score embeddings by scib-metrics."""

    max_epochs: Count = 400
    """Epochs of scVI, which is fitted to at most 20,000 cells."""
    batch: Text = "sample"
    """Batch column of the metadata. scVI corrects for it, and scib-metrics scores how well batches
    are mixed."""


class StudySettings(Settings):
    """A study of the report (docs/studies.md)."""

    kind: Literal["development", "spatial", "perturbation"]
    """Kind of study (docs/studies.md)."""
    task: Name
    """Task whose predictions are shown."""
    root: Selection | None = None
    """development - cells from which diffusion pseudotime starts. null - the predicted cells that
    are least similar to the training cells of the task."""
    pseudotime: Text | None = None
    """development - metadata column with a pseudotime. null - diffusion pseudotime of the RNA."""
    section: Text = "sample"
    """spatial, perturbation - metadata column of the tissue section."""
    replicate: Text = "sample"
    """perturbation - metadata column of the replicate; confidence intervals and tests are computed
    over replicates."""
    control: Selection | None = None
    """perturbation - the unperturbed cells."""
    perturbed: Selection | None = None
    """perturbation - the perturbed cells."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in ("control", "perturbed"):
            if self.kind == "perturbation" and getattr(self, key) is None:
                raise refuse("the key '", key, "' is missing.")
        return self

    @property
    def columns(self) -> list[str]:
        """The columns of the table of cells that the study names."""
        if self.kind == "development":
            return [*(self.root or {}), *([self.pseudotime] if self.pseudotime else [])]
        if self.kind == "spatial":
            return [self.section]
        return [self.section, self.replicate, *(self.control or {}), *(self.perturbed or {})]


class Config(Settings):
    """All keys of config.yaml."""

    results: Folder = "results"
    """Folder of all results, relative to the project's folder or absolute; of letters, digits,
    _ . and -, without spaces, and no part of it begins with a dot or a hyphen."""
    samples: PathText
    """The sample sheet, tab-separated."""
    covariates: list[Name] = []
    """Further columns that the sheet must have. All further columns of the sheet are covariates and
    are added to the cell metadata, listed here or not."""
    seed: Seed = 1
    """Seed of doublet scores and of layouts; models, tasks and the GRN have other seeds."""
    device: Literal["auto", "gpu", "cpu"] = "auto"
    """Device of the rules that use a model. auto - a GPU, or the CPU if there is no GPU; gpu - stop
    with an error if there is no GPU; cpu."""
    container: PathText | None = None
    """Container image built from the Dockerfile, a .sif file or docker://, for --sdm conda
    apptainer. null - none."""
    simulation: SimulationSettings | None = None
    """Simulate the samples (the embedded study). null - use the samples of the sheet as they
    are."""
    reference: ReferenceSettings
    """Gene annotation and TFs."""
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    """Download of public files (resources/catalogue.tsv), which the config names as
    resources/downloads/NAME."""
    ingest: IngestSettings = Field(default_factory=IngestSettings)
    """Requirements on samples and quality control."""
    corpora: Annotated[dict[Name, CorpusSettings], Field(min_length=1)]
    """Corpora: sets of samples that are analysed together."""
    grn: GrnSettings = Field(default_factory=GrnSettings)
    """Gene regulatory network and its regulons (docs/grn.md)."""
    models: Annotated[dict[Name, ModelSettings], Field(min_length=1)]
    """Pretrained models."""
    peers: PeerSettings | None = None
    """Compare with scVI and scANVI, and score embeddings by scib-metrics, in a separate
    environment. null or false - no comparison."""
    tasks: dict[Name, TaskSettings] = {}
    """Classification tasks for which models are fine-tuned."""
    studies: dict[Name, StudySettings] = {}
    """Studies of the report (docs/studies.md)."""

    @field_validator("peers", mode="before")
    @classmethod
    def _read_false(cls, value: Any) -> Any:
        value = read_text(value)
        return None if value is False else value

    @model_validator(mode="before")
    @classmethod
    def _fill_in_by_model(cls, content: Any) -> Any:
        """Fill in each task's settings from its model's size and architecture, where not given."""
        if not isinstance(content, Mapping):
            return content
        tasks, models = content.get("tasks"), content.get("models")
        if not isinstance(tasks, Mapping) or not isinstance(models, Mapping):
            return content

        def fill(task: Any) -> Any:
            name = task.get("model") if isinstance(task, Mapping) else None
            model = models.get(name, {}) if isinstance(name, str) else {}
            model = model if isinstance(model, Mapping) else {}
            size = model.get("size", "full")
            known = SIZES.get(size if isinstance(size, str) else "")
            values = OF_PAPER if model.get("architecture") == "paper" else {}
            return fill_in_training(task, values, known["fine_tuning"]) if known else task

        return {**content, "tasks": {name: fill(task) for name, task in tasks.items()}}

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for kind, name, key, known in self._references():
            if key not in (declared := getattr(self, known)):
                names = ", ".join(declared) or "none"
                raise refuse(
                    f"{kind} '{name}' names '{key}', which is not among the {known} ({names})."
                )
        return self

    @model_validator(mode="after")
    def _check_batches(self) -> Self:
        """Refuse a batch_key that is a task's label, or by which a study compares cells."""
        for name, task in self.tasks.items():
            if task.label == self.models[task.model].batch_key:
                raise refuse(
                    f"models.{task.model}.batch_key is '{task.label}', which is the label of task "
                    f"'{name}'; name the column of a batch, such as sample or donor."
                )
        for name, study in self.studies.items():
            key = self.models[self.tasks[study.task].model].batch_key
            if key in {*(study.control or {}), *(study.perturbed or {})}:
                raise refuse(
                    f"models.{self.tasks[study.task].model}.batch_key is '{key}', by which study "
                    f"'{name}' compares cells; name the column of a batch, such as donor."
                )
        return self

    @model_validator(mode="after")
    def _check_used(self) -> Self:
        """Refuse settings of tasks that have no effect."""
        for name, task in self.tasks.items():
            model = self.models[task.model]
            # Of any size, which a config that was written by the workflow does not have.
            defaults = [choose_fine_tuning(size, model.architecture) for size in SIZES]
            variants = task.all_variants()
            unused = {key: one.list_unused(model.architecture) for key, one in variants.items()}
            given: list[tuple[str, FineTuningSettings]] = [
                (f"tasks.{name}.{key}", task)
                for key in unused[MAIN]
                if all(key in keys for keys in unused.values())
                and attrgetter(key)(task) not in map(attrgetter(key), defaults)
            ]
            for variant, own in task.variants.items():
                one = f"{MAIN}_{variant}"
                path = f"tasks.{name}.variants.{variant}"
                given += [
                    (f"{path}.{key}", variants[one])
                    for key in own.model_dump()
                    if key in unused[one]
                ]
            for path, settings in given:
                raise refuse(
                    f"{path} has no effect with architecture: {model.architecture} and adapter: "
                    f"{settings.trained}; leave it out."
                )
        return self

    def _references(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield all references between blocks: kind, name, name referred to, key of its block."""
        for name, model in self.models.items():
            yield "model", name, model.corpus, "corpora"
        for name, task in self.tasks.items():
            yield "task", name, task.model, "models"
        for name, study in self.studies.items():
            yield "study", name, study.task, "tasks"
