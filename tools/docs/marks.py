"""Put what commands have found between the marks of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping


def fill(page: str, blocks: Mapping[str, str]) -> str:
    """Replace what stands between a block's marks: ``<!-- NAME -->`` and ``<!-- end -->``.

    Parameters
    ----------
    page
        Markdown.
    blocks
        Markdown by the name of its mark; one that the page has no mark for is left out.
    """
    for name, text in blocks.items():
        pattern = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)"
        page = re.sub(pattern, lambda m, text=text: f"{m[1]}\n{text}\n\n{m[2]}", page, flags=re.S)
    return page
