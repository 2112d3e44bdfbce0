"""scdyn: the library behind the scDynOmics workflow.

In a notebook, :func:`load` opens a pretrained model and :func:`load_task` a fine-tuned one. Each
module is one stage of the data's way: reference, counts, tenx, ingest, corpus, grn, tokens, loader,
model, training, pretraining, pretrained, embedding, adapters, classifier, finetune, evaluation,
explain, studies. Nothing here imports snakemake, and nothing is imported at the top that the
environment of another stage would lack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scdyn.model.pretrained import Pretrained
    from scdyn.tasks.finetuned import FineTuned

__version__ = "0.1.0"


def load(folder: str | Path, device: str | None = None) -> Pretrained:
    """Open a pretrained model: see :class:`scdyn.model.pretrained.Pretrained`.

    Parameters
    ----------
    folder
        ``results/pretrain/NAME`` of a run of the workflow.
    device
        Where to run; a GPU if there is one, unless told otherwise.

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
        The pretrained model's folder; by default where the workflow left it.
    device
        Where to run; a GPU if there is one, unless told otherwise.

    Returns
    -------
    FineTuned
        With ``predict(adata)``.
    """
    from scdyn.tasks.finetuned import FineTuned

    return FineTuned(folder, model, device)
