"""Natural sort order."""

from __future__ import annotations

import re


def natural_key(text: str) -> tuple[tuple[tuple[str, int], ...], str]:
    """Return a sort key that compares numbers in a name by value: lane2 before lane10."""
    parts = re.findall(r"(\D*)(\d*)", text)
    # The text itself breaks the tie of lane2 and lane02.
    return tuple((words, int(number or -1)) for words, number in parts), text
