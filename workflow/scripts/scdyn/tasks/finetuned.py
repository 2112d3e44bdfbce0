"""Predictions of a fine-tuned task for new cells, for use in a notebook."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch

from scdyn.errors import InputError
from scdyn.io.artefacts import read_json
from scdyn.model.classifier import Classifier, load_classifier, run_classifier
from scdyn.model.pretrained import Pretrained
from scdyn.settings import MAIN
from scdyn.tasks.ensemble import Calibration, RunMean, calibrate_ensemble
from scdyn.tasks.metrics import apply_temperature

logger = logging.getLogger(__name__)

# Cells with a lower familiarity are flagged: one in a hundred of cells like the training cells.
UNFAMILIAR = 0.01


class FineTuned:
    """The fine-tuned models of a task, to predict any AnnData with overlapping genes.

    The runs of a fold with different seeds are averaged as one model, an ensemble, whose
    temperature and familiarity are fitted to the validation cells of this fold. These are training
    cells of the other folds, so nothing is fitted to the mean over the folds.

    Parameters
    ----------
    folder
        ``results/finetune/TASK``, for all runs (folds and seeds) of the main model, or the
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
        The pretrained model, which aligns cells to its genes.
    classes : list of str
        The classes of all runs.
    classifiers : list
        One per run.
    ensembles : list of tuple
        By fold, the classifiers of its runs and their
        :class:`~scdyn.tasks.ensemble.Calibration`.

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
            described = read_json(self.folders[0] / "task.json")
            model = self.folders[0] / described["model_folder"]
        self.pretrained = Pretrained(os.path.normpath(model), device)
        self.classifiers = [
            load_classifier(path, model).to(self.pretrained.device) for path in self.folders
        ]
        self.classes = sorted(set().union(*(one.classes for one in self.classifiers)))
        self.ensembles = self._gather_ensembles()

    def _gather_ensembles(self) -> list[tuple[list[Classifier], Calibration]]:
        by_fold: dict[str, list[tuple[int, str, Path, Classifier]]] = {}
        for folder, classifier in zip(self.folders, self.classifiers, strict=True):
            run = read_json(folder / "task.json")
            by_fold.setdefault(run["fold"], []).append(
                (run["seed"], run["variant"], folder, classifier)
            )
        ensembles = []
        for fold in sorted(by_fold):
            runs = sorted(by_fold[fold], key=lambda run: run[:3])
            folders = [folder for _, _, folder, _ in runs]
            classifiers = [classifier for *_, classifier in runs]
            if len(runs) > 1:
                calibration = calibrate_ensemble(folders, self.classes)
            elif classifiers[0].familiar is not None:
                calibration = Calibration(1.0, classifiers[0].familiar)
            else:
                raise InputError(
                    "MODEL",
                    f"{folders[0]}: has no familiar.safetensors; remove the folder and run the "
                    "workflow again.",
                )
            ensembles.append((classifiers, calibration))
        # The lowest familiarity is one over their number plus one.
        n_cells = min(len(calibration.familiar) for _, calibration in ensembles)
        if n_cells < 1 / UNFAMILIAR:
            logger.warning(
                "%d validation cells in a fold: with fewer than %d no cell can be flagged as "
                "unlike_seen; compare the values of familiarity instead",
                *(n_cells, 1 / UNFAMILIAR),
            )
        return ensembles

    def __repr__(self) -> str:
        """Summarise classes, runs and device."""
        return (
            f"FineTuned({len(self.classes)} classes: {', '.join(self.classes[:6])}"
            f"{', ...' if len(self.classes) > 6 else ''}; {len(self.classifiers)} runs, "
            f"on {self.pretrained.device})"
        )

    def predict(self, adata: ad.AnnData, min_overlap: float = 0.5) -> pd.DataFrame:
        """Predict cells by the ensemble of each fold; of several folds, by their mean.

        Parameters
        ----------
        adata, min_overlap
            See :meth:`scdyn.model.pretrained.Pretrained.tokens`.

        Returns
        -------
        DataFrame
            One row per cell: ``predicted``, ``confidence`` (its calibrated probability),
            ``familiarity`` (see :func:`scdyn.tasks.familiarity.compute_familiarity`),
            ``unlike_seen`` (familiarity below 0.01: the prediction is unreliable) and
            ``p_<class>``.

        Raises
        ------
        InputError
            As :meth:`scdyn.model.pretrained.Pretrained.tokens`.
        """
        store = self.pretrained.tokens(adata, min_overlap)
        total, familiar = np.zeros((adata.n_obs, len(self.classes))), np.zeros(adata.n_obs)
        for classifiers, calibration in self.ensembles:
            mean = RunMean(adata.n_obs, self.classes)
            for classifier in classifiers:
                raw, energies = run_classifier(classifier, store, np.arange(adata.n_obs))
                calibrated = apply_temperature(raw, classifier.temperature)
                columns = [f"p_{name}" for name in classifier.classes]
                mean.add(pd.DataFrame(calibrated, columns=columns).assign(energy=energies))
            of_fold, familiar_of_fold = calibration.apply(mean)
            total += of_fold
            familiar += familiar_of_fold
        n_folds = len(self.ensembles)
        p = pd.DataFrame(total / n_folds, index=adata.obs_names, columns=self.classes)
        familiar /= n_folds
        table = pd.DataFrame(
            {
                "predicted": p.idxmax(axis=1),
                "confidence": p.max(axis=1),
                "familiarity": familiar,
                "unlike_seen": familiar < UNFAMILIAR,
            }
        )
        return pd.concat([table, p.add_prefix("p_")], axis=1)
