"""Config and sample sheet: what is wrong with them, in one sentence."""

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
    """Refuse a config that names a file that is not there.

    Snakemake does not, where results of before are there: it takes these for up to date.

    Parameters
    ----------
    named
        By key of the config, the paths that it names.
    made
        Paths that a rule makes.
    origin
        Where the config comes from.

    Raises
    ------
    InputError
        Naming the key and the first file that is neither there nor made.
    """
    for key, paths in named.items():
        for path in paths:
            if path not in made and not Path(path).is_file():
                raise InputError(
                    "PATH", f"{origin}: {key}: {path}: no such file; correct the path."
                )


def check_environments_folder(folder: str | Path) -> None:
    """Refuse a folder of environments whose name a shell would act on.

    Each job begins with ``source .../activate 'FOLDER/...'``, and an environment's programs begin
    with a line that quotes its path likewise: neither is this workflow's to mend.

    Raises
    ------
    InputError
        Naming the folder and the character.
    """
    path = str(Path(folder).absolute())
    found = re.search(r"[\'\"`$\\\x00-\x1f\x7f]", path)
    if found:
        raise InputError(
            "CONFIG",
            f"{path}: the environments would be made here, but a shell acts on the {found[0]!r} in "
            "its name; name another folder by --conda-prefix.",
        )


def read_config(content: Mapping[str, Any], origin: str) -> Config:
    """Read a config: check it, fill in defaults, and see that what it names is declared.

    Parameters
    ----------
    content
        As it is written.
    origin
        The file, to begin a refusal with.

    Raises
    ------
    InputError
        Naming the key and what is wrong with it.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise make_input_error("CONFIG", error, content, origin) from None


def merge_presets(content: Mapping[str, Any], files: Sequence[str | Path]) -> dict[str, Any]:
    """Return a config with all that its files say of ``qc``, each key as the last file has it.

    Snakemake merges configfiles key by key, but of ``qc: cells`` and ``qc: {min_genes: 50}`` the
    later one takes the place of the other as a whole.

    Parameters
    ----------
    content
        As Snakemake merged it.
    files
        Its files, the last one winning.
    """
    named: dict[str, Any] = {}
    for file in files:
        named |= read_qc(yaml.safe_load(Path(file).read_text()) or {}) or {}
    qc = read_qc(content)
    if not named or qc is None:
        return dict(content)
    return {**content, "ingest": {**content["ingest"], "qc": named | qc}}


def read_qc(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a config says of ``qc``, its preset by name; None if nothing that can be read."""
    ingest = expand_preset(content).get("ingest")
    qc = ingest.get("qc") if isinstance(ingest, Mapping) else None
    return dict(qc) if isinstance(qc, Mapping) else None


def expand_preset(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write ``qc: NAME`` as ``qc: {preset: NAME}``."""
    ingest = content.get("ingest")
    if not isinstance(ingest, Mapping) or not isinstance(ingest.get("qc"), str):
        return content
    return {**content, "ingest": {**ingest, "qc": {"preset": ingest["qc"]}}}


def check_covariate(column: str, absent: Sequence[str], path: str | Path) -> None:
    """Refuse a further column of the sheet that is misspelt, or no name.

    Parameters
    ----------
    column
        Its name.
    absent
        Columns of a sheet that this one lacks; a column much like one of these is taken to be
        misspelt. Beside ``sample``, ``sample_id`` is a covariate.
    path
        Of the sheet.

    Raises
    ------
    InputError
        Naming the column that may be meant.
    """
    close = difflib.get_close_matches(column.lower(), absent, n=1, cutoff=0.8)
    if close:
        raise InputError(
            "SHEET",
            f"{path}: unknown column '{column}'; did you mean '{close[0]}'? To keep it as a "
            "covariate, list it under covariates in the config.",
        )
    if column in RESERVED:
        raise InputError(
            "SHEET",
            f"{path}: the column '{column}' cannot be a covariate, for each cell has a value "
            "of its own of that name; rename it.",
        )
    if not COVARIATE_NAME.matches(column):
        raise InputError(
            "SHEET",
            f"{path}: the column '{column}' cannot be a covariate; name it with letters, digits "
            "and _, a letter first, and not barcode, or remove it.",
        )


def read_sheet(path: str | Path) -> pd.DataFrame:
    """Read a sheet as it is written, without blanks around cells and names.

    Rows without any cell go, and columns without a name and any cell, such as a tab at the end of
    each line leaves.

    Returns
    -------
    DataFrame of str
        A row's index is the number of its line.

    Raises
    ------
    InputError
        If it cannot be read, begins a line with ``#``, has a name twice, or a cell without a name.
    """
    rows: dict[int, list[str]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            # A quote that is never closed would swallow the rows behind it.
            lines = csv.reader(file, delimiter="\t", strict=True)
            number = 1
            for line in lines:
                cells = [cell.strip(" \xa0") for cell in line]
                if any(cells):
                    rows[number] = cells
                number = lines.line_num + 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("SHEET", f"{path}: not a readable sample sheet ({error}).") from error
    if not rows:
        raise InputError("SHEET", f"{path}: has no sample.")
    names = next(iter(rows.values()))
    for number, cells in rows.items():
        # Elsewhere # may begin a value, such as a colour.
        if cells[0].startswith("#") and (names[0] in ("sample", cells[0]) or not any(cells[1:])):
            raise InputError(
                "SHEET",
                f"{path}, line {number}: begins with #, and a sample sheet has no comments; remove "
                "the line, or the # if it is the header or a sample.",
            )
    width = max(map(len, rows.values()))
    header, *rest = [[*cells, *[""] * (width - len(cells))] for cells in rows.values()]
    sheet = pd.DataFrame(rest, index=list(rows)[1:], columns=range(width), dtype=object)
    for place, name in enumerate(header):
        given = sheet.index[sheet[place] != ""]
        if not name and len(given):
            raise InputError(
                "SHEET",
                f"{path}, line {given[0]}: '{sheet.loc[given[0], place]}' stands in a column "
                "without a name; name the column in the first line, or remove it.",
            )
        if name and name in header[:place]:
            raise InputError(
                "SHEET",
                f"{path}: the column '{name}' is there twice; rename or remove one of them.",
            )
    sheet = sheet.set_axis(header, axis=1)
    return sheet.loc[:, [bool(name) for name in header]]


def tidy_sheet(sheet: pd.DataFrame) -> pd.DataFrame:
    """Take from a sheet what spreadsheets and R leave in it.

    In the columns that are known, NA and its like are empty; ``kind`` and ``none`` are written
    small.
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
        Tab-separated; a byte-order mark and CRLF line ends are taken as they come.
    covariates
        Further columns that must be there; others may be. Each is a covariate.
    corpora
        Corpora of the config; their samples must stand in the sheet.

    Returns
    -------
    DataFrame of str
        All columns of :class:`scdyn.settings.SampleRow` and the covariates, indexed by sample.

    Raises
    ------
    InputError
        Naming the sheet, the row and the column.
    """
    sheet = tidy_sheet(read_sheet(path))
    if sheet.empty:
        raise InputError("SHEET", f"{path}: has no sample.")
    if not {"sample", "kind", "path"} <= set(sheet) and len(sheet.columns) == 1:
        raise InputError(
            "SHEET",
            f"{path}: has one column, '{sheet.columns[0]}'; columns are parted by tabs here: save "
            "it as tab-separated text.",
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
            "SHEET", f"{path}: sample '{twice.iloc[0]}' is a duplicate; names must differ."
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
