"""Settings of a task, as one class per set of settings that a rule depends on."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

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
    refuse,
)
from scdyn.settings.model import FULL, OF_PAPER, SIZES, TrainingSettings, fill_in_training

# Name of the model with the settings of the task's block, and prefix of its variants.
MAIN = "scdynomics"
# Suffix of the method that is another method's runs with different seeds, averaged as one model.
ENSEMBLE = "_ensemble"

Adapter = Literal["lora", "nonlinear", "full", "none"]
Modalities = Literal["both", "rna", "promoter"]
Baseline = Literal[
    "majority",
    "logistic_regression",
    "logistic_regression_rna",
    "logistic_regression_l1",
    "logistic_regression_pca",
    "knn",
    "xgboost",
    "mlp",
]
ClassWeights = Literal["none", "sqrt", "balanced"]
AtLeastTwo = Annotated[int, Field(ge=2)]


def is_compared(variant: str) -> bool:
    """Tell whether a variant, trained on all classes and labels, is compared with the baselines."""
    return variant == MAIN or variant.startswith(f"{MAIN}_")


def find_method(variant: str) -> str:
    """Find the compared variant of which a variant is with fewer labels or classes."""
    if is_compared(variant):
        return variant
    parts = variant.split("_", 2)
    return f"{MAIN}_{parts[2]}" if len(parts) > 2 else MAIN


class RunSettings(Settings):
    """Folds and seeds of the runs of a task."""

    split_by: Text | None = None
    """Column whose values (samples, donors, batches) are not split over folds. null - cells are
    split at random."""
    folds: AtLeastTwo = 5
    """Number of folds of the cross-validation."""
    seeds: Seeds = [1, 2, 3, 4, 5]
    """Seeds; each variant is fine-tuned once per seed and fold, and scores are over all of these
    runs."""

    @property
    def seed(self) -> int:
        """The first seed, for random numbers that all runs share."""
        return self.seeds[0]


class SplitSettings(RunSettings):
    """Cells for training, testing and prediction."""

    label: Text
    """Column of the labels."""
    train: Selection = {}
    """Cells for training and testing, split into folds; all cells with a label if not given."""
    predict: Selection | None = None
    """Further cells to predict by the models of all folds. null - none."""
    min_cells_per_class: AtLeastTwo | None = None
    """Classes with fewer labelled cells are left out of training and scores, and listed. null - the
    number of folds."""
    min_units: AtLeastTwo = 2
    """With split_by, classes found in fewer of its values (samples, donors) are left out as well,
    because a class needs both training and test cells."""
    validation_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the training cells that is used only to fit temperature and familiarity."""


class HeadSettings(Settings):
    """The classifier on top of the encoder."""

    n_pools: Count = 64
    """Number of trained weighted sums over the expressed genes that the head reads. For paper only;
    other heads read the cell vector, principal components and marker genes."""
    n_markers: Annotated[int, Field(ge=0)] = 10
    """Marker genes per class that the head reads, too, chosen among the training cells. Not for
    paper."""
    hidden: Count = 128
    """Width of the head's hidden layer."""
    dropout: Share = 0.2
    """Dropout of the head."""


class WeightSettings(Settings):
    """Weights of classes, the same for the fine-tuned models and the baselines."""

    class_weights: ClassWeights = "sqrt"
    """Weights of classes in training, of the model and of the baselines that can be weighted. none
    - all cells weigh the same; balanced - all classes weigh the same; sqrt - between the two, by
    the inverse square root of a class's number of cells."""


class EncodingSettings(Settings):
    """What a model reads of a cell."""

    modalities: Modalities = "both"
    """Modalities that the model uses. both; rna; promoter."""
    thinning: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Lowest share of a training cell's counts that is read; 1 - all counts, the default if the
    model's architecture is paper. The share is drawn for each cell and step, or, with adapter none,
    for each cell and view."""
    views: Count = 3
    """Number of times that a cell is encoded with adapter none: once with all counts, the other
    times thinned. Not for paper."""

    @property
    def n_views(self) -> int:
        """Number of views that differ."""
        return 1 if self.thinning == 1 else self.views


class FineTuningSettings(HeadSettings, WeightSettings, EncodingSettings):
    """Fine-tuning of a model."""

    adapter: Adapter = "none"
    """Trained parameters of the encoder. none - no parameters, only the head is trained; lora -
    low-rank modules, the default if the model's architecture is paper; nonlinear - low-rank modules
    with a non-linearity (the paper's); full - all parameters."""
    rank: Count = 8
    """Rank of the low-rank modules."""
    pretrained: bool = True
    """Start from the pretrained encoder. false - start from a randomly initialised encoder; with
    adapter none, all of its parameters are trained."""
    head_epochs: Count = 40
    """In place of training.epochs with adapter none, where cells are encoded only once. Not for
    paper."""
    head_steps: Count = 1000
    """Fewest training steps with adapter none; a small training set is repeated within an epoch.
    Not for paper."""
    penalty: Annotated[float, Field(ge=0)] = 0.003
    """L2 penalty of the head's weights: half of it, times the sum of their squares, is added to the
    loss. 0 is the default if the model's architecture is paper."""
    encoder_rate: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Learning rate of the encoder, relative to that of the head; 1 is the default if the model's
    architecture is paper."""
    training: TrainingSettings = Field(
        default_factory=lambda: TrainingSettings(**FULL["fine_tuning"])
    )
    """Training of the fine-tuned model (see training)."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_training(cls, content: Any) -> Any:
        return fill_in_training(content, {}, FULL["fine_tuning"])

    @property
    def trained(self) -> Adapter:
        """Trained parameters of the encoder: all if it starts at random and has no adapter."""
        return self.adapter if self.pretrained or self.adapter != "none" else "full"

    def is_head_only(self, architecture: str) -> bool:
        """Tell whether only a head is trained, so that each cell is encoded once."""
        return self.trained == "none" and architecture != "paper"

    def list_unused(self, architecture: str) -> list[str]:
        """List the keys without effect, such as ``rank`` and ``training.epochs``."""
        unused = ["n_markers"] if architecture == "paper" else ["n_pools"]
        if self.is_head_only(architecture):
            unused += ["encoder_rate", "training.epochs"]
        else:
            unused += ["views", "head_epochs", "head_steps"]
        if self.trained not in ("lora", "nonlinear"):
            unused.append("rank")
        if not self.pretrained:
            unused.append("encoder_rate")
        return unused

    def dump_used(self, architecture: str) -> Plain:
        """Dump the settings that decide a fine-tuned model of an architecture."""
        unused = self.list_unused(architecture)
        training = self.training.without_hardware()
        parts = {"": self.without_hardware() | {"training": training}, "training.": training}
        for prefix, part in parts.items():
            for key in list(part):
                if prefix + key in unused:
                    del part[key]
        return parts[""]


def choose_fine_tuning(size: str, architecture: str) -> FineTuningSettings:
    """Return the defaults for models of a size and an architecture."""
    of_architecture = OF_PAPER if architecture == "paper" else {}
    training = TrainingSettings(**SIZES[size]["fine_tuning"])
    return FineTuningSettings(training=training, **of_architecture)


class VariantSettings(FineTuningSettings):
    """A model that is fine-tuned for a task, and the labels in its training set."""

    labels: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the labels in its training set."""
    without: Text | None = None
    """Class that is left out of its training set. null - none."""


class VariantChanges(Settings):
    """Another model to compare the main one with; keys that differ from the task's."""

    adapter: Adapter | None = None
    """In place of the task's."""
    rank: Count | None = None
    """In place of the task's."""
    pretrained: bool | None = None
    """In place of the task's."""
    modalities: Modalities | None = None
    """In place of the task's."""
    thinning: Annotated[float | None, Field(gt=0, le=1)] = None
    """In place of the task's."""
    penalty: Annotated[float | None, Field(ge=0)] = None
    """In place of the task's."""
    learning_rate: Positive | None = None
    """In place of the task's."""
    seeds: Seeds | None = None
    """In place of the task's."""

    @model_serializer(mode="wrap")
    def _leave_out_what_is_the_same(self, dump: SerializerFunctionWrapHandler) -> Plain:
        return {key: value for key, value in dump(self).items() if value is not None}


class ReducedSettings(RunSettings):
    """Models whose training set has fewer labels or classes."""

    label_shares: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], *Unique] = []
    """Shares of the labels on which the main model, variants that are not pretrained, and the fast
    baselines are also trained."""
    left_out: Annotated[list[Text], *Unique] = []
    """Classes that are left out of the training set in turn, to test whether their cells are
    recognised as unfamiliar."""

    def reduced_variants(self) -> dict[str, tuple[float, str | None]]:
        """Return the share of the labels and the left-out class of each model by name.

        Returns
        -------
        dict
            ``labels_SHARE`` for each of ``label_shares``, ``without_I`` for the I-th of
            ``left_out``.
        """
        shares = {f"labels_{share:g}": (share, None) for share in self.label_shares}
        return shares | {f"without_{i}": (1.0, name) for i, name in enumerate(self.left_out)}

    def runs_of(self, variant: str) -> list[tuple[int, int]]:
        """List the runs (seed, fold) of a variant; one run for a model without a class."""
        if variant.startswith("without_"):
            return [(self.seed, 0)]
        return [(seed, fold) for seed in self.seeds_of(variant) for fold in range(self.folds)]

    def seeds_of(self, variant: str) -> list[int]:
        """List the seeds of a variant."""
        return self.seeds


class BaselineSettings(WeightSettings, ReducedSettings):
    """Baselines of a task."""

    baselines: Annotated[list[Baseline], *Unique] = [
        "majority",
        "logistic_regression",
        "logistic_regression_rna",
        "logistic_regression_l1",
        "logistic_regression_pca",
        "knn",
        "xgboost",
        "mlp",
    ]
    """Baseline methods, on the same splits."""


class EvaluationSettings(FineTuningSettings, ReducedSettings):
    """Models that are fine-tuned for a task and compared."""

    model: Name
    """Pretrained model to fine-tune."""
    variants: dict[Name, VariantChanges] = {}
    """Other models to compare the main one with, by name; the keys that differ."""

    @field_validator("variants")
    @classmethod
    def _refuse_names_of_ensembles(
        cls, variants: dict[str, VariantChanges]
    ) -> dict[str, VariantChanges]:
        for name in variants:
            if f"{MAIN}_{name}".endswith(ENSEMBLE):
                raise refuse(f"the variant '{name}' has the name of an ensemble; rename it.")
        return variants

    def seeds_of(self, variant: str) -> list[int]:
        """List the seeds of a variant, by default the task's."""
        own = self.variants.get(find_method(variant).removeprefix(f"{MAIN}_"))
        return self.seeds if own is None or own.seeds is None else own.seeds

    def all_variants(self) -> dict[str, VariantSettings]:
        """Return the settings of all fine-tuned models by name.

        Returns
        -------
        dict
            ``scdynomics``, with the settings of the block; ``scdynomics_NAME`` for each of
            ``variants``; the models of :meth:`reduced_variants`; and ``labels_SHARE_NAME``,
            variants that are not pretrained with fewer labels.
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
        # Pretraining is worth most with few labels.
        for name, own in self.variants.items():
            for share in self.label_shares if own.pretrained is False else ():
                of_variant = found[f"{MAIN}_{name}"]
                found[f"labels_{share:g}_{name}"] = of_variant.model_copy(update={"labels": share})
        return found

    def find_encoded(self, variant: str, architecture: str) -> str | None:
        """Find the first variant whose encoded cells a variant reads; None if it reads counts."""
        variants = self.all_variants()
        wanted = variants[variant].part(EncodingSettings)
        if not variants[variant].is_head_only(architecture):
            return None
        return next(
            name
            for name, other in variants.items()
            if other.is_head_only(architecture) and other.part(EncodingSettings) == wanted
        )

    def variants_of_one_modality(self) -> dict[str, str]:
        """Return, by modality, the first variant that uses only this modality."""
        found: dict[str, str] = {}
        for name, settings in self.all_variants().items():
            if is_compared(name) and settings.modalities != "both":
                found.setdefault(settings.modalities, name)
        return found


class ExplanationSettings(RunSettings):
    """Attribution of the predictions of a task's main runs to genes."""

    explained_cells: AtLeastTwo = 100
    """Correctly predicted cells explained per class and fold; divided among the other classes, at
    least two each."""
    attribution_baseline: Literal["other", "zero", "mean"] = "other"
    """Baseline of Integrated Gradients. other - a cell of each other class; zero - the cell without
    counts; mean - the mean cell."""
    steps: AtLeastTwo = 8
    """Points per path of Integrated Gradients; more for cells whose attributions do not sum to the
    change of the logit."""
    attribution_memory: Annotated[Positive | None, HARDWARE] = None
    """Memory in GiB for the points that are evaluated at once. null - half of the GPU's free
    memory; 4 GiB on the CPU."""


class CheckedCellsSettings(RunSettings):
    """Number of cells of the costly checks."""

    checked_cells: AtLeastTwo = 16
    """Cells per class in the costly checks (randomisation, deletion, in-silico perturbation)."""


class CheckSettings(FineTuningSettings, CheckedCellsSettings, ExplanationSettings):
    """Checks of an explanation; for one of them the main model is fine-tuned again."""


class MeasuredKnockout(Settings):
    """A measured knockout."""

    silenced: Text
    """The gene or regulon that was knocked out."""
    control: Selection
    """The unperturbed cells."""
    perturbed: Selection
    """The perturbed cells."""


class EditSettings(Settings):
    """In-silico perturbations."""

    n_drivers: Count = 2
    """Number of TFs per class, its best by the rank of drivers, that are silenced in the cells of
    the class."""
    silenced: list[Text] = []
    """Further genes (symbols) and regulons (as in regulons.tsv) that are set to zero."""
    raised: list[Text] = []
    """Genes and regulons that are set to a high value."""
    n_random: Count = 20
    """Number of random gene sets of similar expression with which each perturbation is compared;
    the smallest p-value is 1 / (n_random + 1)."""
    measured: MeasuredKnockout | None = None
    """A measured knockout to compare with. null - none."""


class InSilicoSettings(CheckedCellsSettings):
    """In-silico perturbations by a task's main runs."""

    in_silico: EditSettings = Field(default_factory=EditSettings)
    """In-silico perturbations."""


class TaskSettings(
    InSilicoSettings, CheckSettings, EvaluationSettings, BaselineSettings, SplitSettings
):
    """A classification task for which a model is fine-tuned."""

    explain: bool = True
    """Attribute the predictions to genes."""
    gene_sets: PathText | None = None
    """GMT file of gene sets to test for enrichment at the top of the gene ranking. null - none."""

    def split(self) -> SplitSettings:
        """Return the settings of the split, with the first seed only."""
        return self.part(SplitSettings).model_copy(update={"seeds": self.seeds[:1]})

    def explanation(self) -> ExplanationSettings:
        """Return the settings of the attributions, with the first seed only."""
        return self.part(ExplanationSettings).model_copy(update={"seeds": self.seeds[:1]})

    def checks(self) -> CheckSettings:
        """Return the settings of the checks of an explanation, with the first seed only."""
        return self.part(CheckSettings).model_copy(update={"seeds": self.seeds[:1]})

    def perturbations(self) -> InSilicoSettings:
        """Return the settings of the in-silico perturbations, with the first seed only."""
        return self.part(InSilicoSettings).model_copy(update={"seeds": self.seeds[:1]})
