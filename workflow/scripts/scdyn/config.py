"""Reading and checking of the config and the sample sheet."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import yaml
from pydantic import ValidationError

from scdyn.errors import InputError
from scdyn.io.sample_files import RNA_ONLY
from scdyn.pp.obs_columns import MISSING, RESERVED
from scdyn.settings import Config, CorpusSettings, SampleRow
from scdyn.settings.data import COVARIATE_NAME
from scdyn.settings.refusal import make_input_error

KINDS = get_args(SampleRow.model_fields["kind"].annotation)


def require_files(named: Mapping[str, Sequence[str]], made: Collection[str], origin: str) -> None:
    """Refuse a config that names a missing file.

    Snakemake does not, if there are results of an earlier run: it considers them up to date.

    Parameters
    ----------
    named
        Paths by key of the config.
    made
        Paths that are outputs of a rule.
    origin
        The config file.

    Raises
    ------
    InputError
        If a file neither exists nor is an output of a rule.
    """
    for key, paths in named.items():
        for path in paths:
            if path not in made and not Path(path).is_file():
                raise InputError(
                    "PATH", f"{origin}: {key}: {path}: no such file; correct the path."
                )


def check_environments_folder(folder: str | Path) -> None:
    """Refuse a folder of environments whose path has special characters of a shell.

    Each job begins with ``source .../activate 'FOLDER/...'``, and the programs of an environment
    begin with a line that quotes its path. Conda and Snakemake write both.

    Raises
    ------
    InputError
        If the path has such a character.
    """
    path = str(Path(folder).absolute())
    found = re.search(r"[\'\"`$\\\x00-\x1f\x7f]", path)
    if found:
        raise InputError(
            "CONFIG",
            f"{path}: the folder of the environments has the special character {found[0]!r} in its "
            "path; give another folder by --conda-prefix.",
        )


def read_config(content: Mapping[str, Any], origin: str) -> Config:
    """Check a config and fill in its defaults.

    Parameters
    ----------
    content
        Content of the config file.
    origin
        The file, for messages.

    Raises
    ------
    InputError
        If a key is unknown or missing, a value is not allowed, or a name is not declared.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise make_input_error("CONFIG", error, content, origin) from None


def merge_presets(content: Mapping[str, Any], files: Sequence[str | Path]) -> dict[str, Any]:
    """Merge ``qc`` of several config files key by key.

    Snakemake merges config files key by key, but of ``qc: cells`` and ``qc: {min_genes: 50}`` the
    later one replaces the other.

    Parameters
    ----------
    content
        The config as Snakemake merged it.
    files
        The config files; later ones have precedence.
    """
    named: dict[str, Any] = {}
    for file in files:
        named |= read_qc(yaml.safe_load(Path(file).read_text()) or {}) or {}
    qc = read_qc(content)
    if not named or qc is None:
        return dict(content)
    return {**content, "ingest": {**content["ingest"], "qc": named | qc}}


def read_qc(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return ``qc`` of a config with its preset as a key; None if it is missing or no mapping."""
    ingest = expand_preset(content).get("ingest")
    qc = ingest.get("qc") if isinstance(ingest, Mapping) else None
    return dict(qc) if isinstance(qc, Mapping) else None


def expand_preset(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write ``qc: NAME`` as ``qc: {preset: NAME}``."""
    ingest = content.get("ingest")
    if not isinstance(ingest, Mapping) or not isinstance(ingest.get("qc"), str):
        return content
    return {**content, "ingest": {**ingest, "qc": {"preset": ingest["qc"]}}}


def check_covariate(column: str, missing: Sequence[str], path: str | Path) -> None:
    """Refuse a further column of the sheet that is misspelt or has no valid name.

    Parameters
    ----------
    column
        Name of the column.
    missing
        Standard columns that the sheet lacks; a column with a similar name is considered
        misspelt. With ``sample`` in the sheet, ``sample_id`` is a covariate.
    path
        The sheet.

    Raises
    ------
    InputError
        If the column is misspelt or its name is not allowed.
    """
    close = difflib.get_close_matches(column.lower(), missing, n=1, cutoff=0.8)
    if close:
        raise InputError(
            "SHEET",
            f"{path}: unknown column '{column}'; did you mean '{close[0]}'? To keep it as a "
            "covariate, list it under covariates in the config.",
        )
    if column in RESERVED:
        raise InputError(
            "SHEET",
            f"{path}: the column '{column}' cannot be a covariate, because the cell metadata has a "
            "column of this name; rename it.",
        )
    if not COVARIATE_NAME.matches(column):
        raise InputError(
            "SHEET",
            f"{path}: the column '{column}' cannot be a covariate; rename it with letters, digits "
            "and _, a letter first, and not barcode, or remove it.",
        )


def read_sheet(path: str | Path) -> pd.DataFrame:
    """Read a sheet as text, and strip blanks around values and names.

    Empty rows are dropped, as are empty columns without a name (from a tab at the end of lines).

    Returns
    -------
    DataFrame of str
        The index is the line number.

    Raises
    ------
    InputError
        If it cannot be read, a line begins with ``#``, a column name is a duplicate, or a value is
        in a column without a name.
    """
    rows: dict[int, list[str]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            # Strict, because an unclosed quote would otherwise include the following rows.
            lines = csv.reader(file, delimiter="\t", strict=True)
            number = 1
            for line in lines:
                cells = [cell.strip(" \xa0") for cell in line]
                if any(cells):
                    rows[number] = cells
                number = lines.line_num + 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("SHEET", f"{path}: cannot be read as a sample sheet ({error}).") from error
    if not rows:
        raise InputError("SHEET", f"{path}: has no sample.")
    names = next(iter(rows.values()))
    for number, cells in rows.items():
        # Other values may begin with #, such as colours.
        if cells[0].startswith("#") and (names[0] in ("sample", cells[0]) or not any(cells[1:])):
            raise InputError(
                "SHEET",
                f"{path}, line {number}: begins with #, but a sample sheet cannot have comments; "
                "remove the line, or the # if it is the header or a sample.",
            )
    width = max(map(len, rows.values()))
    header, *rest = [[*cells, *[""] * (width - len(cells))] for cells in rows.values()]
    sheet = pd.DataFrame(rest, index=list(rows)[1:], columns=range(width), dtype=object)
    for place, name in enumerate(header):
        given = sheet.index[sheet[place] != ""]
        if not name and len(given):
            raise InputError(
                "SHEET",
                f"{path}, line {given[0]}: '{sheet.loc[given[0], place]}' is in a column without a "
                "name; name the column in the first line, or remove it.",
            )
        if name and name in header[:place]:
            raise InputError(
                "SHEET",
                f"{path}: duplicate column '{name}'; rename or remove one.",
            )
    sheet = sheet.set_axis(header, axis=1)
    return sheet.loc[:, [bool(name) for name in header]]


def tidy_sheet(sheet: pd.DataFrame) -> pd.DataFrame:
    """Normalise values that spreadsheets and R write.

    In the standard columns, missing values such as NA become empty, and values of ``kind`` and
    ``none`` become lower case.
    """
    for column in set(sheet) & set(SampleRow.model_fields) - {"sample"}:
        sheet[column] = sheet[column].mask(sheet[column].isin(MISSING - {"None"}), "")
    for column in {"kind", "atac_path"} & set(sheet):
        small = sheet[column].str.lower()
        sheet[column] = sheet[column].mask(small.isin([*KINDS, RNA_ONLY]), small)
    return sheet


def read_samples(
    path: str | Path, covariates: Sequence[str], corpora: Mapping[str, CorpusSettings]
) -> pd.DataFrame:
    """Read and check the sample sheet.

    Parameters
    ----------
    path
        Tab-separated; a byte-order mark and CRLF line ends are allowed.
    covariates
        Further columns that must exist. All further columns are covariates.
    corpora
        Corpora of the config; their samples must be in the sheet.

    Returns
    -------
    DataFrame of str
        All columns of :class:`scdyn.settings.SampleRow` and the covariates, indexed by sample.

    Raises
    ------
    InputError
        If the sheet cannot be read, or a column, row or value is not allowed.
    """
    sheet = tidy_sheet(read_sheet(path))
    if sheet.empty:
        raise InputError("SHEET", f"{path}: has no sample.")
    if not {"sample", "kind", "path"} <= set(sheet) and len(sheet.columns) == 1:
        raise InputError(
            "SHEET",
            f"{path}: has only one column, '{sheet.columns[0]}'; save it as tab-separated text.",
        )
    known = SampleRow.model_fields
    free = [column for column in sheet if column not in known]
    for column in free:
        if column not in covariates:
            check_covariate(column, [name for name in known if name not in sheet], path)
    for column in covariates:
        if column not in sheet:
            raise InputError("SHEET", f"{path}: the key '{column}' is missing.")
    for number, row in sheet.to_dict("index").items():
        try:
            SampleRow.model_validate(row)
        except ValidationError as error:
            raise make_input_error("SHEET", error, row, f"{path}, line {number}") from None
    twice = sheet["sample"][sheet["sample"].duplicated()]
    if len(twice):
        raise InputError(
            "SHEET", f"{path}: duplicate sample '{twice.iloc[0]}'; rename or remove one."
        )
    columns = dict.fromkeys([*known, *free, *covariates])
    sheet = sheet.reindex(columns=list(columns), fill_value="").set_index("sample", drop=False)
    for name, corpus in corpora.items():
        for sample in corpus.samples or []:
            if sample not in sheet.index:
                raise InputError(
                    "CONFIG", f"corpus '{name}' names sample '{sample}', which is not in {path}."
                )
    return sheet
