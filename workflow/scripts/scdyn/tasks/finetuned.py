"""A fine-tuned task in a notebook: cells in, calibrated calls out."""

from __future__ import annotations

import json
import os
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

# Cells of a familiarity below this are flagged: of cells like the training cells one in a hundred.
UNFAMILIAR = 0.01


class FineTuned:
    """A task's models, which call the cells of any AnnData with overlapping genes.

    Parameters
    ----------
    folder
        ``results/finetune/TASK``, whose main model's runs (folds and seeds) call together, or
        the folder ``model`` of one run.
    model
        The pretrained model's folder; by default where the workflow left it.
    device
        Where to run; a GPU if there is one, unless told otherwise.

    Attributes
    ----------
    pretrained : Pretrained
        The model that was adapted; it reads the cells.
    classes : list of str
        What is called.
    classifiers : list
        One a run.

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
        folder: str | Path,
        model: str | Path | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        folder = Path(folder)
        own = [folder] if (folder / "task.json").exists() else []
        folders = own or sorted(folder.glob(f"{MAIN}/*/model"))
        if not folders:
            raise InputError(
                "MODEL",
                f"{folder}: holds no fine-tuned model; give results/finetune/TASK, or the folder "
                "'model' of one run in it.",
            )
        if model is None:
            described = json.loads((folders[0] / "task.json").read_text())
            model = folders[0] / described["model_folder"]
        self.pretrained = Pretrained(os.path.normpath(model), device)
        self.classifiers = [
            load_classifier(path, model).to(self.pretrained.device) for path in folders
        ]
        self.classes = sorted(set().union(*(one.classes for one in self.classifiers)))

    def __repr__(self) -> str:
        """Say what it is."""
        return (
            f"FineTuned({len(self.classes)} classes: {', '.join(self.classes[:6])}"
            f"{', ...' if len(self.classes) > 6 else ''}; {len(self.classifiers)} runs, "
            f"on {self.pretrained.device})"
        )

    def predict(self, adata: ad.AnnData, min_overlap: float = 0.5) -> pd.DataFrame:
        """Call cells by the runs' mean probability.

        Parameters
        ----------
        adata, min_overlap
            See :meth:`scdyn.model.pretrained.Pretrained.tokens`.

        Returns
        -------
        DataFrame
            A row a cell: ``predicted``, ``confidence`` (its probability, at the temperature that
            fits validation cells), ``familiarity`` (share of the validation cells of which the
            model is as little sure of any class, mean of the runs), ``unlike_seen`` (familiarity
            below 0.01: the call is a guess) and ``p_<class>``.

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
        return table.join(p.add_prefix("p_"))
