"""Names that become folders, and paths, from config and sheet: what is let through.

The schema is walked, so that a new key of text has to be put into one of three kinds: a name, a
user's path, or free text, which never becomes a path. Runs in the runner's environment.
"""

import csv
import subprocess
from pathlib import Path

import pytest
import yaml

from scdyn import config as study
from scdyn.errors import InputError

SCHEMA = study.read_schema("workflow/schemas/config.schema.yaml")
ROW = study.read_schema("workflow/schemas/samples.schema.yaml")

# What would end, or take over, a script element of the report that holds the text.
TAGS = ["a</script>", "<!--", "<script>", "<SCRIPT x>", "</"]
# No name may be any of these...
NASTY = [
    "", ".", "..", "../x", "a/b", "a/../b", "/etc/passwd", "~", "~root", ".hidden", "-rf", "a b",
    "a;b", "a|b", "a&b", "a>b", "a<b", "$(touch pwned)", "${HOME}", "`touch pwned`", "a'b", 'a"b',
    "a\\b", "a*b", "a?b", "[ab]", "{a}", "a\nb", "a\n", "\n", "a\rb", "a\tb", "a\0b", "a%b", "a,b",
    "é", "ａ", "a\u202eb", "<script>", "a" * 65,
]  # fmt: skip
# ... and no path of a user's file any of these; it may well have a quote or a $ in it.
NASTY_PATHS = ["", "a\nb", "a\n", "\n", "a\rb", "a\tb", "a\0b", "a\x7fb", "{a}", "a{b", *TAGS]
GOOD_PATHS = ["../x", "/a/b", "a b", "it's", 'a"b', "$(touch pwned)", "`touch pwned`", "a;b", "é"]

# No text may be any of these: it would leave the literal that the report's captions set it in.
NASTY_TEXTS = [
    "", " ", " a", "a ", "a\nb", "a\n", "\n", "a\n\n.. raw:: html", "a\0b", "`a`", "a``", *TAGS
]  # fmt: skip
GOOD_TEXTS = ["../x", "it's", "$(touch pwned)", "{a}", "a_", "*a", "Größe", "<65", "a < b", "a>b"]
# Keys, values and columns of the user's tables, which are looked up and printed. Nothing is named
# by them.
FREE = {
    "reference.biotypes.[]",
    "resources.sha256.{}",  # of the catalogue
    "corpora.*.samples.[]",  # of the sheet
    "peers.batch",
    "studies.*.pseudotime",
    "studies.*.replicate",
    "studies.*.section",
    "tasks.*.in_silico.measured.silenced",
    "tasks.*.in_silico.raised.[]",
    "tasks.*.in_silico.silenced.[]",
    "tasks.*.label",
    "tasks.*.left_out.[]",
    "tasks.*.split_by",
}
HASH = {"resources.sha256.*"}
# Selections: columns and values.
FREE |= {
    f"{place}{what}"
    for place in (
        "models.*.cells",
        "studies.*.control",
        "studies.*.perturbed",
        "studies.*.root",
        "tasks.*.in_silico.measured.control",
        "tasks.*.in_silico.measured.perturbed",
        "tasks.*.predict",
        "tasks.*.train",
    )
    for what in (".{}", ".*.[]")
}
PATHS = {
    "container",
    "grn.annotations",
    "grn.rankings.[]",
    "ingest.barcode_translation",
    "reference.annotation",
    "reference.tfs",
    "resources.mirror",
    "samples",
    "tasks.*.gene_sets",
}
NAMES = {
    "corpora.{}",
    "covariates.[]",
    "models.*.corpus",
    "models.{}",
    "results",
    "studies.*.task",
    "studies.{}",
    "tasks.*.model",
    "tasks.*.variants.{}",
    "tasks.{}",
}


def texts(schema, place=()):
    """Yield every place of a schema that takes text, with its own schema; {} is a key."""
    if "$ref" in schema:
        schema = {**SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]], **schema}
    kinds = schema.get("type", [])
    if "string" in ([kinds] if isinstance(kinds, str) else kinds) and "enum" not in schema:
        yield ".".join(place), schema
    for part in schema.get("anyOf", []):
        yield from texts(part, place)
    for key, part in schema.get("properties", {}).items():
        yield from texts(part, (*place, key))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from texts({"type": "string", **schema.get("propertyNames", {})}, (*place, "{}"))
        yield from texts(schema["additionalProperties"], (*place, "*"))
    if "items" in schema:
        yield from texts(schema["items"], (*place, "[]"))


TEXTS = dict(texts(SCHEMA))


def allows(schema, value):
    return study.VALIDATOR({**schema, "$defs": SCHEMA["$defs"]}).is_valid(value)


def test_every_text_of_the_config_is_of_a_known_kind():
    assert set(TEXTS) == NAMES | PATHS | FREE | HASH


@pytest.mark.parametrize("place", sorted(NAMES))
def test_a_name_is_a_plain_word(place):
    let_through = [name for name in NASTY if allows(TEXTS[place], name)]
    # The results may lie a folder deeper, or elsewhere by an absolute path, but never above.
    assert let_through == (["a/b", "/etc/passwd", "a" * 65] if place == "results" else [])
    assert allows(TEXTS[place], "wild_type2")


@pytest.mark.parametrize("place", sorted(PATHS))
def test_a_path_is_one_line_without_wildcards(place):
    end = ".gtf.gz" if place == "reference.annotation" else ""
    assert not [path for path in NASTY_PATHS if allows(TEXTS[place], path + end)]
    assert all(allows(TEXTS[place], path + end) for path in GOOD_PATHS)


@pytest.mark.parametrize("place", sorted(FREE))
def test_a_text_is_one_line_that_no_caption_reads_as_markup(place):
    assert not [text for text in NASTY_TEXTS if allows(TEXTS[place], text)]
    assert all(allows(TEXTS[place], text) for text in GOOD_TEXTS)


def test_a_seed_is_an_integer_that_every_library_takes():
    for seed in (1.0, True, -1, 2**32, "1", "1; touch pwned", None, "../1"):
        assert not allows(SCHEMA["$defs"]["seed"], seed)
    assert allows(SCHEMA["$defs"]["seed"], 2**32 - 1)


def test_a_refused_name_is_said_in_one_sentence():
    config = yaml.safe_load(Path("config/demo/config.yaml").read_text())
    config["tasks"]["../../x\n"] = config["tasks"].pop("fate")
    with pytest.raises(
        InputError, match=r"^here: tasks is '\.\./\.\./x.*becomes a folder\)\. \[SCD-CONFIG\]$"
    ):
        study.read_config(config, SCHEMA, "here")


def sheet(folder, **cells):
    row = {"sample": "s", "kind": "10x", "path": "p", **cells}
    with (folder / "samples.tsv").open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerows([row.keys(), row.values()])
    return folder / "samples.tsv"


@pytest.mark.parametrize("name", [name for name in NASTY if "\0" not in name])
def test_a_sample_is_a_plain_word(tmp_path, name):
    with pytest.raises(InputError, match=r"samples\.tsv"):
        study.read_samples(sheet(tmp_path, sample=name), ROW, [], {})


@pytest.mark.parametrize("value", [*TAGS, "a\nb", "a\n", "a\tb"])
def test_a_covariate_is_a_line_without_tags(tmp_path, value):
    with pytest.raises(InputError, match=r"line 2: age is .*\(A line of text"):
        study.read_samples(sheet(tmp_path, age=value), ROW, ["age"], {})
    study.read_samples(sheet(tmp_path, age="<65 `a` {b} $(c)"), ROW, ["age"], {})


COLUMNS = sorted(key for key, part in ROW["properties"].items() if "enum" not in part)


def test_every_column_of_the_sheet_is_of_a_known_kind():
    assert set(COLUMNS) == {
        "sample", "path", "atac_path", "fragments", "metadata", "rna_layer", "promoter_layer",
    }  # fmt: skip


@pytest.mark.parametrize("column", ["rna_layer", "promoter_layer"])
def test_a_layer_of_the_sheet_is_of_words(tmp_path, column):
    for layer in ("a_", "a\nb", "`a`", "../x", "<b>", "a|b", "a*"):
        with pytest.raises(InputError, match=rf"line 2: {column} is"):
            study.read_samples(sheet(tmp_path, **{column: layer}), ROW, [], {})
    study.read_samples(sheet(tmp_path, **{column: "raw counts.2"}), ROW, [], {})


@pytest.mark.parametrize("column", ["path", "atac_path", "fragments", "metadata"])
def test_a_path_of_the_sheet_is_one_line_without_wildcards(tmp_path, column):
    for path in filter(None, NASTY_PATHS):
        if "\0" not in path:
            with pytest.raises(InputError, match=rf"line 2: {column} is"):
                study.read_samples(sheet(tmp_path, **{column: path}), ROW, [], {})
    for path in GOOD_PATHS:
        read = study.read_samples(sheet(tmp_path, **{column: path}), ROW, [], {})
        assert read[column].iloc[0] == path


def test_the_catalogue_names_plain_files():
    for line in Path("resources/catalogue.tsv").read_text().splitlines()[1:]:
        name = line.split("\t")[0]
        assert not name.startswith((".", "-")) and set(name) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
        )


def test_a_config_that_names_python_is_not_obeyed(tmp_path):
    """Snakemake reads the config; it is asked for nothing but to plan."""
    config = Path("config/demo/config.yaml").read_text()
    call = f"!!python/object/apply:os.system ['touch {tmp_path}/ran']"
    (tmp_path / "config.yaml").write_text(f"{config}\nresults: {call}\n")
    command = ["snakemake", "--configfile", tmp_path / "config.yaml", "--dry-run", "--cores", "1"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode != 0
    assert not (tmp_path / "ran").exists()
