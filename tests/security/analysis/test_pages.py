"""Promise: names and labels in pages and figures are text, and nothing in them runs.

Runs in the environment `analysis`, by an HTML parser; tests/workflow/test_hostile_names.py opens a
whole report in Chromium.
"""

import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from scdyn.plotting import pages, provenance, style, views
from scdyn.plotting.scores import render_scores
from scdyn.pp import preflight_findings
from scdyn.settings import Config

RUN = "document.title='pwned'"
NASTY = [
    f"<script>{RUN}</script>",
    f"</title></style></script><script>{RUN}</script>",
    f"'\"><svg onload={RUN}>",
    "$x_{$ and $\\frac$",
]
ALL = " ".join(NASTY)
# The config lets no tags through.
TEXT = "&lt;b&gt;&amp; '\"$x_{$"


def view():
    n = len(NASTY)
    table = pd.DataFrame({"label": NASTY, ALL: range(n)}, index=NASTY)
    layouts = {name: np.column_stack([np.arange(n), np.arange(n)]) for name in ("UMAP", ALL)}
    return views.render_view(ALL, layouts, table, {NASTY[0]: "#0072B2"}, ALL, 1)


def pinned(environment):
    pins = yaml.safe_load(Path(f"envs/{environment}.yaml").read_text())["dependencies"][-1]["pip"]
    return dict(pin.split("==") for pin in pins)


def of_provenance():
    config = Config(
        samples="samples.tsv", reference={"annotation": "genes.gtf", "tfs": "tfs.txt"},
        corpora={"c": {}}, models={"m": {"corpus": "c"}},
        tasks={"t": {"model": "m", "label": TEXT, "split_by": TEXT, "train": {TEXT: [TEXT]}}},
    )  # fmt: skip
    names = ("analysis", "torch", "grn")
    record = {
        "scdyn": ALL, "commit": ALL, "snakemake": ALL, "samples": ALL, "sha256": {ALL: ALL},
        "config": config.model_dump(),
        "environments": {name: {**pinned(name), ALL: ALL} for name in names},
        "devices": {"m": ALL}, "code": "now", "written_by": {ALL: {ALL: 1}, "pretrain": {"now": 1}},
    }  # fmt: skip
    return provenance.render_provenance(record)


def of_preflight():
    return pages.render_findings(
        preflight_findings.make_table(
            [preflight_findings.Finding(name, name, name, True) for name in NASTY]
        )
    )


def of_scores():
    found = {f"task {name}.{measure}": 0.5 for name in NASTY for measure in ("macro_f1", name)}
    return render_scores(found | {f"x.{ALL}_accuracy": 1.0}, {"x": [ALL]})


def a_figure():
    """A figure in the house style, with names wherever a figure has text."""
    figure, axes = style.make_figure(1, 1, 6, 4)
    axis = axes[0, 0]
    axis.bar(range(len(NASTY)), 1, label=ALL)
    axis.set_xticks(range(len(NASTY)), NASTY)
    axis.set(title=ALL, xlabel=ALL)
    axis.legend()
    return figure


@pytest.fixture
def svg(tmp_path):
    style.save(a_figure(), tmp_path / "figure.svg")
    return (tmp_path / "figure.svg").read_text()


class Reader(HTMLParser):
    """Elements, scripts, attributes and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.scripts, self.handlers, self.links, self.text = 0, [], [], ""
        self.in_title, self.title = False, ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.in_title = tag == "title"
        self.handlers += [key for key, _ in attributes if key.startswith("on")]
        self.links += [value for key, value in attributes if key in ("href", "src")]

    def handle_endtag(self, tag):
        self.in_title = False

    def handle_data(self, data):
        self.text += data
        if self.in_title:
            self.title += data


PAGES = {
    "view": (view, 2),
    "provenance": (of_provenance, 0),
    "preflight": (of_preflight, 0),
    "scores": (of_scores, 0),
}


@pytest.mark.parametrize("name", PAGES)
def test_names_in_a_page_are_text(name):
    make, n_scripts = PAGES[name]
    read = Reader(make())
    assert read.scripts == n_scripts, "one that came with a name"
    assert not read.handlers and not read.links
    assert NASTY[0] in read.text or "\\u003cscript\\u003e" in read.text


def test_names_in_a_figure_are_text(svg):
    drawing = ElementTree.fromstring(svg)
    names = {element.tag.rsplit("}")[-1] for element in drawing.iter()}
    assert "script" not in names and "foreignObject" not in names
    assert not [key for element in drawing.iter() for key in element.attrib if key.startswith("on")]
    text = " ".join(drawing.itertext())
    assert all(name in text for name in NASTY)
