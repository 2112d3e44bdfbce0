"""Run the scripts of the workflow's rules without Snakemake."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"


class Files(SimpleNamespace):
    """Files by name and by index, as Snakemake's."""

    def __getitem__(self, i: int) -> Any:
        return list(vars(self).values())[i]

    def __iter__(self) -> Iterator[Any]:
        return iter(vars(self).values())

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


def run_script(
    name: str,
    logs: Path,
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    wildcards: dict[str, str] | None = None,
    config: dict[str, Any] | None = None,
    **params: Any,
) -> None:
    """Run a rule's script as Snakemake would."""
    rule = SimpleNamespace(
        input=Files(**inputs),
        output=Files(**outputs),
        log=[str(logs / f"{name}.log")],
        params=Files(**params),
        wildcards=Files(**(wildcards or {})),
        config=config or {},
        threads=2,
    )
    runpy.run_path(str(SCRIPTS / f"{name}.py"), init_globals={"snakemake": rule})
