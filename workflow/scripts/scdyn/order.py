"""The order in which people count."""

from __future__ import annotations

import re


def natural(text: str) -> tuple[tuple[tuple[str, int], ...], str]:
    """Key to sort names by, with the numbers in them as numbers: lane2 stands before lane10."""
    parts = re.findall(r"(\D*)(\d*)", text)
    # lane2 and lane02 are one but for the last.
    return tuple((words, int(number or -1)) for words, number in parts), text
