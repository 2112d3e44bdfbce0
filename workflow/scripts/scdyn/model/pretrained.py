"""A pretrained model for notebooks: embedding, attention and regulons of an AnnData's cells."""

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
from torch import Tensor

from scdyn.data.loader import MemoryStore
from scdyn.data.tokens import TokenStore
from scdyn.errors import InputError, reading
from scdyn.io.files import Json, sha256
from scdyn.io.shards import hash_vocabulary
from scdyn.log import logger
from scdyn.model import decoding, embedding
from scdyn.model.architecture import ModelConfig
from scdyn.model.embedding import Encoder
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics
from scdyn.pp import counts
from scdyn.pp.reference import read_vocabulary

# Fewest genes of the model that cells must have, or half of them, if it has few.
FEWEST_GENES = 50
# Layers of an AnnData that may have promoter counts; the first that exists is used.
PROMOTER_LAYERS = ("promoter", "unspliced")
REMEDY = "give the folder of a model, or remove the file and run the workflow again"


def load_model(folder: str | Path, tokens: dict[str, Any] | None = None) -> Encoder:
    """Load a pretrained model from ``model.safetensors`` and ``config.json``, on the CPU.

    Parameters
    ----------
    folder
        Folder of the model.
    tokens
        ``meta`` of the tokens that the model will read.

    Raises
    ------
    InputError
        If a file is missing or damaged, the weights do not belong to the config, or the tokens
        have another vocabulary.
    """
    folder = Path(folder)
    content = read_config(folder)
    weights = read_tensors(folder / "model.safetensors", content["model_sha256"], "weights")
    if tokens:
        require_vocabulary(folder, content, tokens)
    config = ModelConfig.from_dict(content["model"])
    model = PaperModel(config) if config.architecture == "paper" else ScDynOmics(config)
    try:
        if isinstance(model, PaperModel):
            model.mean, model.components = weights["mean"], weights["components"]
        model.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise InputError(
            "MODEL",
            f"{folder}: model.safetensors does not fit config.json ({error}); pretrain again.",
        ) from error
    return model.eval()


def read_config(folder: Path) -> Json:
    """Read the ``config.json`` of a pretrained model."""
    path = folder / "config.json"
    with reading("MODEL", path, "cannot be read as a model's config", REMEDY):
        content = json.loads(path.read_text())
        ModelConfig.from_dict(content["model"]), content["model_sha256"], content["tokens"]
        return content


def read_tensors(path: Path, digest: str | None, what: str) -> dict[str, Tensor]:
    """Read tensors, and refuse a file with another hash than in the model's config."""
    with reading("MODEL", path, f"cannot be read as a model's {what}", REMEDY):
        tensors = load_file(path)
    if sha256(path) != digest:
        raise InputError(
            "MODEL",
            f"{path}: does not belong to its config.json; remove both and pretrain again.",
        )
    return tensors


def require_vocabulary(folder: Path, config: Json, tokens: Json) -> None:
    """Refuse tokens of another vocabulary than the model's."""
    if tokens["vocabulary_sha256"] != config["tokens"]["vocabulary_sha256"]:
        raise InputError(
            "MODEL",
            f"{folder}: pretrained with another vocabulary than that of the tokens; pretrain "
            "again.",
        )


class Pretrained:
    """A pretrained model that reads any AnnData with overlapping genes.

    It needs no training data, and its files cannot run code.

    Parameters
    ----------
    folder
        ``results/pretrain/NAME`` of a run of the workflow.
    device
        Device; by default a GPU if there is one.

    Attributes
    ----------
    folder : Path
        Its files.
    model : ScDynOmics or PaperModel
        In evaluation mode.
    config : dict
        Content of ``config.json``: architecture, training, hashes, versions.
    vocabulary : DataFrame
        Genes of the model, in its order (``gene_id``, ``symbol``, ``is_tf``, ``regulons``...).
    latents : Index
        Names of the latents of the last Full layer; those initialised as a regulon have its name.
    n_found : int
        Genes of the vocabulary found in the cells that were read last.

    Raises
    ------
    InputError
        If a file is missing, or the files do not belong together.

    Examples
    --------
    >>> model = scdyn.load("results/pretrain/hybrid")
    >>> adata.obsm["X_scdyn"] = model.embed(adata)
    >>> model.attention(adata)["Tbx6"]
    >>> model.regulons(adata)["Tbx6(+)"]
    """

    def __init__(self, folder: str | Path, device: str | torch.device | None = None) -> None:
        self.folder = folder = Path(folder)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = load_model(folder).to(self.device)
        self.config = read_config(folder)
        try:
            self.vocabulary = read_vocabulary(folder / "vocabulary.tsv")
        except (OSError, ValueError) as error:
            raise InputError(
                "MODEL",
                f"{folder}: vocabulary.tsv cannot be read ({error}); copy the folder again.",
            ) from error
        if hash_vocabulary(self.vocabulary) != self.config["tokens"]["vocabulary_sha256"]:
            raise InputError(
                "MODEL",
                f"{folder}: vocabulary.tsv is not the vocabulary that the model was pretrained "
                "with; copy the folder again.",
            )
        self.latents = pd.Index(self.config["latents"], name="latent")
        self.n_found = 0

    def __repr__(self) -> str:
        """Summarise the architecture."""
        config = self.model.config
        n_parameters = sum(p.numel() for p in self.model.parameters())
        return (
            f"Pretrained({config.n_genes:,} genes, {config.n_tfs:,} TFs, {config.n_layers} layers, "
            f"{len(self.latents)} latents, {n_parameters / 1e6:.2f} M parameters, on {self.device})"
        )

    @property
    def trained_without_promoters(self) -> bool:
        """Whether some training cells had no promoters, as measured or by promoter_dropout."""
        measured = self.config["n_training_cells_without_promoters"] == 0
        return not measured or self.config["settings"]["promoter_dropout"] > 0

    def tokens(self, adata: ad.AnnData, min_overlap: float = 0.5) -> MemoryStore:
        """Align the counts of cells to the model's genes.

        Genes are found by Ensembl id, with or without version, or by symbol, in ``var_names`` or
        a column of ``var``, whichever finds most. Genes that the cells lack are read as zero; the
        number of genes found is logged.

        Parameters
        ----------
        adata
            In memory or backed. Raw counts in ``layers["spliced"]``, ``layers["counts"]`` or ``X``,
            the first that exists, or ``.raw`` if ``X`` has no counts; promoter counts in
            ``layers["promoter"]`` (or ``["unspliced"]`` with spliced counts). Without these, or
            where ``obs["promoter_source"]`` is "none", promoters are read as not measured.
        min_overlap
            Smallest share of the genes (of the cells or the model, whichever has fewer) that
            must be found.

        Returns
        -------
        MemoryStore
            Counts, (cells, genes) per modality.

        Raises
        ------
        InputError
            If the values are not counts, or too few genes are found: less than ``min_overlap``, or
            less than 50 and less than half of the model's.
        """
        layer = next((name for name in PROMOTER_LAYERS if name in adata.layers), None)
        table = counts.extract_counts(adata, "adata", promoter_layer=layer)
        genes = self.vocabulary
        aligned = counts.align_genes(table.var, genes, min_overlap, "adata", "min_overlap")
        self.n_found = len(np.unique(aligned.indices))
        if self.n_found < min(FEWEST_GENES, len(genes) / 2):
            raise InputError(
                "GENES",
                f"adata: {self.n_found} of the model's {len(genes):,} genes were found, which are "
                "too few to tell cells apart; give all genes that were measured.",
            )
        measured = np.full(table.n_obs, "promoter" in table.layers)
        if "promoter" in table.layers:
            promoter = table.layers["promoter"] @ aligned
            if "promoter_source" in adata.obs:
                measured = counts.promoters_measured(adata.obs)
        else:
            promoter = sparse.csr_matrix((table.n_obs, len(genes)))
        if not measured.all() and not self.trained_without_promoters:
            logger.warning(
                "%d cells have no promoter counts, but all training cells of the model had; "
                "pretrain with promoter_dropout for such cells",
                (~measured).sum(),
            )
        return MemoryStore(
            sparse.csr_matrix(table.X @ aligned), sparse.csr_matrix(promoter), measured
        )

    def embed(self, adata: ad.AnnData, min_overlap: float = 0.5) -> np.ndarray:
        """Embed cells; see :func:`scdyn.model.embedding.embed`.

        Parameters
        ----------
        adata, min_overlap
            See :meth:`tokens`.

        Returns
        -------
        ndarray of float32, (cells, 64)
            For ``sc.pp.neighbors``. At most 128 numbers by the architecture of the paper.

        Raises
        ------
        InputError
            As :meth:`tokens`.
        """
        store = self.tokens(adata, min_overlap)
        return embedding.embed(self.model, store, np.arange(adata.n_obs))

    def embed_corpus(
        self, store: TokenStore, path: str | Path, parts: str | Path | None = None
    ) -> None:
        """Embed all cells of a corpus and write the embedding; see :meth:`embed`.

        Parameters
        ----------
        store
            The corpus, such as ``corpus.store``.
        path, parts
            See :func:`scdyn.model.embedding.write_embedding`; the parts are written beside the
            embedding if None.

        Raises
        ------
        InputError
            If the corpus has another vocabulary than the model.
        """
        require_vocabulary(self.folder, self.config, store.meta)
        embedding.write_embedding(
            self.model,
            store,
            path,
            Path(parts or Path(path).with_suffix(".parts")),
            self.config["model_sha256"],
        )

    def attention(self, adata: ad.AnnData, min_overlap: float = 0.5) -> pd.DataFrame:
        """Compute the attention of a cell's genes to each latent.

        Parameters
        ----------
        adata, min_overlap
            See :meth:`tokens`.

        Returns
        -------
        DataFrame, (cells, latents)
            The sum per cell is 1; see :func:`scdyn.model.embedding.attention_to_latents`.

        Raises
        ------
        InputError
            As :meth:`tokens`.
        """
        store = self.tokens(adata, min_overlap)
        shares = embedding.attention_to_latents(self.model, store, np.arange(adata.n_obs))
        return pd.DataFrame(shares, index=adata.obs_names, columns=self.latents)

    def regulons(self, adata: ad.AnnData, min_overlap: float = 0.5) -> pd.DataFrame:
        """Score the activity of the vocabulary's regulons, from the expression the model predicts.

        Parameters
        ----------
        adata, min_overlap
            See :meth:`tokens`.

        Returns
        -------
        DataFrame of float32, (cells, regulons)
            log2 relative to the mean profile; see :func:`scdyn.model.decoding.score_regulons`.

        Raises
        ------
        InputError
            As :meth:`tokens`, or if the architecture is the paper's, which predicts no profile.
        """
        if not isinstance(self.model, ScDynOmics):
            raise InputError(
                "MODEL",
                f"{self.folder}: architecture: paper predicts no expression of whole cells, from "
                "which regulons could be scored; pretrain with architecture: expressed.",
            )
        store, members = self.tokens(adata, min_overlap), decoding.list_members(self.vocabulary)
        scores = decoding.score_regulons(self.model, store, np.arange(adata.n_obs), members)
        return pd.DataFrame(scores, index=adata.obs_names, columns=members.columns)
