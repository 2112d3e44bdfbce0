"""What the config's block ``grn`` means: runs, parts, and what prunes; plain values alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

# The run that lacks some cells, to see how much hangs on them.
LEFT_OUT = "left_out"
# Share of the runs in which a regulon must be found, unless the config says in how many.
SHARE_OF_RUNS = 0.8


def seeds_of_runs(grn: Mapping[str, Any]) -> dict[str, int]:
    """Name the runs with their seeds: one a seed, and one that lacks cells, if asked for."""
    runs = {str(seed): seed for seed in grn["seeds"]}
    return runs | ({LEFT_OUT: grn["seeds"][0]} if grn["left_out_share"] else {})


def number_of_parts(grn: Mapping[str, Any]) -> int:
    """Say how many jobs share a run's genes; the ridge takes all of them at once."""
    return 1 if grn["method"] == "fast" else grn["parts"]


def promoters_prune(grn: Mapping[str, Any]) -> bool:
    """Tell whether edges that the chromatin does not support are dropped."""
    how = grn["promoter_evidence"]
    return how == "prune" or (how == "auto" and not grn["rankings"])


def runs_needed(grn: Mapping[str, Any]) -> int:
    """Say in how many runs a regulon must be found: as the config has it, or four of five."""
    return grn["min_runs"] or ceil(SHARE_OF_RUNS * len(grn["seeds"]))
