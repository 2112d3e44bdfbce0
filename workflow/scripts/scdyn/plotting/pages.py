"""Self-contained HTML pages: templates in ``templates/``, which escape all that is filled in."""

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
# Of the filter tojson, which escapes what could end a script element.
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}


def render(template: str, title: str, **content: Any) -> str:
    """Fill in a template of ``templates/``.

    Parameters
    ----------
    template
        Its name.
    title
        Of the page.
    content
        What the template names; text is escaped.
    """
    return TEMPLATES.get_template(template).render(title=title, **content)


def findings_page(table: pd.DataFrame) -> str:
    """Lay a table of findings (:func:`scdyn.pp.preflight_findings.make_table`) out as HTML."""
    return render("findings.html", "Input", findings=table.to_dict("records"))
