"""The classifier: an adapted encoder with a head, its inference and its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from scdyn.data.loader import Store, mask_modality, run_batches
from scdyn.errors import InputError, reading
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import Json, sha256, write_json
from scdyn.model.adapters import load_adapter, merge_adapters, save_adapter
from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import CellFeatures, Pool, Tokens, set_precision
from scdyn.model.pretrained import load_model
from scdyn.model.transformer import CLIPPED
from scdyn.settings import FineTuningSettings, HeadSettings


class MarkerGenes(nn.Module):
    """Scaled values of the genes that tell the classes of a task apart.

    Attributes
    ----------
    genes
        (M,) positions among the values of RNA of all genes, then of promoters.
    centre, scale
        (M,) mean of each, and factor by which its difference from the mean is multiplied.
    """

    genes: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, n_markers: int) -> None:
        super().__init__()
        self.register_buffer("genes", torch.zeros(n_markers, dtype=torch.int64))
        self.register_buffer("centre", torch.zeros(n_markers))
        self.register_buffer("scale", torch.ones(n_markers))

    def randomise(self, n_genes: int) -> None:
        """Replace the marker genes by random ones of the same modalities, not scaled."""
        first = self.genes // n_genes * n_genes
        self.genes.copy_(first + torch.randint(n_genes, self.genes.shape).to(first.device))
        self.centre.zero_()
        self.scale.fill_(1)

    def forward(self, logs: Tensor, measured: Tensor) -> Tensor:
        """Scale the values of cells: (B, M), bounded; 0 where a value was not measured.

        Parameters
        ----------
        logs, measured
            As in :class:`~scdyn.model.layers.CellFeatures`.
        """
        values = (logs[:, self.genes] - self.centre) * self.scale
        return values.clamp(-CLIPPED, CLIPPED) * measured[:, self.genes]


class CellHead(nn.Module):
    """Map cell vectors, principal components and marker genes to class logits by one hidden layer.

    Parameters
    ----------
    model, settings
        Sizes.
    n_classes
        Number of classes.
    markers
        The marker genes; None - none.
    """

    def __init__(
        self,
        model: ModelConfig,
        n_classes: int,
        settings: HeadSettings,
        markers: MarkerGenes | None = None,
    ) -> None:
        super().__init__()
        self.markers = MarkerGenes(0) if markers is None else markers
        n_inputs = model.n_features + len(self.markers.genes)
        self.hidden = nn.Linear(n_inputs, settings.hidden)
        self.output = nn.Linear(settings.hidden, n_classes)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, cells: CellFeatures) -> Tensor:
        """Map cells, as a model's ``describe`` returns them, to logits (B, classes)."""
        markers = self.markers(cells.logs, cells.measured)
        return self.compute_logits(torch.cat([cells.features, markers], 1))

    def compute_logits(self, inputs: Tensor) -> Tensor:
        """Map features of cells with their marker genes (B, F + M) to logits (B, classes)."""
        logits: Tensor = self.output(self.dropout(functional.relu(self.hidden(inputs))))
        return logits


class PooledHead(nn.Module):
    """Map pooled tokens of the paper's model to class logits.

    A pool is a weighted sum over the expressed genes with trained weights. This is our choice; the
    paper pools all genes.
    """

    def __init__(self, model: ModelConfig, n_classes: int, settings: HeadSettings) -> None:
        super().__init__()
        n_pools = settings.n_pools
        self.pool = Pool(model.n_genes, n_pools)
        self.norm = nn.LayerNorm(n_pools * model.width)
        self.hidden = nn.Linear(n_pools * model.width, settings.hidden)
        self.output = nn.Linear(settings.hidden, n_classes)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, tokens: Tokens) -> Tensor:
        """Map tokens, as the model's ``describe`` returns them, to logits (B, classes)."""
        pooled = self.norm(self.pool(tokens))
        found = functional.gelu(self.hidden(self.dropout(pooled)))
        logits: Tensor = self.output(self.dropout(found))
        return logits


Head = CellHead | PooledHead


def make_head(
    model: ModelConfig,
    n_classes: int,
    settings: HeadSettings,
    markers: MarkerGenes | None = None,
) -> Head:
    """Make the head of a model's architecture; that of the paper's reads no marker genes."""
    if model.architecture == "paper":
        return PooledHead(model, n_classes, settings)
    return CellHead(model, n_classes, settings, markers)


class Classifier(nn.Module):
    """An adapted encoder with its head and the names of its classes.

    Attributes
    ----------
    modalities
        Modalities that it uses: "both", "rna" or "promoter".
    temperature
        Divisor of the logits before the softmax, for calibrated probabilities.
    familiar
        As :func:`scdyn.tasks.familiarity.fit_familiarity` returns it, or None.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: Head,
        classes: list[str],
        modalities: str = "both",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.classes = classes
        self.modalities = modalities
        self.temperature = 1.0
        self.familiar: np.ndarray | None = None

    def forward(self, rna: Tensor, promoter: Tensor) -> Tensor:
        """Map counts (B, G) each to logits (B, classes)."""
        rna, promoter = mask_modality(rna, promoter, self.modalities)
        logits: Tensor = self.head(self.encoder.describe(rna, promoter))
        return logits

    def merge(self) -> Classifier:
        """Add LoRA modules to the weights, in place, so that inference is faster.

        A merged classifier can be neither trained nor saved.
        """
        self.encoder = merge_adapters(self.encoder)
        return self

    def save(self, folder: Path, settings: FineTuningSettings, description: Json) -> None:
        """Write adapter, ``head.safetensors``, ``familiar.safetensors`` and ``task.json``.

        Parameters
        ----------
        folder
            An existing folder.
        settings
            Settings of the variant; ``adapter`` and ``pretrained`` determine which files are
            written.
        description
            Further content of ``task.json``.
        """
        save_adapter(self.encoder, settings.adapter, not settings.pretrained, folder)
        save_file(
            {n: p.detach().cpu() for n, p in self.head.state_dict().items()},
            folder / "head.safetensors",
        )
        if self.familiar is not None:
            save_arrays({"energies": self.familiar}, folder / "familiar.safetensors")
        content = {
            "classes": self.classes,
            "temperature": self.temperature,
            **settings.model_dump(),
        }
        write_json(folder / "task.json", content | description | {STAMP: make_stamp()})


def load_classifier(
    folder: str | Path, model_folder: str | Path, tokens: Json | None = None
) -> Classifier:
    """Load a fine-tuned model that :meth:`Classifier.save` wrote, merged, on the CPU.

    Parameters
    ----------
    folder, model_folder
        Folders of the fine-tuned and of the pretrained model.
    tokens
        ``meta`` of the tokens that the model will read.

    Raises
    ------
    InputError
        If a file cannot be read, the adapter was trained on another pretrained model, or the
        tokens have another vocabulary.
    """
    folder, model_folder = Path(folder), Path(model_folder)
    remedy = "remove the folder and run the workflow again"
    fault = "cannot be read as a fine-tuned model"
    with reading("MODEL", folder, fault, remedy):
        task = json.loads((folder / "task.json").read_text())
        head_weights = load_file(folder / "head.safetensors")
    if sha256(model_folder / "model.safetensors") != task["model_sha256"]:
        raise InputError(
            "MODEL",
            f"{folder}: fine-tuned from another pretrained model than {model_folder}; fine-tune "
            "again.",
        )
    model = load_model(model_folder, tokens)
    with reading("MODEL", folder, fault, remedy):
        sizes = HeadSettings(**{key: task[key] for key in HeadSettings.model_fields})
        markers = MarkerGenes(len(head_weights.get("markers.genes", ())))
        head = make_head(model.config, len(task["classes"]), sizes, markers)
        head.load_state_dict(head_weights)
        encoder = load_adapter(model, task["adapter"], task["rank"], folder)
        classifier = Classifier(encoder, head, task["classes"], task["modalities"])
        classifier.temperature = task["temperature"]
        # As it was trained. A head alone was trained on cells encoded in float32.
        head_only = task["adapter"] == "none" and task["pretrained"]
        head_only &= model.config.architecture != "paper"
        set_precision(classifier, "float32" if head_only else task["training"]["precision"])
        if (folder / "familiar.safetensors").exists():
            classifier.familiar = load_arrays(folder / "familiar.safetensors")["energies"]
    return classifier.merge().eval()


@torch.no_grad()
def run_classifier(
    classifier: Classifier,
    store: Store,
    rows: np.ndarray,
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """Predict the classes of cells.

    Parameters
    ----------
    classifier
        In evaluation mode.
    store, rows
        The cells.
    batch_size
        Cells per batch.

    Returns
    -------
    probabilities : ndarray, (cells, classes)
        At temperature 1, not at the classifier's temperature.
    energies : ndarray, (cells,)
        See :func:`scdyn.tasks.familiarity.fit_familiarity`.
    """
    device = next(classifier.parameters()).device

    def logits_of(rna: Tensor, promoter: Tensor) -> Tensor:
        return classifier(rna, promoter).double().cpu()

    none = torch.zeros((0, len(classifier.classes)), dtype=torch.float64)
    logits = torch.cat([none, *run_batches(logits_of, store, rows, device, batch_size)])
    return compute_probabilities(logits)


@torch.no_grad()
def run_head(head: CellHead, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predict the classes of encoded cells, as :func:`run_classifier` does those of counts.

    Parameters
    ----------
    head
        In evaluation mode, on the CPU.
    inputs
        (cells, F + M) features of all counts, by :func:`scdyn.tasks.encoding.encode`, and marker
        genes.

    Returns
    -------
    probabilities, energies : ndarray
        As :func:`run_classifier`.
    """
    return compute_probabilities(head.compute_logits(torch.from_numpy(inputs)).double())


def compute_probabilities(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Compute probabilities (cells, classes) and energies (cells,) from logits."""
    return logits.softmax(1).numpy(), -logits.logsumexp(1).numpy()
