"""docs/troubleshooting.md has a section for every code of an error, and for no other."""

import re
from pathlib import Path

from scdyn.errors import CODES

PAGE = Path(__file__).parents[3] / "docs/troubleshooting.md"


def test_every_code_has_its_anchor_and_its_section():
    text = PAGE.read_text()
    sections = re.findall(r'^<a id="scd-(\w+)"></a>\n## SCD-(\w+): ', text, re.M)
    assert [anchor.upper() for anchor, _ in sections] == [code for _, code in sections]
    assert {code for _, code in sections} == set(CODES) and len(sections) == len(CODES)
    assert text.count('<a id="scd-') == len(sections)
