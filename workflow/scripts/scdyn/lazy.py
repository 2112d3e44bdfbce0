"""Lazy import of a package's public names.

Snakemake's environment, which reads the configuration, has neither anndata nor torch, and
``import scdyn`` should be fast.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any


def attach(
    package: str, homes: Mapping[str, str], packages: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package
        Name of the package.
    homes
        Module that defines each public name.
    packages
        Packages in it.
    """

    def get(name: str) -> Any:
        if name in packages:
            return importlib.import_module(f"{package}.{name}")
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(f"{package}.{homes[name]}")
        except ModuleNotFoundError as error:  # so that help() lists what can be imported here
            raise AttributeError(f"{package}.{name} needs {error.name}: install it") from error
        return getattr(module, name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *packages})

    return get, names
