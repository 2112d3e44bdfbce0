"""The training loop, pretraining, checkpoints, several GPUs."""

from scdyn.lazy import attach

_HOMES = {
    "TrainingConfig": "loop",
    "Training": "loop",
    "Checkpoint": "checkpoint",
    "pretrain": "pretraining",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
