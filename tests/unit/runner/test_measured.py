"""What is said of costs follows from the committed benchmarks and configs."""

import measured
import pytest


def test_tables_follow_from_the_benchmarks():
    found = measured.blocks(measured.read_benchmarks())
    pages = [page.read_text() for page in measured.PAGES]
    assert [measured.fill(page, found) for page in pages] == pages, "run make docs-costs"
    assert all(sum(f"<!-- {name} -->" in page for page in pages) == 1 for name in found)


def test_a_line_goes_through_the_two_largest_measurements():
    rows = [{"what": "join", "n": n, "seconds": s} for n, s in ((1, 50), (10, 5), (20, 7))]
    benchmarks = {"ingest": {"rows": rows}}
    assert measured.line(benchmarks, "join", "seconds", 20) == 7
    assert measured.line(benchmarks, "join", "seconds", 120) == pytest.approx(27)
