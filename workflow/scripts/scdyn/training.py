"""One training loop, which goes on where it was killed, and masked pretraining on it."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from scdyn import __version__
from scdyn.files import atomic, sha256, write_json
from scdyn.log import logger
from scdyn.model import ModelConfig, ScDynOmics, mask_genes
from scdyn.tokens import TokenStore

CHECKPOINT_SECONDS = 60.0
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class TrainingConfig:
    """How parameters are fitted.

    Attributes
    ----------
    epochs, batch_size
        Passes over the cells, cells a step.
    learning_rate, weight_decay, clip
        Of AdamW; matrices alone are decayed; norm at which gradients are clipped.
    warmup
        Share of the steps over which the rate rises from zero; a cosine takes it back.
    seed
        Of initialisation, order, masks and dropout.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    clip: float = 1.0
    warmup: float = 0.05
    seed: int = 0


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU, and say which."""
    if torch.cuda.is_available():
        logger.info("running on GPU %s", torch.cuda.get_device_name())
        return torch.device("cuda")
    logger.info("no GPU found: running on the CPU with %d threads", torch.get_num_threads())
    return torch.device("cpu")


def to_device(bins: sparse.csr_matrix, device: torch.device) -> Tensor:
    """Densify bins (cells, genes) as uint8 on the device."""
    return torch.from_numpy(bins.toarray()).to(device)


def learning_rate(step: int, n_steps: int, config: TrainingConfig) -> float:
    """Rate of a step: linear warm-up, then half a cosine to zero."""
    n_warmup = max(1, round(config.warmup * n_steps))
    if step < n_warmup:
        return config.learning_rate * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def step_seed(seed: int, step: int) -> int:
    """Seed of one step's masks and dropout, so that a resumed run draws what it would have."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


class Checkpoint:
    """The state of a run in a folder of its own: weights, optimiser, place, history.

    Parameters
    ----------
    folder
        Where it is kept.
    identity
        Everything that decides the run's result; a checkpoint of another identity is
        not gone on from.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder = folder
        self.identity = json.loads(json.dumps(identity))

    def save(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]
    ) -> None:
        """Write weights that are trained, the optimiser's tensors and ``state``."""
        trained = {
            f"model.{n}": p.detach() for n, p in module.named_parameters() if p.requires_grad
        }
        for i, moments in optimizer.state_dict()["state"].items():
            trained |= {f"optimizer.{i}.{key}": value for key, value in moments.items()}
        with atomic(self.folder) as temporary:
            temporary.mkdir()
            save_file(trained, temporary / "state.safetensors")
            write_json(temporary / "state.json", {"identity": self.identity, **state})

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Load what :meth:`save` wrote and return its ``state``; None if there is none to use."""
        if not (self.folder / "state.json").exists():
            return None
        state = json.loads((self.folder / "state.json").read_text())
        if state.pop("identity") != self.identity:
            logger.info(
                "the checkpoint in %s is of other settings or data: starting anew", self.folder
            )
            return None
        tensors = load_file(self.folder / "state.safetensors")
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[f"model.{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".")
                moments.setdefault(int(i), {})[key] = tensor
        content = optimizer.state_dict()
        optimizer.load_state_dict({"state": moments, "param_groups": content["param_groups"]})
        logger.info("going on from step %d", state["step"])
        return state

    def remove(self) -> None:
        """Remove what was saved."""
        shutil.rmtree(self.folder, ignore_errors=True)


def train(
    module: nn.Module,
    loss_of: Callable[[np.ndarray, int], Tensor],
    n_cells: int,
    config: TrainingConfig,
    evaluate: Callable[[], dict[str, float]],
    checkpoint: Checkpoint | None = None,
) -> list[dict[str, float]]:
    """Fit the parameters of ``module`` that require gradients.

    Parameters
    ----------
    module
        Changed in place; left in evaluation mode.
    loss_of
        Called with the rows of a batch, (batch_size,), and the step's seed; returns a scalar.
    n_cells
        Rows to draw from; each epoch visits all of them, save a last incomplete batch.
    config
        See :class:`TrainingConfig`.
    evaluate
        Called after each epoch, in evaluation mode and without gradients.
    checkpoint
        Where to go on from and to save to, every minute and after each epoch.

    Returns
    -------
    list of dict
        A record an epoch: ``epoch``, ``step``, ``loss`` (mean of its steps), ``seconds``,
        ``cells_per_second`` and what ``evaluate`` returned.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for n, p in module.named_parameters() if p.requires_grad and decays(n, p)]
    chosen = {id(p) for p in matrices}
    rest = [p for p in parameters if id(p) not in chosen]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    batch_size = min(config.batch_size, n_cells)
    per_epoch = n_cells // batch_size
    n_steps = per_epoch * config.epochs
    state = {"step": 0, "losses": [], "seconds": 0.0, "history": []}
    if checkpoint:
        state = checkpoint.restore(module, optimizer) or state

    begun = saved = shown = time.monotonic() - state["seconds"]
    first_step = state["step"]
    resumed_at = time.monotonic()
    while state["step"] < n_steps:
        step = state["step"]
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([config.seed, epoch]).permutation(n_cells)
        rows = order[place * batch_size : (place + 1) * batch_size]
        module.train()
        seed = step_seed(config.seed, step)
        torch.manual_seed(seed)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, n_steps, config)
        loss = loss_of(rows, seed)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state["losses"].append(loss.item())
        state["step"] = step + 1

        now = time.monotonic()
        state["seconds"] = now - begun
        if now - shown > PROGRESS_SECONDS:
            shown = now
            rate = (state["step"] - first_step) / (now - resumed_at)
            logger.info(
                "step %d/%d  loss %.4f  %.0f cells/s  %.0f s to go",
                state["step"],
                n_steps,
                loss.item(),
                rate * batch_size,
                (n_steps - state["step"]) / rate,
            )
        end_of_epoch = state["step"] % per_epoch == 0
        if end_of_epoch:
            state["history"].append(
                close_epoch(module, evaluate, state, epoch + 1, per_epoch * batch_size)
            )
        if checkpoint and (end_of_epoch or now - saved > CHECKPOINT_SECONDS):
            saved = now
            checkpoint.save(module, optimizer, state)
    module.eval()
    return state["history"]


def decays(name: str, parameter: Tensor) -> bool:
    """Tell whether weight decay applies: to matrices, not to embeddings, norms and biases."""
    return parameter.ndim > 1 and "embedding" not in name


def close_epoch(
    module: nn.Module,
    evaluate: Callable[[], dict[str, float]],
    state: dict[str, Any],
    epoch: int,
    n_cells: int,
) -> dict[str, float]:
    """Evaluate after an epoch and return its record; the losses of its steps are used up."""
    module.eval()
    with torch.no_grad():
        scores = evaluate()
    before = state["history"][-1]["seconds"] if state["history"] else 0.0
    record = {
        "epoch": epoch,
        "step": state["step"],
        "loss": float(np.mean(state["losses"])),
        "seconds": round(state["seconds"], 3),
        "cells_per_second": round(n_cells / max(state["seconds"] - before, 1e-9), 2),
        **scores,
    }
    state["losses"] = []
    logger.info(
        "epoch %d: %s", epoch, "  ".join(f"{key} {value:.4g}" for key, value in record.items())
    )
    return record


def masked_losses(
    model: ScDynOmics, rna: Tensor, promoter: Tensor, share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the bins of hidden genes.

    Parameters
    ----------
    rna, promoter
        (B, G) uint8 bins on the model's device.
    share
        Share of the non-zero genes to hide.
    seed
        Of the mask.

    Returns
    -------
    tuple of Tensor
        (hidden genes,) losses in nats of the RNA bin and of the promoter bin.
    """
    config = model.config
    # Drawn on the CPU, so that CPU and GPU hide the same genes.
    generator = torch.Generator().manual_seed(seed)
    masked_rna, masked_promoter, hidden = mask_genes(
        rna.cpu(), promoter.cpu(), share, config.mask_id, generator
    )
    hidden = hidden.to(rna.device)
    representations = model(masked_rna.to(rna.device), masked_promoter.to(rna.device))[hidden]
    logits = model.decode(representations)
    return tuple(
        functional.cross_entropy(predicted, bins[hidden].long(), reduction="none")
        for predicted, bins in zip(logits, (rna, promoter), strict=True)
    )


def gene_frequencies(
    bins: sparse.csr_matrix, expressed: sparse.csr_matrix, n_bins: int
) -> np.ndarray:
    """How often each gene has each bin, in cells where either modality saw it.

    Parameters
    ----------
    bins
        (cells, genes) of one modality.
    expressed
        (cells, genes) boolean: either modality is non-zero.
    n_bins
        Highest bin.

    Returns
    -------
    ndarray, (genes, n_bins + 1)
        Frequencies, one added to each count so that none is zero.
    """
    counts = np.ones((bins.shape[1], n_bins + 1))
    np.add.at(counts, (bins.indices, bins.data), 1)
    counts[:, 0] += expressed.getnnz(0) - bins.getnnz(0)
    return counts / counts.sum(1, keepdims=True)


def mode_predictor(frequencies: np.ndarray) -> np.ndarray:
    """Predict each gene's commonest bin with its frequency, and all other bins alike.

    It is the best predictor that knows no more than the gene's mode and how often it is right.
    """
    mode = frequencies.argmax(1)
    right = frequencies.max(1, keepdims=True)
    predicted = np.repeat((1 - right) / (frequencies.shape[1] - 1), frequencies.shape[1], axis=1)
    predicted[np.arange(len(mode)), mode] = right[:, 0]
    return predicted


class MaskedPretraining:
    """Masked pretraining of a model on some cells, scored on others.

    Parameters
    ----------
    model
        On the device to train on.
    training, validation
        RNA and promoter bins, each (cells, genes).
    mask_share
        Share of the non-zero genes that is hidden.
    seed
        Of the masks of the validation cells, which are the same each time.
    """

    def __init__(
        self,
        model: ScDynOmics,
        training: tuple[sparse.csr_matrix, sparse.csr_matrix],
        validation: tuple[sparse.csr_matrix, sparse.csr_matrix],
        mask_share: float,
        seed: int,
    ) -> None:
        self.model = model
        self.training = training
        self.validation = validation
        self.mask_share = mask_share
        self.seed = seed
        self.device = next(model.parameters()).device
        expressed = (training[0] > 0) + (training[1] > 0)
        self.frequencies = [
            gene_frequencies(bins, expressed, model.config.n_bins) for bins in training
        ]

    def loss_of(self, rows: np.ndarray, seed: int) -> Tensor:
        """Mean loss of both modalities over the hidden genes of a batch."""
        rna, promoter = (to_device(bins[rows], self.device) for bins in self.training)
        rna_losses, promoter_losses = masked_losses(
            self.model, rna, promoter, self.mask_share, seed
        )
        return (rna_losses.mean() + promoter_losses.mean()) / 2

    @torch.no_grad()
    def evaluate(self, batch_size: int = 64) -> dict[str, float]:
        """Score the validation cells, always with the same masks.

        Returns
        -------
        dict
            ``masked_loss`` (mean of the modalities), ``rna_masked_loss`` and
            ``promoter_masked_loss``, in nats a hidden gene.
        """
        losses: list[list[Tensor]] = [[], []]
        for start in range(0, self.validation[0].shape[0], batch_size):
            rna, promoter = (
                to_device(bins[start : start + batch_size], self.device) for bins in self.validation
            )
            parts = masked_losses(
                self.model, rna, promoter, self.mask_share, step_seed(self.seed, start)
            )
            for collected, part in zip(losses, parts, strict=True):
                collected.append(part)
        means = [torch.cat(collected).mean().item() for collected in losses]
        return {
            "masked_loss": sum(means) / 2,
            "rna_masked_loss": means[0],
            "promoter_masked_loss": means[1],
        }

    def trivial_losses(self) -> dict[str, float]:
        """Score two predictors that know the gene and not the cell, on the validation cells.

        Returns
        -------
        dict
            ``mode_loss`` and ``frequency_loss``: mean over the modalities and all non-zero
            genes of the cross-entropy of :func:`mode_predictor` and of the genes' frequencies.
        """
        expressed = ((self.validation[0] > 0) + (self.validation[1] > 0)).tocoo()
        totals = {"mode_loss": 0.0, "frequency_loss": 0.0}
        for bins, frequencies in zip(self.validation, self.frequencies, strict=True):
            observed = np.asarray(bins[expressed.row, expressed.col]).ravel()
            for name, predicted in [
                ("mode_loss", mode_predictor(frequencies)),
                ("frequency_loss", frequencies),
            ]:
                totals[name] -= float(np.log(predicted[expressed.col, observed]).mean()) / 2
        return totals


def pretrain(
    store: TokenStore,
    rows: np.ndarray,
    regulons: np.ndarray,
    settings: dict[str, Any],
    folder: Path,
    checkpoints: Path,
) -> None:
    """Pretrain a model on some cells of a corpus, as a block of the config says.

    Parameters
    ----------
    store
        Tokens of the corpus.
    rows
        Positions of the cells to use; a seeded share is held out for validation.
    regulons
        (regulons, genes) weights, for ``projection_init: regulon``.
    settings
        One entry of the config's ``models``.
    folder
        Receives ``model.safetensors``, ``config.json``, ``metrics.jsonl`` and ``scores.json``.
    checkpoints
        Where a killed run goes on from; removed when the run is done.
    """
    seed = settings["seed"]
    config = TrainingConfig(seed=seed, **settings["training"])
    architecture = ModelConfig.from_dict(
        {key: settings[key] for key in ("width", "n_layers", "n_heads", "n_latents", "ffn_width")}
        | {"dropout": settings["dropout"]}
        | {key: store.meta[key] for key in ("n_genes", "n_tfs", "n_bins")}
    )
    torch.manual_seed(seed)
    model = ScDynOmics(architecture)
    if settings["projection_init"] == "regulon":
        model.anchor_latents(torch.from_numpy(regulons))
    model.to(choose_device())
    order = np.random.default_rng(seed).permutation(rows)
    n_validation = max(1, round(settings["validation_share"] * len(rows)))
    held_out, learned = np.sort(order[:n_validation]), np.sort(order[n_validation:])
    logger.info(
        "%.2f M parameters; %d cells to learn from, %d to validate on",
        sum(p.numel() for p in model.parameters()) / 1e6,
        len(learned),
        len(held_out),
    )
    task = MaskedPretraining(
        model, store.read(learned), store.read(held_out), settings["mask_share"], seed
    )
    identity = {
        "model": architecture.to_dict(),
        "training": asdict(config),
        "tokens": store.meta,
        "settings": settings,
    }
    checkpoint = Checkpoint(checkpoints, identity)
    history = train(model, task.loss_of, len(learned), config, task.evaluate, checkpoint)
    scores = {**task.evaluate(), **task.trivial_losses()}
    logger.info("held-out cells: %s", "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    with atomic(folder / "metrics.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in history))
    write_json(folder / "scores.json", scores)
    description = {
        "training": asdict(config),
        "settings": settings,
        "tokens": store.meta,
        "versions": {"torch": torch.__version__, "scdyn": __version__},
    }
    with atomic(folder / "model.safetensors") as temporary:
        save_file({name: p.detach().cpu() for name, p in model.state_dict().items()}, temporary)
    weights = sha256(folder / "model.safetensors")
    content = {"model": architecture.to_dict(), "model_sha256": weights, **description}
    write_json(folder / "config.json", content)
    checkpoint.remove()
