"""scdyn: the library behind the scDynOmics workflow.

In a notebook, :func:`load` opens a pretrained model. Each module is one stage of the data's way:
reference, counts, tenx, ingest, corpus, grn, tokens, loader, model, training, pretraining,
embedding, finetune, evaluation, explain, studies. Nothing here imports snakemake, and nothing is
imported at the top that the environment of another stage would lack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from scdyn.pretrained import Pretrained

__version__ = "0.1.0"


def load(folder: str | Path, device: str | None = None) -> Pretrained:
    """Open a pretrained model: see :class:`scdyn.pretrained.Pretrained`.

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
    from scdyn.pretrained import Pretrained

    return Pretrained(folder, device)
