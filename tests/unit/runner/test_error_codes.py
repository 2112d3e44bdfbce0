"""docs/troubleshooting.md has a section for every code of an error, and for no other."""

import re
from pathlib import Path

from scdyn import errors

PAGE = Path(__file__).parents[3] / "docs/troubleshooting.md"
CODES = set(
    getattr(errors, "CODES", ())
    or (
        "ANNOTATION BARCODES CONFIG CORPUS COUNTS DISK DOWNLOAD EXPLAIN FORMAT FRAGMENTS GENES "
        "GENOMES GPU LABELS LAYER MATRIX MEMORY METADATA MODEL MOTIFS PATH PEERS PROMOTERS QC "
        "REGULONS SHEET SIZE SPLITS STUDY TFS TRAINING"
    ).split()
)


def test_every_code_has_its_anchor_and_its_section():
    text = PAGE.read_text()
    sections = re.findall(r'^<a id="scd-(\w+)"></a>\n## SCD-(\w+): ', text, re.M)
    assert [anchor.upper() for anchor, _ in sections] == [code for _, code in sections]
    assert {code for _, code in sections} == CODES and len(sections) == len(CODES)
    assert text.count('<a id="scd-') == len(sections)
