"""Adapters for fine-tuning: LoRA (peft), the paper's non-linear modules, all parameters, none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from scdyn.model.layers import Linear
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics

if TYPE_CHECKING:
    from peft import PeftModel

Encoder = ScDynOmics | PaperModel

# Linear layers of attention and feed-forward that get adapters, as in the paper.
ADAPTED = ("query", "key_value", "output", "ffn_in", "ffn_out")
NONLINEAR_FILE, ENCODER_FILE = "adapter_nonlinear.safetensors", "encoder.safetensors"


class NonLinear(nn.Module):
    """A frozen linear layer plus a low-rank non-linear module (the paper's adapter).

    The module starts at zero, so that the output does not change at first. In the released package
    it does, because its wrapper drops the residual.
    """

    def __init__(self, base: Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = Linear(base.in_features, rank)
        self.up = Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (..., n) to (..., m) of the same type."""
        return self.base(tokens) + self.up(functional.gelu(self.down(tokens)))


def adapted_layers(model: nn.Module) -> list[tuple[nn.Module, str, Linear]]:
    """List the layers that get adapters: parent module, name in the parent, layer."""
    return [
        (holder, name, layer)
        for holder in model.modules()
        for name, layer in holder.named_children()
        if name in ADAPTED and isinstance(layer, Linear)
    ]


def adapt(model: Encoder, how: str, rank: int) -> PeftModel | Encoder:
    """Prepare an encoder for fine-tuning; its output does not change.

    Parameters
    ----------
    model
        Changed in place.
    how
        Parameters to train. ``lora``: low-rank modules by peft (Hu et al. 2021), scaled by 2;
        ``nonlinear``: :class:`NonLinear`; ``full``: all parameters; ``none``: no parameter.
    rank
        Rank of the modules.
    """
    if how == "lora":
        from scdyn.model import lora

        return lora.add_modules(model, rank)
    model.requires_grad_(how == "full")
    if how == "nonlinear":
        for holder, name, layer in adapted_layers(model):
            setattr(holder, name, NonLinear(layer, rank))
        model.to(next(model.parameters()).device)
    return model


def save_adapter(encoder: PeftModel | Encoder, how: str, whole: bool, folder: Path) -> None:
    """Write the weights that fine-tuning added or changed.

    Parameters
    ----------
    encoder
        As :func:`adapt` returned it.
    how
        As in :func:`adapt`.
    whole
        Write the whole encoder as well, because it did not start from the pretrained weights.
    folder
        An existing folder; peft's two files, ``adapter_nonlinear.safetensors`` or
        ``encoder.safetensors`` are written to it.
    """
    if how == "lora":
        from scdyn.model import lora

        lora.save_modules(encoder, folder)
    base = encoder if isinstance(encoder, Encoder) else encoder.get_base_model()
    weights = {name: p.detach().cpu().contiguous() for name, p in base.state_dict().items()}
    added = {name: p for name, p in weights.items() if ".down." in name or ".up." in name}
    if how == "nonlinear":
        save_file(added, folder / NONLINEAR_FILE)
    if whole or how == "full":
        plain = {
            name.replace(".base_layer.", ".").replace(".base.", "."): p
            for name, p in weights.items()
            if name not in added and "lora_" not in name
        }
        save_file(plain, folder / ENCODER_FILE)


def load_adapter(model: Encoder, how: str, rank: int, folder: Path) -> PeftModel | Encoder:
    """Load the files of :func:`save_adapter` into a pretrained model.

    Raises
    ------
    OSError, RuntimeError, SafetensorError, ValueError
        If a file is missing, damaged, or belongs to another model.
    """
    if (folder / ENCODER_FILE).exists():
        model.load_state_dict(load_file(folder / ENCODER_FILE))
    if how == "lora":
        from scdyn.model import lora

        model = adapt(model, how, rank)
        lora.load_modules(model, folder)
    if how == "nonlinear":
        model = adapt(model, how, rank)
        model.load_state_dict(load_file(folder / NONLINEAR_FILE), strict=False)
    return model


def merge_adapters(encoder: PeftModel | Encoder) -> Encoder:
    """Add LoRA modules to the weights, in place; other encoders are returned unchanged.

    A merged encoder can be neither trained nor saved.
    """
    return encoder if isinstance(encoder, Encoder) else encoder.merge_and_unload()


def reinitialise(model: Encoder, seed: int) -> Encoder:
    """Reinitialise all parameters in place, for a baseline without pretraining."""
    torch.manual_seed(seed)
    model.initialise()
    return model
