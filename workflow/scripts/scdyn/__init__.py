"""scdyn: the library of the scDynOmics workflow.

In a notebook (docs/notebook.md), from raw files to genes:

1. ``scdyn.pp.ingest``, ``scdyn.pp.filter_cells``: counts of a sample, its good cells
2. ``scdyn.Corpus.write``: the samples together, on disk
3. ``scdyn.grn.infer_regulons``, ``corpus.add_regulons``: regulons of the cells
4. ``scdyn.pretrain``, then ``model.embed``: a model, and an embedding of cells
5. ``scdyn.finetune``, then ``task.predict``: labels of cells
6. ``scdyn.explain.attribute``: genes that decide a prediction

``scdyn.load`` opens a pretrained model and ``scdyn.load_task`` a fine-tuned one, of a notebook or
of the workflow.

Each package may import those above it in this table, and none imports snakemake (``make lint``
checks both):

==================  ==============================================================================
``scdyn``           errors, logging, hardware, and the entry points for notebooks
``scdyn.settings``  every setting, typed, with its default and meaning
``scdyn.io``        file formats, and atomic writing
``scdyn.pp``        preflight checks, ingestion, QC, normalisation, labels of cells
``scdyn.data``      the corpus: blocks of its cells, their components, batches for the model
``scdyn.grn``       gene regulatory networks: expression to edges to regulons to activity
``scdyn.model``     the transformer in plain torch: encoder, heads, adapters, inference
``scdyn.training``  the training loop, pretraining, checkpoints, several GPUs
``scdyn.tasks``     classification tasks: splits, fine-tuning, predictions, scores, baselines
``scdyn.explain``   attribution of predictions to genes, and checks of it
``scdyn.studies``   development, spatial and perturbation studies, as tables
``scdyn.plotting``  figures and pages from tables; nothing else imports matplotlib
``scdyn.config``    the workflow's config and sample sheet, read and checked
==================  ==============================================================================

The simulation of the embedded study is another package, ``scdyn_simulate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scdyn.lazy import attach
from scdyn.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from scdyn.data.corpus import Corpus
    from scdyn.model.pretrained import Pretrained
    from scdyn.notebook import finetune, pretrain
    from scdyn.tasks.finetuned import FineTuned

__all__ = ["Corpus", "__version__", "finetune", "load", "load_task", "pretrain"]
__getattr__, __dir__ = attach(
    __name__,
    {"Corpus": "data.corpus", "finetune": "notebook", "pretrain": "notebook"},
    packages=(
        "settings", "io", "pp", "data", "grn", "model", "training", "tasks", "explain", "studies",
        "plotting",
    ),
)  # fmt: skip


def load(folder: str | Path, device: str | None = None) -> Pretrained:
    """Open a pretrained model: see :class:`scdyn.model.pretrained.Pretrained`.

    Parameters
    ----------
    folder
        ``results/pretrain/NAME`` of a run of the workflow.
    device
        Device; by default a GPU if there is one.

    Returns
    -------
    Pretrained
        With ``embed(adata)`` and ``attention(adata)``.
    """
    from scdyn.model.pretrained import Pretrained

    return Pretrained(folder, device)


def load_task(
    folder: str | Path, model: str | Path | None = None, device: str | None = None
) -> FineTuned:
    """Open a fine-tuned task: see :class:`scdyn.tasks.finetuned.FineTuned`.

    Parameters
    ----------
    folder
        ``results/finetune/TASK`` of a run of the workflow, or the folder ``model`` of one run.
    model
        The pretrained model's folder; by default where the workflow wrote it.
    device
        Device; by default a GPU if there is one.

    Returns
    -------
    FineTuned
        With ``predict(adata)``.
    """
    from scdyn.tasks.finetuned import FineTuned

    return FineTuned(folder, model, device)
