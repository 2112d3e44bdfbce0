"""Scripts of rules: they read what the rule names, call the library and write."""

import ast
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[3] / "workflow/scripts").glob("*.py"))
# What would take a sample, a task or a folder out of a path, which the rule knows.
PIECES = {"parent", "parts", "stem", "name", "suffix", "with_suffix", "rsplit"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_no_script_takes_meaning_out_of_a_path(script):
    nodes = list(ast.walk(ast.parse(script.read_text())))
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not used & PIECES
    assert any(isinstance(node, ast.With) for node in nodes), "it has no log"
