"""The versions of Python and of the packages of an environment."""

from __future__ import annotations

import platform
import re
import sysconfig
from importlib.metadata import distributions
from pathlib import Path


def list_packages() -> str:
    """List the packages installed in this environment, without those on ``PYTHONPATH``.

    Returns
    -------
    str
        ``Python VERSION``, then one ``NAME==VERSION`` per line, as in ``pip freeze``.
    """
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    found = {d.metadata["Name"]: d.version for d in distributions(path=sorted(folders))}
    lines = [f"{name}=={found[name]}" for name in sorted(found, key=str.lower)]
    return "\n".join([f"Python {platform.python_version()}", *lines]) + "\n"


def read_packages(path: str | Path) -> dict[str, str]:
    """Read a list of :func:`list_packages` as a dict of versions by name.

    Names are in lower case with hyphens, as in envs/.
    """
    python, *packages = Path(path).read_text().splitlines()
    versions = (line.split("==", 1) for line in packages)
    return {"python": python.split()[-1]} | {
        re.sub("[-_.]+", "-", name).lower(): version for name, version in versions
    }
