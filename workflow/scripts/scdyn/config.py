"""Config and sample sheet: what is wrong with them, in one sentence."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import yaml

from scdyn.errors import Code, InputError
from scdyn.io.sample_files import RNA_ONLY
from scdyn.pp.obs_columns import MISSING, RESERVED


def read_schema(path: str | Path) -> dict[str, Any]:
    """Read a JSON Schema written in YAML."""
    return yaml.safe_load(Path(path).read_text())


def _fits(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    """Hold text to a pattern, as jsonschema does, but that ``$`` is the end and no line's end."""
    if validator.is_type(instance, "string"):
        if instance.endswith("\n") or not re.search(pattern, instance):
            yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def _is_integer(checker: Any, instance: Any) -> bool:
    """Tell whether a value is an integer; 1.0, which JSON Schema counts as one, is not."""
    return isinstance(instance, int) and not isinstance(instance, bool)


# Stricter than jsonschema's in what becomes a path: names and seeds.
VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _fits},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer),
)


def check(code: Code, content: Mapping[str, Any], schema: Mapping[str, Any], origin: str) -> None:
    """Refuse content that the schema does not allow.

    Parameters
    ----------
    code
        Of the error.
    content
        A config, or a row of a sheet.
    schema
        Draft 2020-12.
    origin
        The file (and row), to begin the sentence with.

    Raises
    ------
    InputError
        Naming the key and, for a key that does not exist, the one that may be meant.
    """
    error = jsonschema.exceptions.best_match(VALIDATOR(schema).iter_errors(content))
    if error is None:
        return
    key = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))[0]
        close = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}."
        raise InputError(
            code, f"{origin}: unknown key '{'.'.join(filter(None, [key, unknown]))}'; {hint}"
        )
    if error.validator == "required":
        missing = sorted(set(error.validator_value) - set(error.instance))[0]
        raise InputError(
            code, f"{origin}: the key '{'.'.join(filter(None, [key, missing]))}' is missing."
        )
    if error.validator == "enum":
        allowed = ", ".join(map(str, error.validator_value))
        raise InputError(
            code, f"{origin}: {key} is '{error.instance}'; it must be one of {allowed}."
        )
    if error.validator == "pattern":
        meant = error.schema.get("description")
        raise InputError(
            code,
            f"{origin}: {key or 'a name'} is '{error.instance}', which does not fit "
            f"{error.validator_value}" + (f" ({meant.rstrip('.')})." if meant else "."),
        )
    raise InputError(code, f"{origin}: {key or 'the content'}: {error.message}.")


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


def with_values(
    content: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None
) -> Any:
    """Return a content with text read as the value that the schema asks for.

    YAML takes 1e-3 for text, and Snakemake whatever ``--config`` has within braces.

    Parameters
    ----------
    content
        As it is written.
    schema, root
        As for :func:`with_defaults`.
    """
    root = root or schema
    if "$ref" in schema:
        schema = {**root["$defs"][schema["$ref"].rsplit("/", 1)[1]], **schema}
    if isinstance(content, Mapping):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties")
        of_rest = rest if isinstance(rest, Mapping) else {}
        return {
            key: with_values(part, known.get(key, of_rest), root) for key, part in content.items()
        }
    if isinstance(content, list):
        return [with_values(part, schema.get("items", {}), root) for part in content]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(content, str) or "string" in kinds or content in schema.get("enum", []):
        return content
    try:
        value = float(content) if "number" in kinds else yaml.safe_load(content)
    except (ValueError, yaml.YAMLError):
        value = yaml.safe_load(content) if content in ("null", "true", "false") else content
    alone = {key: part for key, part in schema.items() if key != "$ref"}
    return value if VALIDATOR(alone).is_valid(value) else content


def with_defaults(
    content: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None
) -> Any:
    """Return a valid content with the schema's defaults where keys are missing.

    Parameters
    ----------
    content
        What :func:`check` has passed.
    schema
        Its schema; ``$ref`` to ``#/$defs`` is followed.
    root
        The schema that holds ``$defs``; the schema itself if None.
    """
    root = root or schema
    if "$ref" in schema:
        schema = {**root["$defs"][schema["$ref"].rsplit("/", 1)[1]], **schema}
    if not isinstance(content, dict):
        return content
    result = dict(content)
    known = schema.get("properties", {})
    for key, part in known.items():
        if key in result:
            result[key] = with_defaults(result[key], part, root)
        elif "default" in part:
            result[key] = with_defaults(part["default"], part, root)
    rest = schema.get("additionalProperties")
    if isinstance(rest, dict):
        for key in set(result) - set(known):
            result[key] = with_defaults(result[key], rest, root)
    return result


def read_config(
    content: Mapping[str, Any], schema: Mapping[str, Any], origin: str
) -> dict[str, Any]:
    """Check a config, fill in defaults, and see that what it names is declared.

    Parameters
    ----------
    content
        As it is written.
    schema
        Of the whole, with its ``presets``.
    origin
        The file, to begin a refusal with.

    Returns
    -------
    dict
        With every key but the presets' names, in place of which there is what they fill in.

    Raises
    ------
    InputError
        If a model names no corpus, a task no model, a study no task, or motif
        databases come without their annotation, or fewer GRN runs are made than must agree, or a
        model's width cannot be parted into its heads.
    """
    content = with_values(with_preset_spelt_out(content), schema)
    check("CONFIG", content, schema, origin)
    config = with_defaults(content, schema)
    config["results"] = config["results"].rstrip("/")
    for kind, name, key, known in references(config):
        if key not in config[known]:
            raise InputError(
                "CONFIG",
                f"{origin}: {kind} '{name}' names '{key}', which is not among the {known} "
                f"({', '.join(config[known]) or 'none'}).",
            )
    if config["grn"]["rankings"] and not config["grn"]["annotations"]:
        raise InputError(
            "CONFIG", f"{origin}: grn.rankings need grn.annotations, the table of motifs and TFs."
        )
    min_runs, n_runs = config["grn"]["min_runs"], len(config["grn"]["seeds"])
    if (min_runs or 0) > n_runs:
        raise InputError(
            "CONFIG",
            f"{origin}: grn.min_runs is {min_runs}, but there are {n_runs} runs (grn.seeds).",
        )
    config = with_presets(config, schema["presets"])
    for name, model in config["models"].items():
        if model["width"] % model["n_heads"]:
            raise InputError(
                "CONFIG",
                f"{origin}: models.{name}.width is {model['width']}, which is no multiple of its "
                f"{model['n_heads']} n_heads; give both, or a size.",
            )
    return config


def with_preset_of_files(content: Mapping[str, Any], files: Sequence[str | Path]) -> dict[str, Any]:
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
        named |= given_qc(yaml.safe_load(Path(file).read_text()) or {}) or {}
    qc = given_qc(content)
    if not named or qc is None:
        return dict(content)
    return {**content, "ingest": {**content["ingest"], "qc": named | qc}}


def given_qc(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a config says of ``qc``, its preset by name; None if nothing that can be read."""
    ingest = with_preset_spelt_out(content).get("ingest")
    qc = ingest.get("qc") if isinstance(ingest, Mapping) else None
    return dict(qc) if isinstance(qc, Mapping) else None


def with_preset_spelt_out(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write ``qc: NAME`` as ``qc: {preset: NAME}``."""
    ingest = content.get("ingest")
    if not isinstance(ingest, Mapping) or not isinstance(ingest.get("qc"), str):
        return content
    return {**content, "ingest": {**ingest, "qc": {"preset": ingest["qc"]}}}


def with_presets(config: Mapping[str, Any], presets: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what the presets' names stand for, below the keys that are given.

    Parameters
    ----------
    config
        With its defaults.
    presets
        ``qc``, the bounds by preset, and ``size``, by size the ``model`` and the training of
        ``pretraining`` and ``fine_tuning``.

    Returns
    -------
    dict
        Without the presets' names: what is made anew follows from the values alone.
    """
    bounds = dict(config["ingest"]["qc"])
    bounds = presets["qc"][bounds.pop("preset")] | bounds
    models, sizes = {}, {}
    for name, given in config["models"].items():
        model = dict(given)
        sizes[name] = presets["size"][model.pop("size")]
        training = sizes[name]["pretraining"] | model["training"]
        models[name] = sizes[name]["model"] | model | {"training": training}
    tasks = {
        name: task | {"training": sizes[task["model"]]["fine_tuning"] | task["training"]}
        for name, task in config["tasks"].items()
    }
    ingest = config["ingest"] | {"qc": bounds}
    return {**config, "ingest": ingest, "models": models, "tasks": tasks}


def references(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield what names what: kind, name, the name it gives, and where that must be declared."""
    for name, model in config["models"].items():
        yield "model", name, model["corpus"], "corpora"
    for name, task in config["tasks"].items():
        yield "task", name, task["model"], "models"
    for name, study in config["studies"].items():
        yield "study", name, study["task"], "tasks"


def check_covariate(
    column: str, schema: Mapping[str, Any], absent: Sequence[str], path: str | Path
) -> None:
    """Refuse a further column of the sheet that is misspelt, or no name.

    Parameters
    ----------
    column
        Its name.
    schema
        Of a row.
    absent
        Columns of the schema that the sheet lacks; a column much like one of these is taken to be
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
    name = {"$ref": "#/$defs/column", "$defs": schema["$defs"]}
    if not VALIDATOR(name).is_valid(column):
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


def tidy_sheet(sheet: pd.DataFrame, known: Mapping[str, Any]) -> pd.DataFrame:
    """Take from a sheet what spreadsheets and R leave in it.

    In the columns that are known, NA and its like are empty; ``kind`` and ``none`` are written
    small.
    """
    for column in set(sheet) & set(known) - {"sample"}:
        sheet[column] = sheet[column].mask(sheet[column].isin(MISSING - {"None"}), "")
    for column in {"kind", "atac_path"} & set(sheet):
        small = sheet[column].str.lower()
        sheet[column] = sheet[column].mask(small.isin([*known["kind"]["enum"], RNA_ONLY]), small)
    return sheet


def read_samples(
    path: str | Path,
    schema: Mapping[str, Any],
    covariates: Sequence[str],
    corpora: Mapping[str, Any],
) -> pd.DataFrame:
    """Read and check the sample sheet.

    Parameters
    ----------
    path
        Tab-separated; a byte-order mark and CRLF line ends are taken as they come.
    schema
        Of a row.
    covariates
        Further columns that must be there; others may be. Each is a covariate.
    corpora
        Corpora of the config; their samples must stand in the sheet.

    Returns
    -------
    DataFrame of str
        All columns of the schema and the covariates, indexed by sample.

    Raises
    ------
    InputError
        Naming the sheet, the row and the column.
    """
    sheet = read_sheet(path)
    known = schema["properties"]
    sheet = tidy_sheet(sheet, known)
    if sheet.empty:
        raise InputError("SHEET", f"{path}: has no sample.")
    if not {"sample", "kind", "path"} <= set(sheet) and len(sheet.columns) == 1:
        raise InputError(
            "SHEET",
            f"{path}: has one column, '{sheet.columns[0]}'; columns are parted by tabs here: save "
            "it as tab-separated text.",
        )
    free = [column for column in sheet if column not in known]
    for column in free:
        if column not in covariates:
            check_covariate(column, schema, [name for name in known if name not in sheet], path)
    covariate = {"$ref": "#/$defs/covariate"}
    columns = {**known, **dict.fromkeys([*free, *covariates], covariate)}
    row_schema = {**schema, "properties": columns, "required": [*schema["required"], *covariates]}
    for number, row in sheet.to_dict("index").items():
        check("SHEET", row, row_schema, f"{path}, line {number}")
    twice = sheet["sample"][sheet["sample"].duplicated()]
    if len(twice):
        raise InputError(
            "SHEET", f"{path}: sample '{twice.iloc[0]}' is a duplicate; names must differ."
        )
    sheet = sheet.reindex(columns=list(columns), fill_value="").set_index("sample", drop=False)
    for name, corpus in corpora.items():
        for sample in corpus["samples"] or []:
            if sample not in sheet.index:
                raise InputError(
                    "CONFIG", f"corpus '{name}' names sample '{sample}', which is not in {path}."
                )
    return sheet
