# Config, sample sheet, names and targets, shared by all rules.

import os
import re
import sys
import time
from math import ceil
from pathlib import Path

from snakemake import __version__ as snakemake_version
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

BASE = Path(workflow.basedir)
sys.path.insert(0, str(BASE / "workflow/scripts"))

from scdyn import config as study
from scdyn.plotting import stage_times
from scdyn.settings import (
    LEFT_OUT,
    MAIN,
    BaselineSettings,
    EncodingSettings,
    EvaluationSettings,
    InputThresholds,
    PretrainingSettings,
    TaskSettings,
)
from scdyn.io.artefacts import read_json, read_zarr_stamp
from scdyn.errors import InputError
from scdyn.io.sample_files import COLUMNS, list_input_files, require_distinct
from scdyn.machine import visible_gpus
from scdyn.order import natural_key
from scdyn.io.download import DOWNLOADS, compare_builds, read_catalogue
from scdyn.pp.selection import select_samples
from scdyn_simulate.layout import STUDY_FILES
from scdyn_simulate.layout import list_files as list_simulated_files

FILE_KEYS = [
    ("reference", "annotation"),
    ("reference", "tfs"),
    ("grn", "rankings"),
    ("grn", "annotations"),
    ("ingest", "barcode_translation"),
]

try:
    if workflow.deployment_settings.deployment_method:
        study.check_environments_folder(
            workflow.deployment_settings.conda_prefix or ".snakemake/conda"
        )
    ORIGIN = ", ".join(map(str, workflow.configfiles)) or "config"
    if workflow.config_settings.config:
        ORIGIN += " with --config"
    config = study.merge_presets(config, workflow.configfiles)
    CONFIG = study.read_config(config, ORIGIN)
    SAMPLES = study.read_samples(CONFIG.samples, CONFIG.covariates, CONFIG.corpora)
    # Sorted, because Snakemake does not notice a changed order of inputs.
    SAMPLES = SAMPLES.loc[sorted(SAMPLES.index, key=natural_key)]
    require_distinct(
        {
            sample: list_input_files(row, only_rna=True)
            for sample, row in SAMPLES[list(COLUMNS)].to_dict("index").items()
        }
    )
    COVARIATES = [name for name in SAMPLES if name not in (*COLUMNS, "metadata")]
    CATALOGUE = read_catalogue(BASE / "resources/catalogue.tsv", **CONFIG.resources.model_dump())
    # The files that the config names, by key. Those that rules write may not exist yet.
    NAMED = {
        f"{section}.{key}": [paths] if isinstance(paths, str) else paths or []
        for section, key in FILE_KEYS
        for paths in [getattr(getattr(CONFIG, section), key)]
    }
    NAMED |= {
        f"tasks.{name}.gene_sets": [task.gene_sets]
        for name, task in CONFIG.tasks.items()
        if task.gene_sets
    }
    FETCHED = {f"{DOWNLOADS}/{name}" for name in CATALOGUE}
    MADE = FETCHED.union(
        [f"{CONFIG.results}/simulation/{name}" for name in STUDY_FILES if CONFIG.simulation],
        [f"{CONFIG.results}/grn/{corpus}/regulons.gmt" for corpus in CONFIG.corpora],
    )
    if "--lint" not in sys.argv:  # --lint checks rules, also without data
        study.require_files(NAMED, MADE, ORIGIN)
    TRANSLATION = NAMED["ingest.barcode_translation"]
    PUBLIC = [path for paths in NAMED.values() for path in paths]
    BUILDS = compare_builds(CATALOGUE, PUBLIC)
    # Samples that a model is pretrained on; None if the selection needs columns of the metadata.
    PRETRAINED_ON = {
        name: select_samples(
            SAMPLES.loc[model_samples], model.cells, COVARIATES, f"models.{name}.cells"
        )
        for name, model in CONFIG.models.items()
        for named in [CONFIG.corpora[model.corpus].samples or SAMPLES.index]
        for model_samples in [sorted(named, key=natural_key)]
    }
except InputError as error:
    raise WorkflowError(f"Error: {error}") from None
# Plain values with the defaults, for captions and scripts.
config = CONFIG.model_dump()
if BUILDS and workflow.is_main_process:
    logger.warning(BUILDS)

# On one machine, run as many GPU jobs at a time as there are GPUs; without GPUs, the cores are the
# limit. A cluster schedules GPUs itself.
if workflow.is_main_process and workflow.local_exec and CONFIG.device != "cpu":
    if "gpu" not in workflow.global_resources and visible_gpus():
        workflow.register_resource("gpu", len(visible_gpus()))
# Not a param, because it changes the speed and not the result.
os.environ.update(SCDYN_DEVICE=CONFIG.device)

BEGUN = time.time()
RESULTS = CONFIG.results
# Table of a corpus' cells, the first file in which cells have labels and covariates.
CELLS = f"{RESULTS}/corpus/{{corpus}}/cells.parquet"
LOGS = f"{RESULTS}/logs"
CORPORA, MODELS, TASKS, STUDIES = CONFIG.corpora, CONFIG.models, CONFIG.tasks, CONFIG.studies
ENVIRONMENTS = ["analysis", "grn", "torch", *(["scvi"] if CONFIG.peers else [])]
# Width times layers up to which one thread per job is the most efficient.
SMALL_MODEL = 256
# Memory of ingestion in multiples of a matrix' file, by the end of its name: 16 bytes per count,
# of which files have from 1.4 (.h5) to 13 (.mtx).
MEMORY_OF_MATRIX = {
    r"\.(h5|h5ad|h5mu)": 10,
    r"\.mtx\.(gz|bz2|xz|zst)": 6,
    r"\.mtx": 2,
    # Fragments are streamed. Their counts depend on the cells more than on the file.
    r".*": 0.5,
}
EXPLAINED = [name for name, task in TASKS.items() if task.explain]


wildcard_constraints:
    sample="[A-Za-z0-9_-]+",
    corpus="|".join(CORPORA),
    run=f"[0-9]+|{LEFT_OUT}",
    model="|".join(MODELS),
    task="|".join(TASKS) or "none",
    variant="[A-Za-z0-9_.-]+",
    seed="[0-9]+",
    fold="[0-9]+",
    study="|".join(STUDIES) or "none",
    environment="|".join(ENVIRONMENTS),
    resource="|".join(map(re.escape, CATALOGUE)),


def list_samples(corpus):
    """List the samples of a corpus in a fixed order."""
    return sorted(CORPORA[corpus].samples or SAMPLES.index, key=natural_key)


def select_row(sample):
    """Select a sample's files from the sheet, without covariates, which do not change counts."""
    return SAMPLES.loc[sample, list(COLUMNS)].to_dict()


def list_files(sample):
    """List all files that the ingestion of a sample reads."""
    return list_input_files(select_row(sample), SIMULATED)


def list_matrices(samples):
    """List the files that have the barcodes of the samples."""
    rows = map(select_row, samples)
    return sorted({f for row in rows for f in list_input_files(row, SIMULATED, only_rna=True)})


def measure_sizes(paths):
    """Measure the inputs that no rule writes, for a param of the rule that reads them.

    Snakemake compares dates, so it does not notice a file that was replaced by an older one.
    """
    return {
        path: os.path.getsize(path)
        for path in sorted(paths)
        if path not in MADE and not path.startswith(f"{RESULTS}/") and os.path.isfile(path)
    }


def list_metadata(samples):
    """List the metadata tables of the samples; preflight reports those that do not exist."""
    tables = set(SAMPLES.loc[samples, "metadata"])
    return sorted(path for path in tables if path in MADE or Path(path).is_file())


def list_metadata_findings(corpus):
    """List the findings on a corpus' metadata tables, if it has any."""
    has_tables = any(SAMPLES.loc[list_samples(corpus), "metadata"])
    return [rules.examine_metadata.output[0].format(corpus=corpus)] if has_tables else []


def find_model_cells(wildcards):
    """Find the table of cells, if a model's cells or its batches need its columns."""
    name = wildcards.model
    in_sheet = MODELS[name].batch_key in (None, "sample", *COVARIATES)
    return [] if PRETRAINED_ON[name] is not None and in_sheet else follow(CELLS)(wildcards)


def select_batches(wildcards):
    """Select the batch of each sample; None if there are none, or they differ within samples."""
    model = MODELS[wildcards.model]
    if model.batch_key not in ("sample", *COVARIATES):
        return None
    names = CONFIG.corpora[model.corpus].samples or SAMPLES.index
    return {
        name: name if model.batch_key == "sample" else SAMPLES.loc[name, model.batch_key]
        for name in sorted(names, key=natural_key)
    }


def select_model_cells(wildcards):
    """Select the cells that a model is pretrained on: by sample, if the sheet has the columns."""
    samples, model = PRETRAINED_ON[wildcards.model], MODELS[wildcards.model]
    return model.cells if samples is None or not model.cells else {"sample": samples}


def resolve_names(wildcards):
    """Add the names that wildcards imply: a study's task, the task's model, the model's corpus."""
    names = dict(wildcards.items())
    if "study" in names:
        names["task"] = STUDIES[names["study"]].task
    if "task" in names:
        names["model"] = TASKS[names["task"]].model
    if "model" in names:
        names["corpus"] = MODELS[names["model"]].corpus
    return names


def follow(path):
    """Fill the path of another rule's output with the names that the wildcards imply."""
    return lambda wildcards: path.format(**resolve_names(wildcards))


def expand_folds(path):
    """Fill the path of another rule's output with every fold of the wildcard `task`."""
    return lambda wildcards: expand(path, task=wildcards.task, fold=list_folds(wildcards.task))


def expand_baselines(path):
    """Fill the path as :func:`expand_folds`, or with nothing if the task has no baselines."""
    return lambda wildcards: (
        expand_folds(path)(wildcards) if TASKS[wildcards.task].baselines else []
    )


def list_folds(task):
    """List the folds of a task."""
    return range(TASKS[task].folds)


def expand_runs(path, task, variants):
    """Fill a path with every run of the given variants of a task."""
    return [
        path.format(task=task, variant=variant, seed=seed, fold=fold)
        for variant in variants
        for seed, fold in TASKS[task].runs_of(variant)
    ]


def expand_all_runs(path):
    """Fill the path of another rule's output with all runs of the wildcard `task`."""
    return lambda wildcards: expand_runs(path, wildcards.task, TASKS[wildcards.task].all_variants())


def expand_main_runs(path):
    """Fill the path of another rule's output with the main model's runs of the wildcard `task`."""
    return lambda wildcards: expand_runs(path, wildcards.task, [MAIN])


def select_variant_settings(wildcards):
    """Select the settings that decide a fine-tuned model; other keys of its task do not."""
    task = TASKS[wildcards.task]
    return task.all_variants()[wildcards.variant].dump_used(MODELS[task.model].architecture)


def select_encoding_settings(wildcards):
    """Select the settings that decide the encoded cells of a fine-tuned model."""
    variant = TASKS[wildcards.task].all_variants()[wildcards.variant]
    return variant.part(EncodingSettings).model_dump()


def find_encoded(task, variant):
    """Find the variant whose encoded cells a variant reads; None if it reads counts."""
    return TASKS[task].find_encoded(variant, MODELS[TASKS[task].model].architecture)


def expand_encoded(path):
    """Fill another rule's output with the variant whose encoded cells the wildcard reads, if any."""

    def fill(wildcards):
        variant = find_encoded(wildcards.task, wildcards.variant)
        return path.format(task=wildcards.task, variant=variant) if variant else []

    return fill


def trains_head_only(wildcards):
    """Tell whether a job trains a head alone, on encoded cells."""
    return find_encoded(wildcards.task, wildcards.variant) is not None


def select_weight_settings(wildcards):
    """Select the settings that decide the weights of logistic regression."""
    task = TASKS[wildcards.task]
    return {"seed": task.seed, "class_weights": task.class_weights}


def select_study_settings(wildcards):
    """Select the settings of the wildcard `study`."""
    return STUDIES[wildcards.study].model_dump()


def select_model_settings(wildcards):
    """Select the settings that decide a pretrained model, besides its corpus and its cells."""
    return MODELS[wildcards.model].part(PretrainingSettings).without_hardware()


def select_grn_settings(*keys):
    """Select settings of the GRN inference and the seed, as one param.

    Snakemake compares the values of params as a set, without names, and would not notice two
    exchanged numbers. Therefore a rule has one param with all its settings by name.
    """
    return {key: getattr(CONFIG.grn, key) for key in keys} | {"seed": CONFIG.grn.seeds[0]}


def select_run_settings(wildcards):
    """Select the settings of one run of the inference."""
    left_out = CONFIG.grn.left_out_share if wildcards.run == LEFT_OUT else 0
    return select_grn_settings("method") | {
        "seed": SEED_OF_RUN[wildcards.run],
        "left_out": left_out,
    }


def remove_failed_findings():
    """Remove tables with failed checks, so that the next call of Snakemake repeats the checks.

    The cause, such as a permission, may be fixed without a change of any file.
    """
    for sample in SAMPLES.index:
        remove_if_failed(f"{RESULTS}/ingest/{sample}.preflight.tsv")
    for corpus in CORPORA:
        remove_if_failed(f"{RESULTS}/corpus/{corpus}.metadata.tsv")


def remove_if_failed(path):
    """Remove a table of findings if a check failed."""
    if Path(path).exists() and "\tFalse\n" in Path(path).read_text():
        Path(path).unlink()


def select_task_settings(of):
    """Select the settings of the wildcard `task` that decide a rule's output, by a function."""
    return lambda wildcards: of(TASKS[wildcards.task]).without_hardware()


def match_studies(kind):
    """Write the pattern of a wildcard that matches the studies of a kind."""
    return "|".join(name for name, study in STUDIES.items() if study.kind == kind) or "none"


def find_single_modality_methods(wildcards):
    """Find the variants of a study's task that read only one modality, by modality."""
    return TASKS[resolve_names(wildcards)["task"]].variants_of_one_modality()


def name_modalities(wildcards):
    """Name a study's modalities: by the layer in the sheet, if all samples have the same."""
    names = {"rna": "RNA", "promoter": "promoters"}
    for modality in names:
        rows = SAMPLES.loc[list_samples(resolve_names(wildcards)["corpus"]), f"{modality}_layer"]
        if rows.nunique() == 1 and rows.iloc[0]:
            names[modality] = rows.iloc[0]
    return names


def find_drivers(wildcards):
    """Find the table of drivers of a study's task, if the task is explained."""
    task = resolve_names(wildcards)["task"]
    return f"{RESULTS}/explain/{task}/drivers.tsv" if task in EXPLAINED else []


def find_measured_cells(wildcards):
    """Find the table of cells, if a task compares perturbations with a measured knockout."""
    measured = TASKS[wildcards.task].in_silico.measured
    return follow(CELLS)(wildcards) if measured else []


def set_on_one_node(text):
    """Set a resource of the pretraining from the model's settings, if it runs on one node."""
    return lambda wildcards: fill_resource(text, MODELS[wildcards.model], several=False)


def set_on_several_nodes(text):
    """Set a resource of the pretraining from the model's settings, if it runs on several nodes."""
    return lambda wildcards: fill_resource(text, MODELS[wildcards.model], several=True)


def fill_resource(text, model, several):
    """Fill in a resource with a model's settings; None if it is for another number of nodes."""
    if (model.nodes > 1) != several:
        return None
    filled = text.format(gpus=model.gpus, nodes=model.nodes)
    return int(filled) if filled.isdecimal() else filled


def choose_threads(wildcards):
    """Choose the threads of a job with a pretrained model: several only for a large model.

    Small models finish sooner as parallel jobs of one thread each, because their jobs spend much of
    their time on the start, which uses one thread.
    """
    model = MODELS[resolve_names(wildcards)["model"]]
    return 1 if model.width * model.n_layers <= SMALL_MODEL else 8


def scale_by_pilot(key, least, factor, attempt, pilot):
    """Scale a resource by the pilot's measurement, with a margin that grows with each attempt."""
    Path(pilot).stat()  # if the file does not exist yet, Snakemake catches this and calls again
    return ceil(attempt * (least + factor * read_json(pilot)[key]))


def size_dense(bytes_per_value, attempt, pilot):
    """Size the memory, in MB, of a program that holds the inference's cells and genes densely."""
    Path(pilot).stat()  # as in scale_by_pilot
    n_values = read_json(pilot)["n_cells"] * read_json(pilot)["n_genes"]
    return ceil(attempt * (2000 + bytes_per_value * n_values / 1e6))


def scale_by_cells(base, per_million):
    """Size a job's memory in MB: a base, and so much per million cells.

    The cells are those of the input ``corpus``, or else of the inputs ``samples``.
    """

    def scale(wildcards, input, attempt):
        paths = [input.corpus] if "corpus" in input.keys() else input.samples
        for path in paths:
            Path(path).stat()  # if it does not exist yet, Snakemake catches this
        if "corpus" in input.keys():
            n_cells = read_json(input.corpus)["n_cells"]
        else:
            n_cells = sum(read_zarr_stamp(Path(path))["n_cells"] for path in paths)
        return ceil(attempt * (base + per_million * n_cells / 1e6))

    return scale


def size_memory(least, factor=0, **more):
    """Size a rule's memory, in MB, by its inputs: ``least`` and ``factor`` times their size.

    ``more`` are further multiples of the inputs of a name. It grows with each attempt. Before the
    inputs exist, Snakemake shows it as to be determined.
    """

    def size(wildcards, input, attempt):
        n_bytes = factor * sum(map(measure_size, input))
        for name, times in more.items():
            paths = input[name]
            n_bytes += times * sum(map(measure_size, [paths] if isinstance(paths, str) else paths))
        return ceil(attempt * (least + n_bytes / 1e6))

    return size


def measure_size(path):
    """Measure the bytes of a file or of the files of a folder."""
    if not os.path.isdir(path):
        return os.path.getsize(path)
    return sum(file.stat().st_size for file in Path(path).rglob("*") if file.is_file())


def size_ingestion(wildcards, input, attempt):
    """Size the memory of an ingestion by its input files."""
    megabytes = 2000
    for path in input.files:
        factor = next(f for end, f in MEMORY_OF_MATRIX.items() if re.search(rf"{end}$", path))
        megabytes += factor * os.path.getsize(path) / 2**20
    return ceil(attempt * megabytes)


def list_resources():
    """List the public files that the config uses and that a rule downloads."""
    return [path for path in PUBLIC if path in FETCHED]


def list_final_outputs():
    """List the inputs of `rule all`."""
    return [
        f"{RESULTS}/preflight.tsv",
        *expand(f"{RESULTS}/ingest/{{sample}}.qc.svg", sample=SAMPLES.index),
        *expand(f"{RESULTS}/grn/{{corpus}}/regulons.svg", corpus=CORPORA),
        *expand(
            f"{RESULTS}/grn/{{corpus}}/regulons.loom",
            corpus=CORPORA if CONFIG.grn.loom else [],
        ),
        *expand(f"{RESULTS}/pretrain/{{model}}/training.svg", model=MODELS),
        *[f"{RESULTS}/embed/{model}/{content.corpus}.svg" for model, content in MODELS.items()],
        *expand(f"{RESULTS}/finetune/{{task}}/task.svg", task=TASKS),
        *expand(f"{RESULTS}/explain/{{task}}/checks.svg", task=EXPLAINED),
        *[f"{RESULTS}/studies/{name}/{content.kind}.svg" for name, content in STUDIES.items()],
        *[
            f"{RESULTS}/studies/{name}/drivers.svg"
            for name, content in STUDIES.items()
            if content.kind == "development" and content.task in EXPLAINED
        ],
        f"{RESULTS}/scores.json",
        f"{RESULTS}/provenance.json",
    ]
