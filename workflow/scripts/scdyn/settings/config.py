"""The whole config: every block of config.yaml, and what they name of one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    refuse,
)
from scdyn.settings.data import (
    CorpusSettings,
    IngestSettings,
    ReferenceSettings,
    ResourceSettings,
    SimulationSettings,
    TokenSettings,
)
from scdyn.settings.grn import GrnSettings
from scdyn.settings.model import SIZES, ModelSettings, fill_in_training
from scdyn.settings.task import TaskSettings

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
    """Compare with scVI and scANVI, and judge embeddings by scib-metrics."""

    max_epochs: Count = 400
    """Passes of scVI over up to 20,000 cells; over more of them as many fewer."""
    batch: Text = "sample"
    """Column of the cells; scVI's embedding is conditioned on its values, and scib-metrics says how
    well they are mixed."""


class StudySettings(Settings):
    """A page of the report."""

    kind: Literal["development", "spatial", "perturbation"]
    """Which page is made (docs/studies.md)."""
    task: Name
    """Task whose calls are shown."""
    root: Selection | None = None
    """development - cells that diffusion pseudotime starts from. null - the predicted cells least
    like any that the task learns from."""
    pseudotime: Text | None = None
    """development - column of the cells with a pseudotime. null - diffusion pseudotime, of the
    RNA."""
    section: Text = "sample"
    """spatial, perturbation - column of the cells that tells sections apart."""
    replicate: Text = "sample"
    """perturbation - column of the cells that tells replicates apart, over which intervals and
    tests are."""
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


class Config(Settings):
    """A study: every key of config.yaml, its meaning and its default."""

    results: Folder = "results"
    """Folder of everything that is made, in the project's folder or anywhere as an absolute path;
    of letters, digits, _ . and -, without spaces, and no part of it begins with a dot or a
    hyphen."""
    samples: PathText
    """The sample sheet, tab-separated."""
    covariates: list[Name] = []
    """Columns that the sheet must have besides its own. Every further column of the sheet is a
    covariate and goes into the cells' table, listed or not."""
    seed: Seed = 1
    """Seed of doublet scores and of maps; models, tasks and the GRN have their own."""
    device: Literal["auto", "gpu", "cpu"] = "auto"
    """Where the GPU rules run. auto - on a GPU, on the CPU if there is none; gpu - refuse to run
    without one; cpu."""
    container: PathText | None = None
    """Image made from the Dockerfile, a .sif file or docker://, for --sdm conda apptainer. null -
    none."""
    simulation: SimulationSettings | None = None
    """Simulate the samples first (the embedded study). null - the samples are there."""
    reference: ReferenceSettings
    """Where genes, TSSs and TFs come from."""
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    """How public files are fetched (resources/catalogue.tsv), which the config names as
    resources/downloads/NAME."""
    ingest: IngestSettings = Field(default_factory=IngestSettings)
    """What a sample must be like."""
    corpora: Annotated[dict[Name, CorpusSettings], Field(min_length=1)]
    """Sets of samples that are analysed together."""
    grn: GrnSettings = Field(default_factory=GrnSettings)
    """Gene regulatory network and its regulons (docs/grn.md)."""
    tokens: TokenSettings = Field(default_factory=TokenSettings)
    """What the model reads."""
    models: Annotated[dict[Name, ModelSettings], Field(min_length=1)]
    """Pretrained models."""
    peers: PeerSettings | None = None
    """Compare with scVI and scANVI, and judge embeddings by scib-metrics, in an environment of
    their own. null or false - left out."""
    tasks: dict[Name, TaskSettings] = {}
    """Questions a model is fine-tuned to."""
    studies: dict[Name, StudySettings] = {}
    """Pages of the report."""

    @field_validator("peers", mode="before")
    @classmethod
    def _read_false(cls, value: Any) -> Any:
        return None if value in (False, "false") else value

    @model_validator(mode="before")
    @classmethod
    def _fill_in_training_by_size(cls, content: Any) -> Any:
        """Give each task the training of its model's size, below what it says itself."""
        if not isinstance(content, Mapping):
            return content
        tasks, models = content.get("tasks"), content.get("models")
        if not isinstance(tasks, Mapping) or not isinstance(models, Mapping):
            return content

        def fill(task: Any) -> Any:
            name = task.get("model") if isinstance(task, Mapping) else None
            model = models.get(name, {}) if isinstance(name, str) else {}
            size = model.get("size", "full") if isinstance(model, Mapping) else "full"
            known = SIZES.get(size if isinstance(size, str) else "")
            return fill_in_training(task, {}, known["fine_tuning"]) if known else task

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

    def _references(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield what names what: kind, name, the name it gives, and where that must be declared."""
        for name, model in self.models.items():
            yield "model", name, model.corpus, "corpora"
        for name, task in self.tasks.items():
            yield "task", name, task.model, "models"
        for name, study in self.studies.items():
            yield "study", name, study.task, "tasks"
