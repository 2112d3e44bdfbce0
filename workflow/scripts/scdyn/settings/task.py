"""Settings of a task, in the parts that its rules depend on: which models are fine-tuned for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from scdyn.settings.base import (
    HARDWARE,
    Count,
    Name,
    PathText,
    Plain,
    Positive,
    Seeds,
    Selection,
    Settings,
    Share,
    Text,
    Unique,
)
from scdyn.settings.model import FULL, TrainingSettings, fill_in_training

# The model as the task's block describes it; variants of it are named behind it.
MAIN = "scdynomics"

Adapter = Literal["lora", "nonlinear", "full", "none"]
Modalities = Literal["both", "rna", "promoter"]
Baseline = Literal[
    "majority",
    "logistic_regression",
    "logistic_regression_rna",
    "logistic_regression_l1",
    "knn",
    "xgboost",
    "mlp",
]
AtLeastTwo = Annotated[int, Field(ge=2)]


def is_compared(variant: str) -> bool:
    """Tell whether a variant is scored beside the baselines: all classes, all labels."""
    return variant == MAIN or variant.startswith(f"{MAIN}_")


class RunSettings(Settings):
    """How often a task is fitted, to which parts of its cells."""

    split_by: Text | None = None
    """Column whose values (samples, donors, batches) stay whole in a fold. null - cells are
    split."""
    folds: AtLeastTwo = 5
    """Parts that are held out in turn."""
    seeds: Seeds = [1, 2, 3, 4, 5]
    """A run of each variant and fold each; scores are given over all of them."""

    @property
    def seed(self) -> int:
        """Seed of what is drawn once for all runs: the first."""
        return self.seeds[0]


class SplitSettings(RunSettings):
    """Which cells are trained on, tested and predicted."""

    label: Text
    """Column of the cells to learn."""
    train: Selection = {}
    """Cells that are learned from, in folds; all with a label if not given."""
    predict: Selection | None = None
    """Cells that every fold's model calls besides. null - none."""
    min_cells_per_class: AtLeastTwo | None = None
    """Classes with fewer labelled cells are left out of training and scores, and listed. null - as
    many as folds."""
    min_units: AtLeastTwo = 2
    """With split_by, classes in fewer of its values (samples, donors) are left out alike; what is
    tested in one of them is trained on in another."""
    validation_share: Share = 0.1
    """Share of the training cells that only temperature and familiarity are fitted to."""


class HeadSettings(Settings):
    """The classifier on top of the encoder."""

    n_pools: Count = 64
    """Learned weighted sums over the expressed genes that the head reads."""
    hidden: Count = 128
    """Width of the head's hidden layer."""
    dropout: Share = 0.2
    """Dropout of the head."""


class FineTuningSettings(HeadSettings):
    """What decides a fine-tuned model besides its cells."""

    adapter: Adapter = "lora"
    """How the encoder is changed. lora - low-rank modules; nonlinear - the same with a bend (the
    paper's); full - every parameter; none - frozen."""
    rank: Count = 8
    """Rank of the modules."""
    pretrained: bool = True
    """Start from the pretrained encoder; false - from a random one."""
    modalities: Modalities = "both"
    """What the model reads. both, or rna or promoter alone."""
    training: TrainingSettings = Field(
        default_factory=lambda: TrainingSettings(**FULL["fine_tuning"])
    )
    """How it is fine-tuned (see training)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_training(cls, content: Any) -> Any:
        return fill_in_training(content, {}, FULL["fine_tuning"])


class VariantSettings(FineTuningSettings):
    """One of the models that are fine-tuned for a task, and what it sees of the labels."""

    labels: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the labels that it is trained on."""
    without: Text | None = None
    """Class that is kept from it. null - none."""


class VariantChanges(Settings):
    """Another model to compare the main one with: what differs in it from the task's."""

    adapter: Adapter | None = None
    """In place of the task's."""
    rank: Count | None = None
    """In place of the task's."""
    pretrained: bool | None = None
    """In place of the task's."""
    modalities: Modalities | None = None
    """In place of the task's."""
    learning_rate: Positive | None = None
    """In place of the task's."""
    seeds: Seeds | None = None
    """In place of the task's."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_the_same(self, dump: SerializerFunctionWrapHandler) -> Plain:
        return {key: value for key, value in dump(self).items() if value is not None}


class ReducedSettings(RunSettings):
    """The models that see fewer labels, or not all classes."""

    label_shares: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], *Unique] = []
    """Shares of the labels that the main model and logistic regression are trained on, too."""
    left_out: Annotated[list[Text], *Unique] = []
    """Classes kept from a model in turn, to see whether their cells are told from familiar
    ones."""

    def reduced_variants(self) -> dict[str, tuple[float, str | None]]:
        """Name these models, with the share of the labels that each sees and the class it does not.

        Returns
        -------
        dict
            ``labels_SHARE`` for each of ``label_shares``, ``without_I`` for the I-th of
            ``left_out``.
        """
        shares = {f"labels_{share:g}": (share, None) for share in self.label_shares}
        return shares | {f"without_{i}": (1.0, name) for i, name in enumerate(self.left_out)}

    def runs_of(self, variant: str) -> list[tuple[int, int]]:
        """List the runs of a variant: seed and fold; the first alone of a model without a class."""
        if variant.startswith("without_"):
            return [(self.seed, 0)]
        return [(seed, fold) for seed in self.seeds_of(variant) for fold in range(self.folds)]

    def seeds_of(self, variant: str) -> list[int]:
        """List the seeds of a variant."""
        return self.seeds


class BaselineSettings(ReducedSettings):
    """Which baselines are fitted to which cells."""

    baselines: Annotated[list[Baseline], *Unique] = [
        "majority",
        "logistic_regression",
        "logistic_regression_rna",
        "logistic_regression_l1",
        "knn",
        "xgboost",
        "mlp",
    ]
    """Methods of other libraries on the same splits."""


class EvaluationSettings(FineTuningSettings, ReducedSettings):
    """Which models are fine-tuned for a task, and compared."""

    model: Name
    """Model that is fine-tuned."""
    variants: dict[Name, VariantChanges] = {}
    """Other models to hold the main one against, by name; what differs in each."""

    def seeds_of(self, variant: str) -> list[int]:
        """List the seeds of a variant: its own, or the task's."""
        own = self.variants.get(variant.removeprefix(f"{MAIN}_"))
        return self.seeds if own is None or own.seeds is None else own.seeds

    def all_variants(self) -> dict[str, VariantSettings]:
        """Name the models that are fine-tuned, with the settings of each.

        Returns
        -------
        dict
            ``scdynomics``, the model as the block has it; ``scdynomics_NAME`` for each of its
            ``variants``; and those of :meth:`reduced_variants`.
        """
        main = VariantSettings(**self.part(FineTuningSettings).model_dump())
        found = {MAIN: main}
        for name, own in self.variants.items():
            changes = own.model_dump(exclude={"learning_rate", "seeds"})
            if own.learning_rate is not None:
                rate = {"learning_rate": own.learning_rate}
                changes["training"] = main.training.model_copy(update=rate)
            found[f"{MAIN}_{name}"] = main.model_copy(update=changes)
        for name, (labels, without) in self.reduced_variants().items():
            found[name] = main.model_copy(update={"labels": labels, "without": without})
        return found

    def variants_of_one_modality(self) -> dict[str, str]:
        """Name, by modality, the variant that reads this one alone; the first of several."""
        found: dict[str, str] = {}
        for name, settings in self.all_variants().items():
            if is_compared(name) and settings.modalities != "both":
                found.setdefault(settings.modalities, name)
        return found


class ExplanationSettings(RunSettings):
    """How the predictions of a task's main runs are attributed to genes."""

    explained_cells: AtLeastTwo = 100
    """Correctly called cells explained, a class and fold; shared among the other classes, at least
    two each."""
    attribution_baseline: Literal["other", "zero", "mean"] = "other"
    """Where the paths of Integrated Gradients start - in a cell of each other class, the cell
    without counts, or the mean cell."""
    steps: AtLeastTwo = 8
    """Points on the path of Integrated Gradients; cells whose attributions do not add up get
    more."""
    attribution_memory: Annotated[Positive | None, HARDWARE] = None
    """GiB for the points that are evaluated at once. null - half of the GPU's free memory, 4 GiB on
    the CPU."""


class CheckedCellsSettings(RunSettings):
    """How many cells costly checks are made in."""

    checked_cells: AtLeastTwo = 16
    """Cells a class of the costly checks (randomisation, deletion, in-silico perturbation)."""


class CheckSettings(FineTuningSettings, CheckedCellsSettings, ExplanationSettings):
    """How an explanation is checked; for one check the main model is fitted once more."""


class MeasuredKnockout(Settings):
    """A knockout that was measured."""

    silenced: Text
    """The gene or regulon that was knocked out."""
    control: Selection
    """The unperturbed cells."""
    perturbed: Selection
    """The perturbed cells."""


class EditSettings(Settings):
    """Perturbations that are tried in the model."""

    n_drivers: Count = 2
    """TFs of the highest specificity of each class that are silenced in its cells."""
    silenced: list[Text] = []
    """Genes (symbols) and regulons (as in regulons.tsv) that are set to zero besides."""
    raised: list[Text] = []
    """The same, set to a high value."""
    n_random: Count = 20
    """Draws of random genes, expressed alike, that each is held against; the smallest p is one in
    this plus one."""
    measured: MeasuredKnockout | None = None
    """A knockout that was measured, for comparison. null - none."""


class InSilicoSettings(CheckedCellsSettings):
    """Which perturbations are tried in a task's main runs."""

    in_silico: EditSettings = Field(default_factory=EditSettings)
    """Perturbations that are tried in the model."""


class TaskSettings(
    InSilicoSettings, CheckSettings, EvaluationSettings, BaselineSettings, SplitSettings
):
    """A question that a model is fine-tuned to."""

    explain: bool = True
    """Attribute the calls to genes."""
    gene_sets: PathText | None = None
    """GMT file of gene sets that are sought at the top of the ranking. null - none."""

    def split(self) -> SplitSettings:
        """Return what decides the split: of the seeds the first, so that more leave it alone."""
        return self.part(SplitSettings).model_copy(update={"seeds": self.seeds[:1]})

    def explanation(self) -> ExplanationSettings:
        """Return what decides the attributions; of the seeds the first."""
        return self.part(ExplanationSettings).model_copy(update={"seeds": self.seeds[:1]})

    def checks(self) -> CheckSettings:
        """Return what decides the checks of an explanation; of the seeds the first."""
        return self.part(CheckSettings).model_copy(update={"seeds": self.seeds[:1]})

    def perturbations(self) -> InSilicoSettings:
        """Return what decides the perturbations; of the seeds the first."""
        return self.part(InSilicoSettings).model_copy(update={"seeds": self.seeds[:1]})
