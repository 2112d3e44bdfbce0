"""Generated blocks of a page, between ``<!-- NAME -->`` and ``<!-- end -->``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

BLOCK = re.compile(r"(<!-- ([\w.]+) -->\n).*?(<!-- end -->)", re.S)


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """Replace the text of every block of a page.

    Parameters
    ----------
    page
        Markdown.
    blocks
        Markdown by the name of its block.

    Raises
    ------
    KeyError
        If the page has a block that is not in ``blocks``.
    """
    return BLOCK.sub(lambda m: f"{m[1]}\n{blocks[m[2]]}\n\n{m[3]}", page)


def make_table(head: Sequence[str], body: Iterable[Sequence[str]], text: int = 1) -> str:
    """Make a Markdown table; the first ``text`` columns are text, the others numbers."""
    rule = "---|" * text + "--:|" * (len(head) - text)
    lines = [f"| {' | '.join(head)} |", f"|{rule}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in body)])
