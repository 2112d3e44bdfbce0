"""Promise: the report's captions set text of the config as text."""

from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
import yaml
from docutils.core import publish_parts

from scdyn import config as study

CAPTIONS = sorted(Path("workflow/report").glob("*.rst"))
# Text that the settings let through, of every kind that reStructuredText or HTML would act on.
NASTY = "1<2 & \"3\" x_ *y |z| :raw:q javascript:document.title='pwned' [1]_ \\"


def nasty_config():
    """The demo's config with nasty text wherever text is free."""
    config = yaml.safe_load(Path("config/demo/config.yaml").read_text())
    cells = {NASTY: [NASTY]}
    for task in config["tasks"].values():
        task |= {"label": NASTY, "split_by": NASTY, "train": cells, "predict": cells}
        task |= {"left_out": [NASTY]}
        measured = {"silenced": NASTY, "control": cells, "perturbed": cells}
        task["in_silico"] = {"silenced": [NASTY], "measured": measured}
    for page in config["studies"].values():
        page |= {"section": NASTY, "replicate": NASTY, "root": cells, "pseudotime": NASTY}
        page |= {"control": cells, "perturbed": cells}
    config["peers"] = {"batch": NASTY}
    return study.read_config(config, "config").model_dump()


class Params(SimpleNamespace):
    """A rule's params: those that captions look into are given, any other is 1."""

    def __getattr__(self, name):
        return 1


def render(caption, config):
    """Render a caption as snakemake.report does, for every task and study."""
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        caption.read_text()
    )
    for task in config["tasks"]:
        for name, page in config["studies"].items():
            wildcards = SimpleNamespace(
                task=task, study=name, model="hybrid", corpus="embryo", sample="s"
            )
            params = Params(
                study=page, qc=defaultdict(int), modalities={"rna": "RNA", "promoter": "promoters"},
                single_modality={"rna": "r", "promoter": "p"},
            )  # fmt: skip
            snakemake = SimpleNamespace(
                config=config, params=params, wildcards=wildcards, input={}, output={}
            )
            yield publish_parts(template.render(snakemake=snakemake), writer_name="html")["body"]


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for key, value in attributes if key == "href"]
        assert not [key for key, _ in attributes if key.startswith("on")]

    def handle_data(self, text):
        self.text += text


@pytest.mark.parametrize("caption", CAPTIONS, ids=lambda path: path.stem)
def test_text_of_the_config_stays_text(caption):
    for page in render(caption, nasty_config()):
        read = Reader(page)
        assert read.tags <= {"p", "tt", "span", "a", "strong", "em", "blockquote"}
        assert all(link.startswith("https://") for link in read.links)
        # A reference that leads nowhere would be an error in the caption.
        assert "system-message" not in page and "problematic" not in page


def test_captions_show_the_text():
    """The test above sees the text, and would see what it does where it is no literal."""
    pages = {path.stem: " ".join(render(path, nasty_config())) for path in CAPTIONS}
    shown = [name for name, page in pages.items() if "document.title" in Reader(page).text]
    assert {"task", "composition", "coherence", "development_maps", "in_silico"} <= set(shown)
    naked = publish_parts("of javascript:alert(1) here", writer_name="html")["body"]
    assert Reader(naked).links == ["javascript:alert(1"]
