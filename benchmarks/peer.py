"""One measurement of the authors' package, scdynomics 0.0.1, used as documented.

``python peer.py WHAT SIZE FOLDER [DEVICE]`` in the environment of peer.yaml.
"""

import logging
import sys
import warnings
from pathlib import Path

import torch
from sizes import (
    EXPRESSED_SHARE,
    LOADER_BATCH,
    MASK_SHARE,
    N_CLASSES,
    N_HEADS,
    N_STEPS,
    SIZES,
    WIDTH,
)
from worker import serve

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

from scdynomics.building_blocks import Clf_Explainer  # noqa: E402
from scdynomics.ft.classifier import FT_MLP_Classifier  # noqa: E402
from scdynomics.pt import Masked_Pretrainer  # noqa: E402
from scdynomics.utils.data import Multimodal_Corpus  # noqa: E402


def make(size):
    """Make a model and a batch of log-normalised values."""
    s = SIZES[size]
    genes = {f"g{i}": i for i in range(s["n_genes"])}
    tokens = {"common": {"<MASK>": 0, "<PAD>": 1}, "n_tf": {"x": s["n_tfs"]}, "x": genes}
    torch.manual_seed(0)
    model = Masked_Pretrainer(
        train_mode="bin", species="x", token_dict=tokens, input_drop_prob=MASK_SHARE, value_bins=15,
        embed_dim=WIDTH, num_heads=N_HEADS, projection_len=s["n_latents"],
        dim_feedforward=s["ffn_width"], num_layers=s["n_layers"],
        switch_tf_proj_layer=[True, False], one_kv_head=True, share_kv=True,
    )  # fmt: skip
    shape = (s["batch"], 2, s["n_genes"])
    values = (torch.rand(shape) < EXPRESSED_SHARE) * torch.rand(shape) * 9
    return model, values


def train(size, _, device):
    model, values = make(size)
    model, values = model.to(device), values.to(device)
    optimizer = model.configure_optimizers()["optimizer"]

    def step():
        loss = model.training_step(values, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step, len(values)


def infer(size, _, device):
    model, values = make(size)
    model, values = model.to(device).eval(), values.to(device)

    def forward():
        with torch.no_grad():
            logits, _, _ = model(model.vbinnig(values))
        logits[0].sum().item()

    return forward, len(values)


def explain(size, _, device):
    model, values = make(size)
    classifier = FT_MLP_Classifier(
        base_model=model, lora_type="adapter", lora_latent_dim=8, pool_method="attn",
        n_decision_layers=2, decision_hidden_dim=128, n_classes=N_CLASSES,
    )  # fmt: skip
    explainer = Clf_Explainer(
        model=classifier, exp_batch_size=5, n_dataloader_workers=0, device=device,
        explain_step=N_STEPS,
    )  # fmt: skip
    classifier.eval()
    classifier.explaining(mode=True)
    return lambda: explainer(0, dataloader=[values[:1]]), 1


def load(_, folder, device):
    """Load shuffled batches as its pretraining pipeline does, with one worker per core."""
    corpus = Multimodal_Corpus(
        str(Path(folder) / "cells.h5ad"), layers=["X", "pan_promoter"], backed=False
    )
    loader = torch.utils.data.DataLoader(
        corpus, num_workers=2, batch_size=LOADER_BATCH, shuffle=True
    )
    return lambda: [None for _ in loader], len(corpus)


if __name__ == "__main__":
    what, size, folder, device = sys.argv[1:]
    # As its pipelines set it.
    torch.set_float32_matmul_precision("medium")
    measured = {"train": train, "infer": infer, "explain": explain, "load": load}[what]
    serve(*measured(size, folder, device), device)
