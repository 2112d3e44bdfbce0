"""What the library says of wrong input: every sentence, from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(__file__).parents[3] / "workflow/scripts"
GAP = "…"


def template(node: ast.expr) -> str:
    """Write an expression as its text, with an ellipsis for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return GAP


def said_by(call: ast.Call) -> str:
    """Write what a call says of wrong input; nothing if that is nothing of its own."""
    name, arguments = getattr(call.func, "id", ""), [template(node) for node in call.args]
    if name == "InputError":
        text = arguments[0]
    elif name == "refuse":  # scdyn.settings.base.refuse: before, key, after
        before, *rest = arguments
        text = f"{GAP}: {before}" + (f"{GAP}.{''.join(rest)}" if rest else "")
    elif name == "reading":  # scdyn.errors.reading: path, fault, remedy
        text = f"{GAP}: {arguments[1]} ({GAP}); {(arguments + ['copy it again'])[2]}."
    else:
        return ""
    return text if text.replace(GAP, "").strip(" .,:;()") else ""


class Filled(ast.NodeTransformer):
    """Puts a module's constants of text where its code names them."""

    def __init__(self, module: ast.Module) -> None:
        assigned = (node for node in module.body if isinstance(node, ast.Assign))
        self.texts = {
            node.targets[0].id: node.value
            for node in assigned
            if isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Constant)
        }

    def visit_Name(self, node: ast.Name) -> ast.expr:  # noqa: N802
        """Return what a name stands for, if it is one of them."""
        return self.texts.get(node.id, node) if isinstance(node.ctx, ast.Load) else node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.expr:  # noqa: N802
        """Do so within an f-string, too."""
        value = self.visit(node.value)
        text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return value if text else node


def sentences(folder: Path = LIBRARY) -> Iterator[tuple[str, str]]:
    """Yield where a sentence stands in the source, and its text."""
    for path in sorted(folder.rglob("*.py")):
        module = ast.parse(path.read_text())
        for node in ast.walk(Filled(module).visit(module)):
            if isinstance(node, ast.Call) and (text := said_by(node)):
                yield f"{path.relative_to(folder)}:{node.lineno}", text
