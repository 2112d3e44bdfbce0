"""Predictions of a fine-tuned task for new cells, for use in a notebook."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch

from scdyn.errors import InputError
from scdyn.model.classifier import load_classifier, run_classifier
from scdyn.model.pretrained import Pretrained
from scdyn.settings import MAIN
from scdyn.tasks.familiarity import compute_familiarity
from scdyn.tasks.metrics import apply_temperature

# Cells with a lower familiarity are flagged: one in a hundred of cells like the training cells.
UNFAMILIAR = 0.01


class FineTuned:
    """The fine-tuned models of a task, to predict any AnnData with overlapping genes.

    Parameters
    ----------
    folder
        ``results/finetune/TASK``, to average the runs (folds and seeds) of the main model, or the
        folder ``model`` of one run; or several such folders.
    model
        The pretrained model's folder; by default the one that ``task.json`` names.
    device
        By default a GPU if there is one.

    Attributes
    ----------
    folders : list of Path
        The runs' models.
    pretrained : Pretrained
        The pretrained model, which converts cells to bins.
    classes : list of str
        The classes of all runs.
    classifiers : list
        One per run.

    Raises
    ------
    InputError
        If there is no fine-tuned model, or the files do not belong together.

    Examples
    --------
    >>> task = scdyn.load_task("results/finetune/fate")
    >>> task.predict(adata)[["predicted", "confidence", "unlike_seen"]]
    """

    def __init__(
        self,
        folder: str | Path | Sequence[Path],
        model: str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        if isinstance(folder, str | Path):
            folder = Path(folder)
            own = [folder] if (folder / "task.json").exists() else []
            self.folders = own or sorted(folder.glob(f"{MAIN}/*/model"))
        else:
            self.folders = list(folder)
        if not self.folders:
            raise InputError(
                "MODEL",
                f"{folder}: no fine-tuned model found; give results/finetune/TASK, or the folder "
                "'model' of one run in it.",
            )
        if model is None:
            described = json.loads((self.folders[0] / "task.json").read_text())
            model = self.folders[0] / described["model_folder"]
        self.pretrained = Pretrained(os.path.normpath(model), device)
        self.classifiers = [
            load_classifier(path, model).to(self.pretrained.device) for path in self.folders
        ]
        self.classes = sorted(set().union(*(one.classes for one in self.classifiers)))

    def __repr__(self) -> str:
        """Summarise classes, runs and device."""
        return (
            f"FineTuned({len(self.classes)} classes: {', '.join(self.classes[:6])}"
            f"{', ...' if len(self.classes) > 6 else ''}; {len(self.classifiers)} runs, "
            f"on {self.pretrained.device})"
        )

    def predict(self, adata: ad.AnnData, min_overlap: float = 0.5) -> pd.DataFrame:
        """Predict cells from the mean probability of the runs.

        Parameters
        ----------
        adata, min_overlap
            See :meth:`scdyn.model.pretrained.Pretrained.tokens`.

        Returns
        -------
        DataFrame
            One row per cell: ``predicted``, ``confidence`` (its calibrated probability),
            ``familiarity`` (see :func:`scdyn.tasks.familiarity.compute_familiarity`; mean of the
            runs), ``unlike_seen`` (familiarity below 0.01: the prediction is unreliable) and
            ``p_<class>``.

        Raises
        ------
        InputError
            As :meth:`scdyn.model.pretrained.Pretrained.tokens`.
        """
        store = self.pretrained.tokens(adata, min_overlap)
        total = pd.DataFrame(0.0, index=adata.obs_names, columns=self.classes)
        familiar = np.zeros(adata.n_obs)
        for classifier in self.classifiers:
            p, energies = run_classifier(classifier, store, np.arange(adata.n_obs))
            total[classifier.classes] += apply_temperature(p, classifier.temperature)
            familiar += compute_familiarity(classifier.familiar, energies)
        p = total / len(self.classifiers)
        familiar /= len(self.classifiers)
        table = pd.DataFrame(
            {
                "predicted": p.idxmax(axis=1),
                "confidence": p.max(axis=1),
                "familiarity": familiar,
                "unlike_seen": familiar < UNFAMILIAR,
            }
        )
        return pd.concat([table, p.add_prefix("p_")], axis=1)
