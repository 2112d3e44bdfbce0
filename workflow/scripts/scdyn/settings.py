"""Which settings decide a result, and which only how fast it is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Where and in what portions a model runs. They are no params of a rule: none remakes anything.
HARDWARE = ("gpus", "nodes", "micro_batch", "compiled", "attribution_memory")


def decisive(block: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the settings of hardware out of a block of the config and its ``training``.

    Elsewhere in a block the same words are names, such as a covariate ``nodes`` of lymph nodes.
    """
    return {
        key: decisive(value) if key == "training" else value
        for key, value in block.items()
        if key not in HARDWARE
    }


def with_hardware(chosen: Mapping[str, Any], block: Mapping[str, Any]) -> dict[str, Any]:
    """Put the settings of hardware of a block of the config into what :func:`decisive` left of it.

    Parameters
    ----------
    chosen
        A rule's params: :func:`decisive` of the block, of parts of it or of a variant of it.
    block
        The block of the config, with all defaults.
    """
    result = {
        key: with_hardware(value, block[key]) if key == "training" else value
        for key, value in chosen.items()
    }
    return result | {key: block[key] for key in HARDWARE if key in block}
