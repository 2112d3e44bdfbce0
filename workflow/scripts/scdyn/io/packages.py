"""What an environment holds: the version of Python and of each package."""

from __future__ import annotations

import platform
import re
import sysconfig
from importlib.metadata import distributions
from pathlib import Path


def installed_packages() -> str:
    """List what stands in the environment that this runs in, and nothing that a path adds to it.

    Returns
    -------
    str
        A line ``Python VERSION``, then ``NAME==VERSION`` a line, as ``pip freeze`` writes it.
    """
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    found = {d.metadata["Name"]: d.version for d in distributions(path=sorted(folders))}
    lines = [f"{name}=={found[name]}" for name in sorted(found, key=str.lower)]
    return "\n".join([f"Python {platform.python_version()}", *lines]) + "\n"


def read_packages(path: str | Path) -> dict[str, str]:
    """Read what :func:`installed_packages` listed: version by name.

    Names as in envs/, where they are in lower case with hyphens.
    """
    python, *packages = Path(path).read_text().splitlines()
    versions = (line.split("==", 1) for line in packages)
    return {"python": python.split()[-1]} | {
        re.sub("[-_.]+", "-", name).lower(): version for name, version in versions
    }
