"""What is wrong with a config or a sheet is said in one sentence that names it."""

import copy
from pathlib import Path

import config_keys
import pytest
import yaml

from scdyn import config as study
from scdyn.errors import InputError
from scdyn.io.sample_files import COLUMNS
from scdyn.settings import QC_PRESETS, SIZES, Config, CorpusSettings, QualitySettings, SampleRow
from scdyn.settings.model import ModelSettings, TrainingSettings

# What is laid over another config names no samples.
SHIPPED = [str(path) for path in Path("config").glob("**/*.yaml") if "samples:" in path.read_text()]


@pytest.fixture
def demo():
    with open("config/demo/config.yaml") as handle:
        return yaml.safe_load(handle)


@pytest.mark.parametrize("path", SHIPPED)
def test_shipped_configs_are_valid_and_their_sheets_too(path):
    with open(path) as handle:
        content = study.read_config(yaml.safe_load(handle), path)
    sheet = study.read_samples(content.samples, content.covariates, content.corpora)
    assert len(sheet)


def test_defaults_are_filled_in_and_given_values_kept(demo):
    content = study.read_config(demo, "demo")
    assert content.reference.upstream == 1500
    assert content.ingest.qc.keep == "both"
    assert content.models["hybrid"].mask_share == 0.15
    assert content.models["hybrid"].width == 32
    assert content.tasks["fate"].training.weight_decay == 0.01
    assert content.tasks["knockout"].explain is False


@pytest.mark.parametrize("path", SHIPPED)
def test_what_a_config_is_dumped_as_is_read_as_the_same(path):
    """Scripts and the provenance have it as plain values, without the presets' names."""
    with open(path) as handle:
        content = study.read_config(yaml.safe_load(handle), path)
    dumped = content.model_dump()
    assert yaml.safe_load(yaml.safe_dump(dumped)) == dumped
    assert Config.model_validate(dumped).model_dump() == dumped
    assert "preset" not in dumped["ingest"]["qc"]
    assert not [model for model in dumped["models"].values() if "size" in model]


def with_values(demo, **changes):
    for path, value in changes.items():
        demo = change(demo, path.replace("__", "."), value)
    return study.read_config(demo, "demo")


def test_a_preset_of_quality_control_fills_in_what_is_not_given(demo):
    bounds = [
        with_values(demo, ingest={"qc": qc}).ingest.qc
        for qc in ("nuclei", "cells", {}, {"preset": "cells", "max_mito_share": 0.1})
    ]
    assert [b.max_mito_share for b in bounds] == [0.05, 0.2, 0.05, 0.1]
    assert all(b.min_genes == 200 for b in bounds)
    assert with_values(demo, ingest={}).ingest.qc.max_mito_share == 0.05


def test_a_preset_is_kept_under_bounds_of_a_later_file(demo, tmp_path):
    for name, text in (("a", "ingest: {qc: cells}"), ("b", "ingest: {qc: {min_genes: 50}}")):
        (tmp_path / name).write_text(text)
    merged = change(demo, "ingest.qc", {"min_genes": 50})
    merged = study.merge_presets(merged, [tmp_path / "a", tmp_path / "b"])
    bounds = study.read_config(merged, "config.yaml").ingest.qc
    assert (bounds.max_mito_share, bounds.min_genes) == (0.2, 50)
    assert study.merge_presets(demo, [tmp_path / "b"]) == demo


def test_a_bound_is_kept_under_a_preset_of_a_later_file(demo, tmp_path):
    texts = ["ingest: {qc: {preset: cells, min_genes: 7}}", "ingest: {qc: nuclei}"]
    files = [tmp_path / "a", tmp_path / "b"]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    # As Snakemake merges the two, and as it lays --config over them.
    for given, min_genes in (("nuclei", 7), ({"preset": "nuclei", "min_genes": 9}, 9)):
        merged = study.merge_presets(change(demo, "ingest.qc", given), files)
        assert merged["ingest"]["qc"] == {"preset": "nuclei", "min_genes": min_genes}
        bounds = study.read_config(merged, "config.yaml").ingest.qc
        assert (bounds.max_mito_share, bounds.min_genes) == (0.05, min_genes)
    # What is no preset and no bounds is left to be refused.
    wrong = change(demo, "ingest.qc", None)
    assert study.merge_presets(wrong, files) == wrong


def given(settings, *keys):
    """What settings have for some keys."""
    return {key: getattr(settings, key) for key in keys}


def test_a_size_fills_in_the_model_and_the_training_of_its_tasks(demo):
    for size, filled in SIZES.items():
        content = with_values(
            demo,
            models={"hybrid": {"corpus": "embryo", "size": size, "width": 24}},
            tasks__fate__training={},
            tasks__knockout__adapter="lora",
            tasks__knockout__training={"epochs": 3, "weight_decay": 0.1},
        )
        model = content.models["hybrid"]
        assert given(model, *filled["model"]) == {**filled["model"], "width": 24}
        pretraining, fine_tuning = filled["pretraining"], filled["fine_tuning"]
        assert given(model.training, *pretraining) == pretraining
        assert model.training.weight_decay == 0.01
        fate, knockout = (content.tasks[name].training for name in ("fate", "knockout"))
        assert given(fate, *fine_tuning) == fine_tuning
        assert given(knockout, *fine_tuning) == {**fine_tuning, "epochs": 3}
        assert knockout.weight_decay == 0.1
    none = with_values(demo, models={"hybrid": {"corpus": "embryo"}}).models["hybrid"]
    assert given(none, *SIZES["full"]["model"]) == SIZES["full"]["model"]


def test_the_papers_model_is_fine_tuned_by_lora_on_all_counts_by_one_rate(demo):
    for architecture, expected in (
        ("paper", (1.0, 1.0, "lora", 0.0)),
        ("expressed", (0.4, 0.3, "none", 0.003)),
    ):
        content = with_values(
            demo, models={"hybrid": {"corpus": "embryo", "architecture": architecture}}
        )
        task = content.tasks["fate"]
        assert (task.thinning, task.encoder_rate, task.adapter, task.penalty) == expected


def test_settings_are_made_by_hand_with_the_defaults_of_the_config(demo):
    """As in a notebook: without a config, with typed blocks in other blocks."""
    model = ModelSettings(corpus="c", size="small", training=TrainingSettings(epochs=3))
    assert given(model, *SIZES["small"]["model"]) == SIZES["small"]["model"]
    assert given(model.training, "epochs", "batch_size") == {"epochs": 3, "batch_size": 64}
    models = {"hybrid": {"corpus": "embryo"}}
    assert with_values(demo, models=models).models["hybrid"] == ModelSettings(corpus="embryo")
    assert "batch_size, default 64\n    Cells per step." in TrainingSettings.__doc__


@pytest.mark.parametrize(
    ("presets", "mark", "blocks"),
    [
        (QC_PRESETS, "preset", [QualitySettings]),
        (SIZES, "size", [ModelSettings, TrainingSettings]),
    ],
)
def test_presets_are_complete_and_of_keys_that_are_there(presets, mark, blocks):
    """Each has the same keys, and the keys that are marked as by it are those."""
    assert len({tuple(config_keys.flatten(preset)) for preset in presets.values()}) == 1
    marked = {
        key
        for block in blocks
        for key, field in block.model_fields.items()
        if (field.json_schema_extra or {}).get("by") == mark
    }
    assert marked == {key.split(".")[-1] for key in config_keys.flatten(presets)} - {"model"}


def change(content, path, value):
    content = copy.deepcopy(content)
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place[key]
    place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("refrence", {}, "unknown key 'refrence'; did you mean 'reference'"),
        ("grn.seed", [1], "unknown key 'grn.seed'; did you mean 'seeds'"),
        ("models.hybrid.training.lr", 1, "unknown key 'models.hybrid.training.lr'"),
        ("studies.spatial.kind", "space", "studies.spatial.kind is 'space'; it must be one of"),
        ("studies.spatial.task", "fates", "study 'spatial' names 'fates', .* tasks"),
        ("tasks.fate.model", "big", "task 'fate' names 'big', .* models"),
        ("models.hybrid.corpus", "x", "model 'hybrid' names 'x', .* corpora"),
        ("models.hybrid.mask_share", 1.5, "models.hybrid.mask_share"),
        ("models.hybrid.batch_key", "cell_type", "is 'cell_type', which is the label of task"),
        (
            "models.hybrid",
            {"corpus": "embryo", "architecture": "paper", "batch_key": "sample"},
            "models.hybrid.batch_key has no effect with architecture: paper",
        ),
        ("models.hybrid.n_bins", 9, "n_bins has no effect with architecture: expressed"),
        ("models.hybrid.thinning", [0.9, 0.3], "thinning is .0.9, 0.3.; the lower share comes"),
        ("models.hybrid.thinning", 0.5, "thinning is '0.5'; it must be a list"),
        ("models.hybrid.thinning", [0.5], "thinning is .0.5.; give 2 values"),
        ("models.hybrid.thinning", [0.1, 0.2, 0.3], "thinning is .*; give 2 values"),
        ("models.hybrid.cell_width", 1, "cell_width is '1'"),
        (
            "models.hybrid",
            {"corpus": "embryo", "whole_cell": 0, "consistency": 0},
            "whole_cell, consistency and hidden_values are 0, so that nothing",
        ),
        ("models.hybrid.gpus", 8, "training.batch_size is 64; 8 GPUs need 128, because cells"),
        ("models.hybrid.training.compiled", True, "compiled: true has no effect unless"),
        ("tasks.knockout.training", {"epochs": 9}, "tasks.knockout.training.epochs has no effect"),
        ("tasks.knockout.rank", 4, "tasks.knockout.rank has no effect with .* adapter: none"),
        ("tasks.knockout.n_pools", 4, "tasks.knockout.n_pools has no effect"),
        ("tasks.knockout.variants", {"a": {"rank": 4}}, "knockout.variants.a.rank has no effect"),
        ("models.hybrid.batch_key", "genotype", "'genotype', by which study 'perturbation'"),
        ("reference.annotation", "genes.gff3", "reference.annotation is 'genes.gff3'"),
        ("results", "../elsewhere", "results is '../elsewhere'"),
        ("results", "/scratch/../lab", "results is '/scratch/../lab'"),
        ("results", "my results", "results is 'my results'.*without spaces"),
        ("grn.annotations", None, "grn.rankings needs grn.annotations"),
        ("grn.seeds", [1, 1], "grn.seeds"),
        ("grn.min_runs", 6, "grn.min_runs is 6, but there are 5 runs"),
        ("models.hybrid.size", "large", "models.hybrid.size is 'large'; it must be one of small,"),
        (
            "models.hybrid",
            {"corpus": "embryo", "width": 32},
            "width is 32, .* n_heads, 12; give",
        ),
        ("ingest.qc", "nucleus", "ingest.qc is 'nucleus'; it must be one of nuclei, cells"),
        ("ingest.qc.preset", "nucleus", "qc.preset is 'nucleus'; it must be one of nuclei, cells"),
        ("grn", 5, "grn is '5'; it must be a mapping"),
        ("grn.seeds", [], "grn.seeds is empty; give at least one"),
        ("corpora", {}, "corpora is empty"),
        ("grn.max_cells", 9, "grn.max_cells is '9'; it must be greater than or equal to 10"),
        ("grn.max_cells", "9", "grn.max_cells is '9'; it must be greater than or equal to 10"),
        ("grn.max_cells", 100.0, "grn.max_cells is '100.0'; it must be an integer"),
        ("grn.max_cells", True, "grn.max_cells is 'true'; it must be an integer"),
        ("grn.promoter_p", True, "grn.promoter_p is 'true'; it must be a number"),
        ("grn.promoter_p", float("nan"), "grn.promoter_p is 'NaN'; it must be"),
        ("grn.loom", 1, "grn.loom is '1'; it must be true or false"),
        ("tasks.fate.label", 1, "tasks.fate.label is '1'; it must be text"),
        ("tasks.fate.train", {"type": ["a`b"]}, "tasks.fate.train.type.0 is 'a`b', which does not"),
        ("tasks.fate.train", {"type": "a"}, "tasks.fate.train.type is 'a'; it must be a list"),
        ("tasks.fate.variants", {"x": {"adaptr": "lora"}}, "variants.x.adaptr'; .* 'adapter'"),
        ("models.hybrid.training", None, "models.hybrid.training is empty; write .. or remove"),
        ("studies.perturbation.control", None, "the key 'studies.perturbation.control' is missing"),
        ("reference", {"annotation": "a.gtf"}, "the key 'reference.tfs' is missing"),
    ],
)
def test_a_fault_is_one_sentence_that_names_it(demo, path, value, words):
    with pytest.raises(InputError, match=words) as caught:
        study.read_config(change(demo, path, value), "config.yaml")
    message = str(caught.value)
    assert message.startswith("config.yaml: ") and "\n" not in message


def test_text_is_read_as_the_value_that_a_key_asks_for(demo):
    content = change(demo, "models.hybrid.training.learning_rate", "1e-3")
    content = change(content, "models.hybrid.training.compiled", "false")
    content = change(content, "grn.seeds", ["1", "2", "3", "4", "5"])
    content = change(content, "grn.min_runs", "null")
    content = change(content, "tasks.fate.explain", "false")
    content = change(content, "tasks.fate.split_by", "1e-3")
    content = change(content, "peers", "false")
    content = change(content, "results", "out/")
    config = study.read_config(content, "config.yaml")
    assert config.models["hybrid"].training.learning_rate == 0.001
    assert config.models["hybrid"].training.compiled is False
    assert config.grn.seeds == [1, 2, 3, 4, 5] and config.grn.min_runs is None
    assert config.tasks["fate"].explain is False and config.peers is None
    assert config.tasks["fate"].split_by == "1e-3" and config.results == "out"
    with pytest.raises(InputError, match="learning_rate is 'fast'; it must be a number"):
        faulty = change(demo, "models.hybrid.training.learning_rate", "fast")
        study.read_config(faulty, "config.yaml")


def test_names_that_become_folders_are_plain(demo):
    content = copy.deepcopy(demo)
    content["corpora"]["../x"] = {}
    with pytest.raises(InputError, match=r"\.\./x"):
        study.read_config(content, "config.yaml")


HEADER = "sample\tkind\tpath\tgenotype\n"


def read(tmp_path, text, corpora=None):
    path = tmp_path / "samples.tsv"
    path.write_text(text)
    return study.read_samples(path, ["genotype"], corpora or {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEADER + "a\t10x\tx\twt\na\t10x\ty\twt\n", "duplicate sample 'a'"),
        (HEADER + "a\tarch\tx\twt\n", "line 2: kind is 'arch'; it must be one of 10x, h5ad, h5mu"),
        (HEADER + "a/../b\t10x\tx\twt\n", "line 2: sample is 'a/../b'"),
        (HEADER + "a\t10x\t\twt\n", "line 2: path"),
        (
            HEADER.replace("path", "pth") + "a\t10x\tx\twt\n",
            "unknown column 'pth'; did you mean 'path'",
        ),
        (
            HEADER.replace("\n", "\tmetdata\n") + "a\t10x\tx\twt\ty\n",
            "'metdata'; did you mean 'meta",
        ),
        (HEADER.replace("\n", "\tMetadata\n") + "a\t10x\tx\twt\ty\n", "did you mean 'metadata'"),
        (HEADER.replace("\n", "\tage (d)\n") + "a\t10x\tx\twt\ty\n", "'age .d.' cannot be a cov"),
        (HEADER.replace("\n", "\tbarcode\n") + "a\t10x\tx\twt\ty\n", "'barcode' cannot be"),
        (HEADER + "\n\na\t10x\tx\twt\nb\t10y\tx\twt\n", "line 5: kind is '10y'"),
        (
            HEADER.replace("\n", "\tgenotype \n") + "a\t10x\tx\twt\tko\n",
            "duplicate column 'genotype'; rename",
        ),
        (
            HEADER.replace("path", "path\tpath") + "a\t10x\tx\ty\twt\n",
            "duplicate column 'path'",
        ),
        (
            HEADER.replace("\n", "\t\n") + "a\t10x\tx\twt\t\nb\t10x\tx\twt\tz\n",
            "line 3: 'z' is in a column without a name",
        ),
        ("# mine\n" + HEADER + "a\t10x\tx\twt\n", "line 1: begins with #, .* cannot have comments"),
        ("#" + HEADER + "a\t10x\tx\twt\n", "line 1: begins with #, .* or the # if it is"),
        (HEADER + "a\t10x\tx\twt\n#b\t10x\tx\twt\n", "line 3: begins with #"),
        (HEADER + 'a\t10x\tx\t"wt\nb\t10x\tx\twt\n', "cannot be read as a sample sheet"),
        (HEADER.replace("genotype", "day") + "a\t10x\tx\t8\n", "the key 'genotype' is missing"),
        (HEADER + "a\t10x\tx\twt\tz\n", "line 2: 'z' is in a column without a name"),
        (HEADER, "has no sample"),
        ("", "has no sample"),
        ("sample,kind,path\na,10x,x\n", "has only one column, .* tab-separated"),
        (HEADER + "NA\t10x\tx\twt\n", "line 2: sample is 'NA'"),
        (HEADER + "\t\t\t\nb\tarch\tx\twt\n", "line 3: kind is 'arch'"),
    ],
)
def test_a_faulty_sheet_is_named(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, text)
    assert "samples.tsv" in str(caught.value)


def test_every_further_column_is_a_covariate(tmp_path):
    path = tmp_path / "samples.tsv"
    further = ["sample_id", "batch", "day", "donor", "replicate", "patient"]
    path.write_text("\t".join(["sample", "kind", "path", *further]) + "\na\t10x\tx" + "\t1" * 6)
    sheet = study.read_samples(path, [], {})
    assert [column for column in sheet if column not in SampleRow.model_fields] == further
    # Listed, a column may be much like one that the sheet could have.
    path.write_text("sample\tkind\tpath\tfragment\na\t10x\tx\tlong\n")
    with pytest.raises(InputError, match="did you mean 'fragments'"):
        study.read_samples(path, [], {})
    assert study.read_samples(path, ["fragment"], {}).loc["a", "fragment"] == "long"


def test_what_spreadsheets_and_r_leave_in_a_sheet_is_taken_out(tmp_path):
    text = "sample \tkind\tpath\tgenotype\tatac_path\tmetadata\n"
    text += "a\t10X \t x.h5\tNA\tNone\tNA\n\t\t\t\t\t\n"
    sheet = read(tmp_path, text)
    assert list(sheet.index) == ["a"]
    row = sheet.loc["a"].to_dict()
    found = [row[name] for name in ("kind", "path", "atac_path", "metadata")]
    assert found == ["10x", "x.h5", "none", ""]
    assert row["genotype"] == "NA"


@pytest.mark.parametrize(
    "text",
    [
        HEADER.replace("\n", "\t\t\n") + "a\t10x\tx\twt\t\t\n",
        HEADER + "a\t10x\tx\twt\t\t\n",
        HEADER.replace("kind", "\tkind") + "a\t\t10x\tx\twt\n",
        "\n\n" + HEADER + "\n \t\na\t10x\tx\twt",
        "genotype\tsample\tkind\tpath\nwt\ta\t10x\tx\n#f00\tb\t10x\ty\n",
    ],
)
def test_empty_lines_and_columns_of_a_sheet_are_none(tmp_path, text):
    sheet = read(tmp_path, text)
    assert set(sheet) == {*SampleRow.model_fields, "genotype"}
    assert sheet.loc["a", ["kind", "path", "genotype"]].tolist() == ["10x", "x", "wt"]


def test_windows_line_ends_and_byte_order_mark_are_taken(tmp_path):
    sheet = read(tmp_path, "\ufeff" + HEADER.replace("\n", "\r\n") + "001\t10x\tx\twt\r\n")
    assert sheet.loc["001", "genotype"] == "wt"  # ids stay text
    assert sheet.loc["001", "fragments"] == ""


@pytest.mark.parametrize("page", ["docs/own-data.md", "docs/input.md"])
def test_sheets_on_the_pages_are_valid(page, tmp_path):
    path = tmp_path / "samples.tsv"
    path.write_text(Path(page).read_text().split("```tsv\n")[1].split("```")[0])
    assert "condition" in study.read_samples(path, [], {})


def test_a_corpus_of_unknown_samples_is_refused(tmp_path):
    with pytest.raises(InputError, match="corpus 'c' names sample 'b'"):
        read(tmp_path, HEADER + "a\t10x\tx\twt\n", {"c": CorpusSettings(samples=["b"])})


def test_a_corpus_that_names_a_sample_twice_is_refused(demo):
    named = {"all": {"samples": ["a", "a"]}}
    with pytest.raises(InputError, match="corpora.all.samples has a duplicate 'a'"):
        study.read_config(demo | {"corpora": demo["corpora"] | named}, "demo")


def test_every_key_says_what_it_means():
    blocks = [Config, SampleRow]
    for block in blocks:
        for key, field in block.model_fields.items():
            assert field.description, (block, key)
            blocks += [b for b in config_keys.find_blocks(field.annotation) if b not in blocks]
    assert len(blocks) > 15


def test_the_sheet_s_columns_are_those_that_ingestion_reads_and_the_metadata():
    assert [*COLUMNS, "metadata"] == list(SampleRow.model_fields)
