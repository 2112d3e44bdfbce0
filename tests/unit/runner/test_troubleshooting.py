"""Every sentence of refusal in the library has its place in docs/troubleshooting.md."""

import re
from pathlib import Path

from sentences import GAP, sentences

PAGE = Path(__file__).parents[3] / "docs/troubleshooting.md"


def entries():
    """Patterns of the sentences in the first column of the page's tables."""
    ours = PAGE.read_text().split("\n## Snakemake's own")[0]
    first = [line.split(" | ")[0] for line in ours.splitlines() if line[:3] == "| `"]
    quoted = [text for cell in first for text in re.findall(r"`(.+?)`", cell)]
    # One without enough words of its own would fit anything.
    assert all(len(re.sub(r"\W", "", text)) >= 6 for text in quoted)
    return [re.compile(re.escape(text).replace(GAP, ".*")) for text in quoted]


def test_every_sentence_of_refusal_is_explained():
    explained, found = entries(), list(sentences())
    assert len(found) > 100
    missing = [(where, text) for where, text in found if not any(e.search(text) for e in explained)]
    assert not missing, "these need a place in docs/troubleshooting.md"


def test_every_entry_is_of_a_sentence():
    found = [text for _, text in sentences()]
    assert not [e.pattern for e in entries() if not any(e.search(text) for text in found)]
