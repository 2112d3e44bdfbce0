"""docs/troubleshooting.md has a section for every code of an error, and for no other."""

import re
from pathlib import Path

from scdyn.errors import CODES

PAGE = Path(__file__).parents[3] / "docs/troubleshooting.md"
LIBRARY = Path(__file__).parents[3] / "workflow/scripts/scdyn"


def test_every_code_has_its_anchor_and_its_section():
    text = PAGE.read_text()
    sections = re.findall(r'^<a id="scd-(\w+)"></a>\n## SCD-(\w+): ', text, re.M)
    assert [anchor.upper() for anchor, _ in sections] == [code for _, code in sections]
    assert {code for _, code in sections} == set(CODES) and len(sections) == len(CODES)
    assert text.count('<a id="scd-') == len(sections)


def test_sentences_of_mixed_files_are_those_of_the_code():
    """Of SCD-CORPUS, whose messages are of several modules."""
    (section,) = re.findall(r"^## SCD-CORPUS:.*?(?=^<a id|\Z)", PAGE.read_text(), re.M | re.S)
    code = "".join(path.read_text() for path in LIBRARY.rglob("*.py"))
    # A sentence may go on in the next string, or after a value.
    code = re.sub(r'"\s*f?"', "", code)
    quoted = re.findall(r"^- (.*?): ", section.replace("\n  ", " "), re.M)
    sentences = [part for text in quoted for part in re.findall(r"`(.*?)`", text)]
    assert len(sentences) > 10
    parts = [part.strip() for sentence in sentences for part in sentence.split("…")]
    assert not [part for part in parts if part not in code]
