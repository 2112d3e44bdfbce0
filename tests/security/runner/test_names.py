"""Promise: a name of config or sheet becomes no other path.

The settings are walked, so that a new key of text has to be put into one of three kinds: a name, a
user's path, or free text, which never becomes a path. Runs in the runner's environment.
"""

import csv
import subprocess
from pathlib import Path
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from scdyn import config as study
from scdyn.errors import InputError
from scdyn.settings import Config, SampleRow, Settings

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
    "models.*.batch_key",
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


def texts(kind, place=()):
    """Yield every place of settings that takes text, with its type; {} is a key."""
    origin, parts = get_origin(kind), get_args(kind)
    plain = parts[0] if origin is Annotated else kind
    if plain is str:
        yield ".".join(place), kind
    elif isinstance(plain, type) and issubclass(plain, Settings):
        for key, field in plain.model_fields.items():
            annotated = Annotated[(field.annotation, *field.metadata, None)]
            yield from texts(annotated, (*place, key))
    elif get_origin(plain) is dict:
        yield from texts(get_args(plain)[0], (*place, "{}"))
        yield from texts(get_args(plain)[1], (*place, "*"))
    elif get_origin(plain) is list:
        yield from texts(get_args(plain)[0], (*place, "[]"))
    elif get_origin(plain) in (Union, UnionType):
        for part in get_args(plain):
            yield from texts(part, place)


TEXTS = dict(texts(Config))


def allows(kind, value):
    """Tell whether a type lets a value through, as strictly as settings do."""
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def test_every_text_of_the_config_is_of_a_known_kind():
    assert set(TEXTS) == NAMES | PATHS | FREE | HASH


def test_a_name_is_a_plain_word():
    for place in NAMES:
        let_through = [name for name in NASTY if allows(TEXTS[place], name)]
        # The results may lie a folder deeper, or elsewhere by an absolute path, but never above.
        allowed = ["a/b", "/etc/passwd", "a" * 65] if place == "results" else []
        assert let_through == allowed, place
        assert allows(TEXTS[place], "wild_type2"), place


def test_a_path_is_one_line_without_wildcards():
    for place in PATHS:
        end = ".gtf.gz" if place == "reference.annotation" else ""
        assert not [path for path in NASTY_PATHS if allows(TEXTS[place], path + end)], place
        assert all(allows(TEXTS[place], path + end) for path in GOOD_PATHS), place


def test_a_text_is_one_line_that_no_caption_reads_as_markup():
    for place in FREE:
        assert not [text for text in NASTY_TEXTS if allows(TEXTS[place], text)], place
        assert all(allows(TEXTS[place], text) for text in GOOD_TEXTS), place


def test_a_refused_name_is_said_in_one_sentence():
    config = yaml.safe_load(Path("config/demo/config.yaml").read_text())
    config["tasks"]["../../x\n"] = config["tasks"].pop("fate")
    with pytest.raises(
        InputError, match=r"^here: tasks is '\.\./\.\./x.*becomes a folder\)\. \[SCD-CONFIG\]$"
    ):
        study.read_config(config, "here")


def sheet(folder, **cells):
    row = {"sample": "s", "kind": "10x", "path": "p", **cells}
    with (folder / "samples.tsv").open("w", newline="") as handle:
        writer = csv.writer(handle, delimiter="\t")
        writer.writerows([row.keys(), row.values()])
    return folder / "samples.tsv"


def test_a_sample_is_a_plain_word(tmp_path):
    for name in (name for name in NASTY if "\0" not in name):
        with pytest.raises(InputError, match=r"samples\.tsv"):
            study.read_samples(sheet(tmp_path, sample=name), [], {})


COLUMNS = sorted(dict(texts(SampleRow)))


def test_every_column_of_the_sheet_is_of_a_known_kind():
    assert set(COLUMNS) == {
        "sample", "path", "atac_path", "fragments", "metadata", "rna_layer", "promoter_layer",
    }  # fmt: skip


@pytest.mark.parametrize("column", ["path", "atac_path", "fragments", "metadata"])
def test_a_path_of_the_sheet_is_one_line_without_wildcards(tmp_path, column):
    for path in filter(None, NASTY_PATHS):
        if "\0" not in path:
            with pytest.raises(InputError, match=rf"line 2: {column} is"):
                study.read_samples(sheet(tmp_path, **{column: path}), [], {})
    for path in GOOD_PATHS:
        read = study.read_samples(sheet(tmp_path, **{column: path}), [], {})
        assert read[column].iloc[0] == path


def test_a_config_that_names_python_is_not_obeyed(tmp_path):
    """Snakemake reads the config; it is asked for nothing but to plan."""
    config = Path("config/demo/config.yaml").read_text()
    call = f"!!python/object/apply:os.system ['touch {tmp_path}/ran']"
    (tmp_path / "config.yaml").write_text(f"{config}\nresults: {call}\n")
    command = ["snakemake", "--configfile", tmp_path / "config.yaml", "--dry-run", "--cores", "1"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode != 0
    assert not (tmp_path / "ran").exists()
