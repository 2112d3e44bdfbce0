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

from scdyn.data.loader import Store, expressed_genes, is_measured, run_batches
from scdyn.data.tokens import NOT_MEASURED
from scdyn.errors import InputError, reading
from scdyn.io.artefacts import STAMP, make_stamp
from scdyn.io.files import Json, sha256, write_json
from scdyn.model.adapters import load_adapter, merge_adapters, save_adapter
from scdyn.model.pretrained import load_model
from scdyn.settings import FineTuningSettings, HeadSettings


class Head(nn.Module):
    """Map pooled gene representations to class logits.

    A pool is a weighted sum over genes with trained weights. It includes the expressed genes of a
    cell, as differences from their representations in a cell without counts, because the many
    silent genes are nearly the same in all cells and hide the few that differ. This is our choice;
    the paper pools all genes.
    """

    def __init__(self, n_genes: int, width: int, n_classes: int, config: HeadSettings) -> None:
        super().__init__()
        self.pool = nn.Linear(n_genes, config.n_pools, bias=False)
        self.norm = nn.LayerNorm(config.n_pools * width)
        self.hidden = nn.Linear(config.n_pools * width, config.hidden)
        self.output = nn.Linear(config.hidden, n_classes)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.pool.weight, std=n_genes**-0.5)

    def forward(self, representations: Tensor, zero_cell: Tensor, expressed: Tensor) -> Tensor:
        """Map cells to logits.

        Parameters
        ----------
        representations
            (B, G, D) of the cells.
        zero_cell
            (B, G, D) of the cell in which all counts are zero.
        expressed
            (B, G) boolean: genes to pool.

        Returns
        -------
        Tensor
            (B, classes).
        """
        changes = (representations - zero_cell) * expressed.unsqueeze(-1)
        pooled = self.pool(changes.transpose(1, 2)).flatten(1)
        hidden = functional.gelu(self.hidden(self.dropout(self.norm(pooled))))
        return self.output(self.dropout(hidden))


def make_zero_cells(
    n_genes: int, device: torch.device, modalities: str = "both"
) -> tuple[Tensor, Tensor]:
    """Make two cells without counts: bins (2, G) each of RNA and promoters.

    Promoters are zero in the first cell and not measured in the second.
    """
    rna, promoter = torch.zeros(2, 2, n_genes, dtype=torch.uint8, device=device)
    promoter[1] = NOT_MEASURED
    return mask_modality(rna, promoter, modalities)


def mask_modality(rna: Tensor, promoter: Tensor, modalities: str) -> tuple[Tensor, Tensor]:
    """Replace the bins of the modality that a model does not use by "not measured".

    Parameters
    ----------
    rna, promoter
        (B, G) bins.
    modalities
        Modalities that the model uses: "both", "rna" or "promoter".
    """
    if modalities == "rna":
        return rna, torch.full_like(promoter, NOT_MEASURED)
    if modalities == "promoter":
        return torch.full_like(rna, NOT_MEASURED), promoter
    return rna, promoter


def select_zero_cell(zero_cells: Tensor, promoter_measured: Tensor) -> Tensor:
    """Select, per cell, the cell without counts that has the same measured modalities.

    Parameters
    ----------
    zero_cells
        (2, G, D), representations of :func:`make_zero_cells`.
    promoter_measured
        (B,) boolean.

    Returns
    -------
    Tensor
        (B, G, D).
    """
    # Not by indexing, whose backward pass is not deterministic.
    return torch.where(promoter_measured[:, None, None], zero_cells[:1], zero_cells[1:])


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
        """Map bins (B, G) each to logits (B, classes)."""
        rna, promoter = mask_modality(rna, promoter, self.modalities)
        zero_cell = select_zero_cell(self.encode_zero_cells(), is_measured(promoter))
        return self.head(self.encoder(rna, promoter), zero_cell, expressed_genes(rna, promoter))

    def encode_zero_cells(self) -> Tensor:
        """Compute the representations (2, G, D) of :func:`make_zero_cells`.

        Always of both cells, so that compiled layers see one shape. Without dropout, because all
        cells of a batch would share its noise.
        """
        device = next(self.parameters()).device
        n_genes = self.head.pool.in_features
        zeros = make_zero_cells(n_genes, device, self.modalities)
        training = self.encoder.training
        self.encoder.eval()
        try:
            return self.encoder(*zeros)
        finally:
            self.encoder.train(training)

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
        head = Head(model.config.n_genes, model.config.width, len(task["classes"]), sizes)
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
    return logits.softmax(1).numpy(), -logits.logsumexp(1).numpy()
