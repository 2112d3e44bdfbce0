"""A question with labels: split, fit, predict, score, compare with baselines."""

from scdyn.lazy import attach

_HOMES = {
    "split_task": "splits",
    "make_splits": "splits",
    "finetune_run": "finetuning",
    "FineTuned": "finetuned",
    "fit_baselines": "baselines",
    "read_predictions": "predictions",
    "evaluate": "evaluation",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
