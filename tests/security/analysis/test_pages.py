"""Names and labels in pages and figures are text: nothing in them runs.

Runs in the environment `analysis`. The pages are read by an HTML parser and, where there is
Chromium, opened in it: a script that ran would have changed the title.
"""

import html
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from scdyn.plotting import pages, provenance, style, views
from scdyn.plotting.scores import score_page
from scdyn.pp import preflight_findings

RUN = "document.title='pwned'"
NASTY = [
    f"<script>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"'\"><svg onload={RUN}>",
    f"</title></style></pre></textarea><script>{RUN}</script>",
    f"<!--<script>{RUN}</script>",
    f"\\u003cscript>{RUN}</script>",
    "&lt;b&gt;&amp;",
    "$x_{$ and $\\frac$",
]
ALL = " ".join(NASTY)
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def view():
    n = len(NASTY)
    table = pd.DataFrame({"label": NASTY, ALL: range(n)}, index=NASTY)
    layouts = {name: np.column_stack([np.arange(n), np.arange(n)]) for name in ("UMAP", ALL)}
    return views.page(ALL, layouts, table, {NASTY[0]: "#0072B2"}, ALL, 1)


def pinned(environment):
    pins = yaml.safe_load(Path(f"envs/{environment}.yaml").read_text())["dependencies"][-1]["pip"]
    return dict(pin.split("==") for pin in pins)


def of_provenance():
    schema = yaml.safe_load(Path("workflow/schemas/config.schema.yaml").read_text())["properties"]
    task = {"label": ALL, "split_by": ALL, "train": {ALL: [ALL]}, "rank": 8, "adapter": "lora"}
    task |= {"folds": 2, "seeds": [1], "validation_share": 0.1, "baselines": [ALL]}
    defaults = {name: part.get("default") for name, part in schema["grn"]["properties"].items()}
    qc = schema["ingest"]["properties"]["qc"]["properties"]
    names = ("analysis", "torch", "grn")
    record = {
        "scdyn": ALL, "commit": ALL, "snakemake": ALL, "samples": ALL, "sha256": {ALL: ALL},
        "config": {
            "reference": {"upstream": ALL, "downstream": 500},
            "ingest": {"qc": {n: part.get("default", 0.2) for n, part in qc.items()}},
            "grn": defaults,
            "models": {},
            "tasks": {ALL: task},
        },
        "environments": {name: {**pinned(name), ALL: ALL} for name in names},
        "devices": {ALL: ALL}, "code": "now", "written_by": {ALL: {ALL: 1}, "pretrain": {"now": 1}},
    }  # fmt: skip
    return provenance.page(record)


def of_preflight():
    return pages.findings_page(
        preflight_findings.make_table(
            [preflight_findings.Finding(name, name, name, True) for name in NASTY]
        )
    )


def of_scores():
    found = {f"task {name}.{measure}": 0.5 for name in NASTY for measure in ("macro_f1", name)}
    return score_page(found | {f"x.{ALL}_accuracy": 1.0}, {"x": [ALL]})


def a_figure():
    """A figure in the house style, with names wherever a figure has text."""
    figure, axes = style.new(1, 1, 6, 4)
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
    "document": (lambda: pages.document(ALL, html.escape(ALL)), 0),
}


@pytest.mark.parametrize("name", PAGES)
def test_names_in_a_page_are_text(name):
    make, n_scripts = PAGES[name]
    read = Reader(make())
    assert read.scripts == n_scripts, "one that came with a name"
    assert not read.handlers and not read.links
    assert NASTY[0] in read.text or "\\u003cscript>" in read.text


def test_names_in_a_figure_are_text(svg):
    drawing = ElementTree.fromstring(svg)
    names = {element.tag.rsplit("}")[-1] for element in drawing.iter()}
    assert "script" not in names and "foreignObject" not in names
    assert not [key for element in drawing.iter() for key in element.attrib if key.startswith("on")]
    text = " ".join(drawing.itertext())
    assert all(name in text for name in NASTY)


def title_in_browser(path):
    dumped = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"),
            *("--dump-dom", path.as_uri()),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    assert len(dumped) > 100
    return re.search(r"<title>(.*?)</title>", dumped, re.S)[1], dumped


@pytest.fixture
def browser():
    if BROWSER is None:
        pytest.skip("no Chromium to open the pages in; the parser has read them")


@pytest.mark.parametrize("name", PAGES)
def test_nothing_runs_in_a_browser(name, tmp_path, browser):
    page = PAGES[name][0]()
    (tmp_path / "page.html").write_text(page)
    title, dumped = title_in_browser(tmp_path / "page.html")
    assert html.unescape(title) == Reader(page).title != "pwned"
    if name == "view":  # its own script has run, and set names as text
        assert "<canvas" in dumped and html.escape(NASTY[0], quote=False) in dumped


def test_nothing_runs_in_a_figure(tmp_path, browser, svg):
    # The report shows a figure as an image; here it could do as it likes.
    page = (
        f"<!doctype html><html><head><title>figure</title></head><body>{svg[svg.index('<svg') :]}"
    )
    (tmp_path / "page.html").write_text(page)
    assert title_in_browser(tmp_path / "page.html")[0] == "figure"


def test_what_runs_would_be_seen(tmp_path, browser):
    for name in NASTY[:3]:
        page = f"<!doctype html><html><head><title>x</title></head><body>{name}</body></html>"
        (tmp_path / "page.html").write_text(page)
        assert title_in_browser(tmp_path / "page.html")[0] == "pwned"
        assert Reader(page).scripts or Reader(page).handlers
