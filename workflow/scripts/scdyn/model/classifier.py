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

from scdyn.data.loader import NOT_MEASURED, Store, run_batches
from scdyn.errors import InputError, reading
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import Json, sha256, write_json
from scdyn.model.adapters import load_adapter, merge_adapters, save_adapter
from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import Pool, Tokens
from scdyn.model.pretrained import load_model
from scdyn.settings import FineTuningSettings, HeadSettings


class CellHead(nn.Module):
    """Map cell vectors and principal components to class logits: one hidden layer."""

    def __init__(self, model: ModelConfig, n_classes: int, settings: HeadSettings) -> None:
        super().__init__()
        self.hidden = nn.Linear(model.n_features, settings.hidden)
        self.output = nn.Linear(settings.hidden, n_classes)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F), as a model's ``describe`` returns them, to logits (B, classes)."""
        logits: Tensor = self.output(self.dropout(functional.relu(self.hidden(features))))
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


def make_head(model: ModelConfig, n_classes: int, settings: HeadSettings) -> Head:
    """Make the head of a model's architecture."""
    kind = PooledHead if model.architecture == "paper" else CellHead
    return kind(model, n_classes, settings)


def mask_modality(rna: Tensor, promoter: Tensor, modalities: str) -> tuple[Tensor, Tensor]:
    """Replace the counts of the modality that a model does not use by "not measured".

    Parameters
    ----------
    rna, promoter
        (B, G) counts.
    modalities
        Modalities that the model uses: "both", "rna" or "promoter".
    """
    if modalities == "rna":
        return rna, torch.full_like(promoter, NOT_MEASURED)
    if modalities == "promoter":
        return torch.full_like(rna, NOT_MEASURED), promoter
    return rna, promoter


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
        head = make_head(model.config, len(task["classes"]), sizes)
        head.load_state_dict(head_weights)
        encoder = load_adapter(model, task["adapter"], task["rank"], folder)
        classifier = Classifier(encoder, head, task["classes"], task["modalities"])
        classifier.temperature = task["temperature"]
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
def run_head(classifier: Classifier, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predict the classes of encoded cells, as :func:`run_classifier` does those of counts.

    Parameters
    ----------
    classifier
        In evaluation mode, with an encoder that was not trained.
    features
        (cells, F) of all counts, by :func:`scdyn.tasks.encoding.encode`.

    Returns
    -------
    probabilities, energies : ndarray
        As :func:`run_classifier`.
    """
    device = next(classifier.parameters()).device
    logits = classifier.head(torch.from_numpy(features).to(device))
    return compute_probabilities(logits.double().cpu())


def compute_probabilities(logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Compute probabilities (cells, classes) and energies (cells,) from logits."""
    return logits.softmax(1).numpy(), -logits.logsumexp(1).numpy()
