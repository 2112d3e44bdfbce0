"""A pretrained model in a notebook: cells in, embedding and attention out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from scipy import sparse

from scdyn.data.loader import MemoryStore
from scdyn.data.tokens import MODALITIES, bin_values, hash_vocabulary
from scdyn.errors import InputError, reading
from scdyn.io.files import sha256
from scdyn.log import logger
from scdyn.model import embedding
from scdyn.model.architecture import ModelConfig
from scdyn.model.transformer import ScDynOmics
from scdyn.pp import counts
from scdyn.pp.reference import read_vocabulary

# In which of these promoter counts stand in an AnnData: the first that is there.
PROMOTER_LAYERS = ("promoter", "unspliced")


def load_model(folder: str | Path, tokens: dict[str, Any] | None = None) -> ScDynOmics:
    """Load a pretrained model from ``model.safetensors`` and ``config.json``, on the CPU.

    Parameters
    ----------
    folder
        A model's folder.
    tokens
        ``meta`` of the tokens that it is to read.

    Raises
    ------
    InputError
        If a file is missing or damaged, the weights are not those of the config, or the tokens
        stand on another vocabulary.
    """
    folder = Path(folder)
    described, weighed = folder / "config.json", folder / "model.safetensors"
    remedy = "name a model's folder, or remove the file and run the workflow again"
    with reading("MODEL", described, "describes no model that can be read", remedy):
        content = json.loads(described.read_text())
        config = ModelConfig.from_dict(content["model"])
        digest = content["model_sha256"]
    with reading("MODEL", weighed, "holds no weights that can be read", remedy):
        weights = load_file(weighed)
    if sha256(weighed) != digest:
        raise InputError(
            "MODEL",
            f"{weighed}: does not belong to its config.json; remove both and pretrain again.",
        )
    if tokens and tokens["vocabulary_sha256"] != content["tokens"]["vocabulary_sha256"]:
        raise InputError(
            "MODEL",
            f"{folder}: was trained on another vocabulary than these tokens'; pretrain again.",
        )
    model = ScDynOmics(config)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(
            "MODEL", f"{folder}: weights and config.json do not fit ({error})."
        ) from error
    return model.eval()


class Pretrained:
    """A pretrained model that reads any AnnData with overlapping genes.

    Nothing of the training data is needed, and nothing that is loaded can run code.

    Parameters
    ----------
    folder
        ``results/pretrain/NAME`` of a run of the workflow.
    device
        Where to run; a GPU if there is one, unless told otherwise.

    Attributes
    ----------
    model : ScDynOmics
        In evaluation mode.
    config : dict
        What made it: architecture, training, hashes, versions.
    vocabulary : DataFrame
        The genes it reads, in its order (``gene_id``, ``symbol``, ``is_tf``, ``regulons``...).
    latents : Index
        Names of the latents of its last Full layer; those that began as a regulon have its
        name.
    n_found : int
        Genes of the vocabulary that the cells last read had.

    Raises
    ------
    InputError
        If a file is missing, or the files do not belong together.

    Examples
    --------
    >>> model = scdyn.load("results/pretrain/hybrid")
    >>> adata.obsm["X_scdyn"] = model.embed(adata)
    >>> model.attention(adata)["Tbx6"]
    """

    def __init__(self, folder: str | Path, device: str | torch.device | None = None) -> None:
        folder = Path(folder)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = load_model(folder).to(self.device)
        self.config = json.loads((folder / "config.json").read_text())
        try:
            self.vocabulary = read_vocabulary(folder / "vocabulary.tsv")
        except (OSError, ValueError) as error:
            raise InputError(
                "MODEL", f"{folder}: has no vocabulary that can be read ({error})."
            ) from error
        if hash_vocabulary(self.vocabulary) != self.config["tokens"]["vocabulary_sha256"]:
            raise InputError(
                "MODEL", f"{folder}: vocabulary.tsv is not the one the model was trained on."
            )
        self.latents = pd.Index(self.config["latents"], name="latent")
        self.n_found = 0

    def __repr__(self) -> str:
        """Say what it is."""
        config = self.model.config
        n_parameters = sum(p.numel() for p in self.model.parameters())
        return (
            f"Pretrained({config.n_genes:,} genes, {config.n_tfs:,} TFs, {config.n_layers} layers, "
            f"{len(self.latents)} latents, {n_parameters / 1e6:.2f} M parameters, on {self.device})"
        )

    @property
    def trained_without_promoters(self) -> bool:
        """Whether it was pretrained on cells whose promoters were not measured, or hidden."""
        config = self.config
        return bool(config["n_learned_without_promoters"] or config["settings"]["promoter_dropout"])

    def tokens(self, adata: ad.AnnData, min_overlap: float = 0.5) -> MemoryStore:
        """Bring cells to the model's genes and bin their values.

        Genes are found by Ensembl id, with or without version, or by symbol, in ``var_names`` or
        a column of ``var``, whichever finds most; those that the cells lack are read as zero, and
        how many were found is logged.

        Parameters
        ----------
        adata
            In memory or backed. Raw counts: ``layers["spliced"]``, ``layers["counts"]`` or ``X``,
            the first that is there, or ``.raw`` if ``X`` holds no counts; promoter counts in
            ``layers["promoter"]`` (or ``["unspliced"]`` beside spliced counts). Without these, or
            where ``obs["promoter_source"]`` is "none", promoters are read as not measured.
        min_overlap
            Smallest share of the genes (of the cells or the model, whichever has fewer) that
            must be found.

        Returns
        -------
        MemoryStore
            Bins, (cells, genes) a modality.

        Raises
        ------
        InputError
            If the values are no counts, or too few genes are found.
        """
        layer = next((name for name in PROMOTER_LAYERS if name in adata.layers), None)
        table = counts.extract_counts(adata, "adata", promoter_layer=layer)
        genes = self.vocabulary
        aligned = counts.align_genes(table, genes, min_overlap, "adata", "min_overlap")
        self.n_found = len(np.unique(aligned.indices))
        measured = np.full(table.n_obs, "promoter" in table.layers)
        if "promoter" in table.layers:
            promoter = table.layers["promoter"] @ aligned
            if "promoter_source" in adata.obs:
                measured = counts.promoters_measured(adata.obs)
        else:
            promoter = sparse.csr_matrix((table.n_obs, len(genes)))
        if not measured.all() and not self.trained_without_promoters:
            logger.warning(
                "%d cells have no promoter counts, and the model has learned from none such; "
                "pretrain with promoter_dropout for these",
                (~measured).sum(),
            )
        cells = ad.AnnData(table.X @ aligned, var=genes.set_index("gene_id"))
        cells.layers["promoter"] = sparse.csr_matrix(promoter)
        counts.normalise(cells)
        n_bins = self.model.config.n_bins
        rna, promoters = (bin_values(cells.layers[name], n_bins) for name in MODALITIES.values())
        return MemoryStore(rna, promoters, measured)

    def embed(self, adata: ad.AnnData, min_overlap: float = 0.5) -> np.ndarray:
        """Embed cells; see :func:`scdyn.model.embedding.embed`.

        Parameters
        ----------
        adata, min_overlap
            See :meth:`tokens`.

        Returns
        -------
        ndarray of float32, (cells, latents x head width)
            Reduce it as you would genes: ``sc.pp.pca``, then ``sc.pp.neighbors``.

        Raises
        ------
        InputError
            As :meth:`tokens`.
        """
        store = self.tokens(adata, min_overlap)
        return embedding.embed(self.model, store, np.arange(adata.n_obs))

    def attention(self, adata: ad.AnnData, min_overlap: float = 0.5) -> pd.DataFrame:
        """Tell which latents a cell's genes attend to.

        Parameters
        ----------
        adata, min_overlap
            See :meth:`tokens`.

        Returns
        -------
        DataFrame, (cells, latents)
            Shares that sum to one; see :func:`scdyn.model.embedding.attention_to_latents`.

        Raises
        ------
        InputError
            As :meth:`tokens`.
        """
        store = self.tokens(adata, min_overlap)
        shares = embedding.attention_to_latents(self.model, store, np.arange(adata.n_obs))
        return pd.DataFrame(shares, index=adata.obs_names, columns=self.latents)
