"""Run the Python of docs/tutorial.md and save its output: the last part of ``make docs-figures``.

Blocks of ``python`` are run in order, in one namespace and in the folder that contains
``results``, like the cells of a notebook. ``make docs`` writes the output of each, and the value
of its last line, into the ``text`` block that follows it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import os
import re
from pathlib import Path
from typing import Any

CELL = re.compile(r"```python\n(.*?)```\n\n```text\n(.*?)```\n", re.S)


def run_cell(code: str, namespace: dict[str, Any]) -> str:
    """Run a block and return the output that a notebook would show."""
    *body, last = ast.parse(code).body
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "page", "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "page", "eval"), namespace)
            if value is not None:
                print(value)
        else:
            exec(compile(ast.Module([last], []), "page", "exec"), namespace)
    return printed.getvalue()


def fill_outputs(page: str, outputs: dict[str, str]) -> str:
    """Write the output of each block below it.

    Raises
    ------
    SystemExit
        If a block was changed since its output was saved.
    """
    for code, _ in CELL.findall(page):
        if code not in outputs:
            raise SystemExit(
                f"docs/tutorial.md: this code was changed and must be run: make docs-figures (it "
                f"needs the demo's results):\n{code}"
            )
    return CELL.sub(lambda m: f"```python\n{m[1]}```\n\n```text\n{outputs[m[1]]}```\n", page)


def main() -> None:
    """Run the page's blocks and save their outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="results of the demo")
    parser.add_argument("outputs", type=Path, help="JSON to save the outputs in")
    parser.add_argument("page", type=Path, help="Markdown with the blocks")
    options = parser.parse_args()
    results, page = options.results.resolve(), options.page.read_text()
    if results.name != "results":
        parser.error("the results folder must be called results, as the page has it")
    namespace: dict[str, Any] = {}
    with contextlib.chdir(results.parent):
        outputs = {code: run_cell(code, namespace) for code, _ in CELL.findall(page)}
    options.outputs.write_text(json.dumps(outputs, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "100")
    main()
