"""Every package's public names are there, and none is hidden by a module of the same name."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[3] / "workflow/scripts/scdyn"
PACKAGES = sorted(path.parent for path in LIBRARY.glob("*/__init__.py"))


def homes_of(package):
    """The table of lazy names in a package's __init__.py."""
    for node in ast.parse((package / "__init__.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "_HOMES":
            return ast.literal_eval(node.value)
    return {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_public_name_is_defined_where_the_table_says(package):
    for name, home in homes_of(package).items():
        body = ast.parse((package / f"{home}.py").read_text()).body
        defined = {getattr(node, "name", None) for node in body}
        assert name in defined, f"{package.name}.{name}"
        # Importing a module sets it on its package, where it would take the place of the name.
        assert not (package / f"{name}.py").exists(), f"{package.name}.{name} is a module"
