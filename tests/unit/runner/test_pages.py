"""Pages lead to files, headings and commands that exist; their blocks can be generated."""

import re
from pathlib import Path

import marks
import measured
import pages
import pytest

ROOT = Path(__file__).parents[3]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PAGES = {str(page.relative_to(ROOT)): page for page in pages.list_pages()}


def anchors(page):
    """Headings of a page as GitHub links to them, and anchors of its own."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    own = set(re.findall(r'<a id="(.+?)">', text))
    return own | {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def leads_somewhere(page, link):
    name, _, anchor = link.partition("#")
    target = (page.parent / name).resolve() if name else page
    return target.exists() and (not anchor or anchor in anchors(target))


@pytest.mark.parametrize("name", PAGES)
def test_links_and_commands_lead_somewhere(name):
    text = PAGES[name].read_text()
    links = LINK.findall(re.sub(r"```.*?```", "", text, flags=re.S))
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not leads_somewhere(PAGES[name], link)] == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.M)
    assert set(commands) <= targets


def test_the_index_has_every_page():
    index = (ROOT / "docs/README.md").read_text()
    missing = [p.name for p in (ROOT / "docs").glob("*.md") if f"({p.name})" not in index]
    assert missing == ["README.md"]


def test_a_block_is_filled_and_an_unknown_one_is_refused():
    page = "a\n<!-- one -->\nold\n<!-- end -->\nb\n"
    assert marks.fill(page, {"one": "new"}) == "a\n<!-- one -->\n\nnew\n\n<!-- end -->\nb\n"
    with pytest.raises(KeyError):
        marks.fill(page, {"two": "new"})


def test_a_line_goes_through_the_two_largest_measurements():
    rows = [{"rule": "join", "cells": n, "seconds": s} for n, s in ((1, 50), (10, 5), (20, 7))]
    benchmarks = {"scale": {"rows": rows}}
    assert measured.extrapolate(benchmarks, "join", "seconds", 20) == 7
    assert measured.extrapolate(benchmarks, "join", "seconds", 120) == pytest.approx(27)
