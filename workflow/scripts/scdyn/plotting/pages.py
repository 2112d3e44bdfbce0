"""The frame of a self-contained HTML page."""

from __future__ import annotations

import html

import pandas as pd


def document(title: str, body: str) -> str:
    """Wrap a body as a self-contained HTML page."""
    style = (
        "body{font:14px/1.5 sans-serif;max-width:80em;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;"
        "text-align:left;vertical-align:top}div.w{overflow-x:auto}"
        "td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
        "th.m{min-width:9em;max-width:24em}small{color:#555;font-weight:normal}"
        "pre{background:#f6f6f6;padding:1em;overflow:auto}"
    )
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{html.escape(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


def findings_page(table: pd.DataFrame) -> str:
    """Lay the findings out as HTML."""
    rows = ["<th>of</th><th>check</th><th>found</th>"]
    for row in table.itertuples():
        cells = (row.subject, row.check, row.found)
        rows.append("".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells))
    text = "".join(f"<tr>{row}</tr>" for row in rows)
    return document("Input", f"<h1>Input, examined before the run</h1><table>{text}</table>")
