"""The embedded study: a simulated embryo, written as Cell Ranger ARC would write it."""

from scdyn.lazy import attach

_HOMES = {"Simulation": "parameters", "simulate_study": "study"}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = attach(__name__, _HOMES)
