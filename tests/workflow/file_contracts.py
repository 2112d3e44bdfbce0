"""docs/files.md, read: which files it names, and which columns, keys or parts each has."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import zipfile
from pathlib import Path

from outputs import make_pattern

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/files.md"
BINARY = (".h5ad", ".zarr", ".parquet")
ROW = re.compile(r"^\| `(.+?)` \| (.+?) \|", re.M)


def column_pattern(name: str) -> re.Pattern[str]:
    """Turn a column's name with words in braces into the pattern of what it stands for."""
    return re.compile(re.sub(r"\\\{\w+\\\}", ".+", re.escape(name)) + "$")


def contracts() -> dict[str, dict[str, bool]]:
    """Map each path of the page to its columns, and each of these to whether it must be there."""
    found = {}
    for section in re.split(r"^### ", PAGE.read_text(), flags=re.M)[1:]:
        heading, _, body = section.partition("\n")
        body = re.split(r"^## ", body, flags=re.M)[0]
        columns = {name: "optional" not in kind for name, kind in ROW.findall(body)}
        found |= dict.fromkeys(re.findall(r"`(.+?)`", heading), columns)
    return found


# Run where h5py and pyarrow are: the parts of each h5ad and zarr, the columns of each parquet.
READ_PARTS = """
import h5py, json, pathlib, pyarrow.parquet, sys
def parts_of_h5ad(path):
    with h5py.File(path) as file:
        groups = [g for g in ("layers", "obsm", "obsp", "uns") if g in file]
        return ["X"] * ("X" in file) + [f"{g}/{name}" for g in groups for name in file[g]]
def parts_of_zarr(path):
    path = pathlib.Path(path)
    parts = [*path.glob("*/zarr.json"), *path.glob("*/*/zarr.json")]
    parts = {part.parent.relative_to(path).as_posix() for part in parts}
    tables = ("obs", "var", "layers", "obsm", "varm", "obsp", "varp", "uns", "fitted", "features")
    inner = ("obs/", "var/", "X/", "uns/")
    return sorted(part for part in parts if part not in tables and not part.startswith(inner))
def columns_of(path):
    return pyarrow.parquet.read_schema(path).names
read = {".h5ad": parts_of_h5ad, ".zarr": parts_of_zarr, ".parquet": columns_of}
print(json.dumps({path: read[pathlib.Path(path).suffix](path) for path in sys.argv[1:]}))
"""


def parts_of(paths: list[Path]) -> dict[Path, list[str]]:
    """Name the matrices and other parts of each h5ad and zarr, and the columns of each parquet."""
    command = [ROOT / "tests/in_env.sh", "analysis", "python", "-c", READ_PARTS, *paths]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return {Path(path): parts for path, parts in json.loads(run.stdout).items()}


def names_in(path: Path) -> list[str]:
    """Columns of a table, keys of a JSON object, or names of arrays."""
    if path.suffix == ".npz":
        return [name.removesuffix(".npy") for name in zipfile.ZipFile(path).namelist()]
    if path.suffix == ".json":
        return list(json.loads(path.read_text()))
    with path.open() as handle:
        return next(csv.reader(handle, delimiter="\t"))


def differences(results: Path) -> tuple[list[str], set[str]]:
    """Compare the files of a finished study with the page.

    Parameters
    ----------
    results
        Of the study.

    Returns
    -------
    wrong
        Files whose columns or keys are not those of the page, and how they differ.
    unseen
        Paths of the page with columns of which the study has no file.
    """
    results = results.resolve()
    files = {
        **parts_of(sorted(p for kind in BINARY for p in results.rglob(f"*{kind}"))),
        **{p: names_in(p) for p in results.rglob("*.*") if p.suffix in (".tsv", ".json", ".npz")},
    }
    wrong, unseen = [], set()
    for name, columns in contracts().items():
        matching = [p for p in files if make_pattern(name).match(p.relative_to(results).as_posix())]
        if columns and not matching:
            unseen.add(name)
        for path in matching if columns else []:
            known = {column: column_pattern(column) for column in columns}
            unknown = [c for c in files[path] if not any(p.match(c) for p in known.values())]
            missing = [
                column
                for column, needed in columns.items()
                if needed and not any(map(known[column].match, files[path]))
            ]
            if unknown or missing:
                wrong.append(f"{path.relative_to(results)}: unknown {unknown}, missing {missing}")
    return wrong, unseen
