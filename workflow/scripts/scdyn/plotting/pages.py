"""Self-contained HTML pages from the templates in ``templates/``, which escape all values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
# Compact JSON; the filter tojson escapes text that could end a script element.
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}


def render(template: str, title: str, **content: Any) -> str:
    """Fill in a template of ``templates/``.

    Parameters
    ----------
    template
        Name of the template.
    title
        Title of the page.
    content
        Values of the template's variables; text is escaped.
    """
    return TEMPLATES.get_template(template).render(title=title, **content)


def render_findings(table: pd.DataFrame) -> str:
    """Render a table of findings (:func:`scdyn.pp.preflight_findings.make_table`) as HTML."""
    return render("findings.html", "Input", findings=table.to_dict("records"))
