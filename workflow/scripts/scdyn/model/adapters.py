"""Ways to change a pretrained encoder: LoRA by peft, the paper's non-linear modules, all, none."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.tuners import lora
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from scdyn.io.files import write_json
from scdyn.model.transformer import Linear, ScDynOmics

# Attention and feed-forward of every layer, as in the paper.
ADAPTED = ("query", "key_value", "output", "ffn_in", "ffn_out")
NONLINEAR_FILE, ENCODER_FILE = "adapter_nonlinear.safetensors", "encoder.safetensors"
LORA_FILE = "adapter_model.safetensors"  # as peft calls it


class FusedLora(lora.Linear):
    """peft's LoRA without dropout, as one product with W + s B A in place of three products.

    Fine-tuning of a narrow model takes a quarter less time.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., n) to (..., m) in the tokens' type."""
        if self.disable_adapters or self.merged:
            return super().forward(tokens)
        layer = self.base_layer
        weight = layer.weight + sum(map(self.get_delta_weight, self.active_adapters))
        bias = None if layer.bias is None else layer.bias.to(tokens.dtype)
        return functional.linear(tokens, weight.to(tokens.dtype), bias)


class NonLinear(nn.Module):
    """A frozen linear layer with a low-rank non-linear module added to it (the paper's adapter).

    It starts at zero, so that the wrapped layer equals the given one: the released package's
    wrapper does not (it drops the residual).
    """

    def __init__(self, base: Linear, rank: int) -> None:
        super().__init__()
        self.base = base
        self.down = Linear(base.in_features, rank)
        self.up = Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (..., n) to (..., m) in the tokens' type."""
        return self.base(tokens) + self.up(functional.gelu(self.down(tokens)))


def adapted_layers(model: nn.Module) -> list[tuple[nn.Module, str, Linear]]:
    """List the layers that are adapted: the module that holds each, its name there, and it."""
    return [
        (holder, name, layer)
        for holder in model.modules()
        for name, layer in holder.named_children()
        if name in ADAPTED and isinstance(layer, Linear)
    ]


def adapt(model: ScDynOmics, how: str, rank: int) -> PeftModel | ScDynOmics:
    """Make a model trainable in one of four ways; it computes what it did before.

    Parameters
    ----------
    model
        Changed in place.
    how
        ``lora``: modules by peft (Hu et al. 2021), scaled by two; ``nonlinear``:
        :class:`NonLinear`; ``full``: every parameter; ``none``: the encoder is frozen.
    rank
        Of the modules.
    """
    if how == "lora":
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(ADAPTED))
        config._register_custom_module({Linear: FusedLora})
        return get_peft_model(model, config)
    model.requires_grad_(how == "full")
    if how == "nonlinear":
        for holder, name, layer in adapted_layers(model):
            setattr(holder, name, NonLinear(layer, rank))
        model.to(next(model.parameters()).device)
    return model


def save_adapter(encoder: PeftModel | ScDynOmics, how: str, whole: bool, folder: Path) -> None:
    """Write what :func:`adapt` and training changed into an existing folder.

    Parameters
    ----------
    encoder, how
        As :func:`adapt` returned it, and the way.
    whole
        Write all of the encoder, too: it did not start from the pretrained weights.
    folder
        Receives peft's two files, ``adapter_nonlinear.safetensors`` or ``encoder.safetensors``.
    """
    if how == "lora":
        encoder.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        # peft writes a set in any order; two runs are to be the same.
        config = json.loads((folder / "adapter_config.json").read_text())
        write_json(folder / "adapter_config.json", config | {"target_modules": sorted(ADAPTED)})
    base = encoder.get_base_model() if isinstance(encoder, PeftModel) else encoder
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


def load_adapter(model: ScDynOmics, how: str, rank: int, folder: Path) -> PeftModel | ScDynOmics:
    """Bring a pretrained model to the state that :func:`save_adapter` wrote.

    Raises
    ------
    OSError, RuntimeError, SafetensorError, ValueError
        If a file is missing, damaged, or of another model.
    """
    if (folder / ENCODER_FILE).exists():
        model.load_state_dict(load_file(folder / ENCODER_FILE))
    if how == "lora":
        # Not by peft's loader: it does what adapter_config.json says, which can name modules to
        # import, reads pickles where there is no safetensors file, and asks a hub.
        model = adapt(model, how, rank)
        weights = load_file(folder / LORA_FILE)
        if weights.keys() != get_peft_model_state_dict(model).keys():
            raise ValueError(f"{LORA_FILE} is of other layers")
        set_peft_model_state_dict(model, weights)
    if how == "nonlinear":
        model = adapt(model, how, rank)
        model.load_state_dict(load_file(folder / NONLINEAR_FILE), strict=False)
    return model


def merge_adapters(encoder: PeftModel | ScDynOmics) -> ScDynOmics:
    """Add LoRA's modules to the weights; what cannot be merged is returned as it is.

    In place; what is merged can be neither trained on nor saved.
    """
    return encoder.merge_and_unload() if isinstance(encoder, PeftModel) else encoder


def reinitialise(model: ScDynOmics, seed: int) -> ScDynOmics:
    """Draw all parameters anew, in place: the encoder that pretraining is compared with."""
    torch.manual_seed(seed)
    model.initialise()
    return model
