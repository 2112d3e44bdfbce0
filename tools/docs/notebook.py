"""Run the Python of a page and keep its output: docs/tutorial.md, docs/notebook.md.

Blocks of ``python`` are run in their order and in one namespace, as the cells of a notebook are.
``make docs`` writes the output of each, and the value of its last line, into the ``text`` block
that follows it.
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


def fill_outputs(page: str, outputs: dict[str, str], remedy: str) -> str:
    """Write the output of each block below it.

    Parameters
    ----------
    page
        Its text.
    outputs
        Output of each block, by its code.
    remedy
        The command that runs the page.

    Raises
    ------
    SystemExit
        If a block was changed since its output was saved.
    """
    for code, _ in CELL.findall(page):
        if code not in outputs:
            raise SystemExit(f"This code was not run since it changed; {remedy} runs it:\n{code}")
    return CELL.sub(lambda m: f"```python\n{m[1]}```\n\n```text\n{outputs[m[1]]}```\n", page)


def main() -> None:
    """Run the page's blocks and save their outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to run the page in")
    parser.add_argument("outputs", type=Path, help="JSON to keep the outputs in")
    parser.add_argument("page", type=Path, help="Markdown with the blocks")
    options = parser.parse_args()
    page, namespace = options.page.read_text(), {}
    with contextlib.chdir(options.folder):
        outputs = {code: run_cell(code, namespace) for code, _ in CELL.findall(page)}
    options.outputs.write_text(json.dumps(outputs, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "100")
    main()
