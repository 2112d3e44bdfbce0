"""Which genes decide a prediction, and whether to believe it."""

from scdyn.lazy import attach

_HOMES = {
    "attribute": "task",
    "integrated_gradients": "attribution",
    "explain_task": "runs",
    "rank_drivers": "drivers",
    "check_task": "checks",
    "perturb_task": "in_silico",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
