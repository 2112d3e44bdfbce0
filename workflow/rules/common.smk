# Config, sample sheet, names and targets: everything the rules share.

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
    EvaluationSettings,
    InputThresholds,
    PretrainingSettings,
    TaskSettings,
)
from scdyn.io.artefacts import read_json
from scdyn.errors import InputError
from scdyn.io.sample_files import COLUMNS, list_input_files, require_distinct
from scdyn.machine import visible_gpus
from scdyn.order import natural_key
from scdyn.io.download import DOWNLOADS, compare_builds, read_catalogue
from scdyn.pp.selection import select_samples
from scdyn_simulate.layout import STUDY_FILES
from scdyn_simulate.layout import files_of as files_of_simulated

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
    # Whatever the order of the sheet: Snakemake does not see that of a rule's inputs.
    SAMPLES = SAMPLES.loc[sorted(SAMPLES.index, key=natural_key)]
    require_distinct(
        {
            sample: list_input_files(row, only_rna=True)
            for sample, row in SAMPLES[list(COLUMNS)].to_dict("index").items()
        }
    )
    COVARIATES = [name for name in SAMPLES if name not in (*COLUMNS, "metadata")]
    CATALOGUE = read_catalogue(BASE / "resources/catalogue.tsv", **CONFIG.resources.model_dump())
    # The files that the config names, by key. Those that rules make may not be there yet.
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
    if "--lint" not in sys.argv:  # which looks at the rules alone, also where no data are
        study.require_files(NAMED, MADE, ORIGIN)
    TRANSLATION = NAMED["ingest.barcode_translation"]
    PUBLIC = [path for paths in NAMED.values() for path in paths]
    BUILDS = compare_builds(CATALOGUE, PUBLIC)
    # Which samples a model is pretrained on, where the sheet alone tells; None where it does not.
    PRETRAINED_ON = {
        name: select_samples(
            SAMPLES.loc[model_samples], model.cells, COVARIATES, f"models.{name}.cells"
        )
        for name, model in CONFIG.models.items()
        for named in [CONFIG.corpora[model.corpus].samples or SAMPLES.index]
        for model_samples in [sorted(named, key=natural_key)]
    }
except InputError as error:
    raise WorkflowError(str(error)) from None
# What captions and scripts read: plain values, with the defaults.
config = CONFIG.model_dump()
if BUILDS and workflow.is_main_process:
    logger.warning(BUILDS)

# On one machine as many GPUs are used at a time as are there; where there is none, the cores bound
# the jobs that would use one. A cluster counts its own.
if workflow.is_main_process and workflow.local_exec and CONFIG.device != "cpu":
    if "gpu" not in workflow.global_resources and visible_gpus():
        workflow.register_resource("gpu", len(visible_gpus()))
# No param: it decides how fast a result is there, not which.
os.environ.update(SCDYN_DEVICE=CONFIG.device)

BEGUN = time.time()
RESULTS = CONFIG.results
# The table of a corpus' cells: labels and covariates join the cells here and nowhere before.
CELLS = f"{RESULTS}/corpus/{{corpus}}.cells.tsv"
LOGS = f"{RESULTS}/logs"
CORPORA, MODELS, TASKS, STUDIES = CONFIG.corpora, CONFIG.models, CONFIG.tasks, CONFIG.studies
ENVIRONMENTS = ["analysis", "grn", "torch", *(["scvi"] if CONFIG.peers else [])]
# Width times layers of a model that one thread trains well.
SMALL_MODEL = 256
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


def samples_of(corpus):
    return sorted(CORPORA[corpus].samples or SAMPLES.index, key=natural_key)


def row_of(sample):
    """What the sample sheet says of a sample's files; its covariates decide nothing about counts."""
    return SAMPLES.loc[sample, list(COLUMNS)].to_dict()


def files_of(sample):
    """Every file that ingestion of a sample reads."""
    return list_input_files(row_of(sample), SIMULATED)


def matrices_of(samples):
    """The files that list the barcodes of some samples."""
    rows = map(row_of, samples)
    return sorted({f for row in rows for f in list_input_files(row, SIMULATED, only_rna=True)})


def sizes(paths):
    """Sizes of the inputs that no rule makes, as a param of the rule that reads them.

    Snakemake compares dates: it takes a file that was replaced by an older one for unchanged.
    """
    return {
        path: os.path.getsize(path)
        for path in sorted(paths)
        if path not in MADE and not path.startswith(f"{RESULTS}/") and os.path.isfile(path)
    }


def metadata_of(samples):
    """The tables of cells of some samples, but for those that are not there: preflight says so."""
    tables = set(SAMPLES.loc[samples, "metadata"])
    return sorted(path for path in tables if path in MADE or Path(path).is_file())


def examined_metadata(corpus):
    """What was found out about a corpus' tables of cells, if it has any."""
    has_tables = any(SAMPLES.loc[samples_of(corpus), "metadata"])
    return [rules.examine_metadata.output[0].format(corpus=corpus)] if has_tables else []


def cells_of_model(wildcards):
    """The table of cells, where a model's selection of cells reads columns of it."""
    name = wildcards.model
    return [] if PRETRAINED_ON[name] is not None else follow(CELLS)(wildcards)


def selection_of_model(wildcards):
    """The cells that a model is pretrained on: by sample, where the sheet alone tells."""
    samples, model = PRETRAINED_ON[wildcards.model], MODELS[wildcards.model]
    return model.cells if samples is None or not model.cells else {"sample": samples}


def names_from(wildcards):
    """Add the names that follow from a wildcard: a study's task, a task's model, its corpus."""
    names = dict(wildcards.items())
    if "study" in names:
        names["task"] = STUDIES[names["study"]].task
    if "task" in names:
        names["model"] = TASKS[names["task"]].model
    if "model" in names:
        names["corpus"] = MODELS[names["model"]].corpus
    return names


def follow(path):
    """Fill another rule's output with the names that follow from the wildcards."""
    return lambda wildcards: path.format(**names_from(wildcards))


def all_folds(path):
    """Fill another rule's output with every fold of the wildcard `task`."""
    return lambda wildcards: expand(path, task=wildcards.task, fold=folds_of(wildcards.task))


def folds_of(task):
    return range(TASKS[task].folds)


def runs_of(path, task, variants):
    """Fill a path with every run of some variants of a task."""
    return [
        path.format(task=task, variant=variant, seed=seed, fold=fold)
        for variant in variants
        for seed, fold in TASKS[task].runs_of(variant)
    ]


def all_runs(path):
    """Fill another rule's output with every run of every variant of the wildcard `task`."""
    return lambda wildcards: runs_of(path, wildcards.task, TASKS[wildcards.task].all_variants())


def main_runs(path):
    """Fill another rule's output with the runs of the main model of the wildcard `task`."""
    return lambda wildcards: runs_of(path, wildcards.task, [MAIN])


def variant_settings(wildcards):
    """What decides a fine-tuned model, so that nothing else in its task's block makes it anew."""
    return TASKS[wildcards.task].all_variants()[wildcards.variant].without_hardware()


def study_settings(wildcards):
    """Settings of the wildcard `study`."""
    return STUDIES[wildcards.study].model_dump()


def model_settings(wildcards):
    """What decides a pretrained model; its corpus and its cells are inputs and params of their own."""
    return MODELS[wildcards.model].part(PretrainingSettings).without_hardware()


def grn_params(*keys):
    """Settings of the regulons' inference, with the seed of what is drawn, as one param.

    Snakemake compares the values of a rule's params as a set, without their names: two numbers that
    change places would remake nothing. So a rule has one param of its settings, with their names.
    """
    return {key: getattr(CONFIG.grn, key) for key in keys} | {"seed": CONFIG.grn.seeds[0]}


def inference_of_run(wildcards):
    """Settings of one run; the one without some cells leaves them out."""
    left_out = CONFIG.grn.left_out_share if wildcards.run == LEFT_OUT else 0
    return grn_params("method") | {"seed": SEED_OF_RUN[wildcards.run], "left_out": left_out}


def forget_refusals():
    """Remove the tables of what was refused, so that the next call looks again.

    What was wrong, such as a permission, may be mended without a change of any file.
    """
    for sample in SAMPLES.index:
        forget(f"{RESULTS}/ingest/{sample}.preflight.tsv")
    for corpus in CORPORA:
        forget(f"{RESULTS}/corpus/{corpus}.metadata.tsv")


def forget(path):
    """Remove a table of findings if one does not pass."""
    if Path(path).exists() and "\tFalse\n" in Path(path).read_text():
        Path(path).unlink()


def task_params(of):
    """Those settings of the wildcard `task` that decide what a rule makes, by a function of it."""
    return lambda wildcards: of(TASKS[wildcards.task]).without_hardware()


def studies_of(kind):
    """A wildcard's pattern: the studies of a kind."""
    return "|".join(name for name, study in STUDIES.items() if study.kind == kind) or "none"


def single_modality_of(wildcards):
    """Methods of a study's task that read one modality alone, by modality."""
    return TASKS[names_from(wildcards)["task"]].variants_of_one_modality()


def modalities_of(wildcards):
    """What to call a study's modalities: by the sheet's layers, where it names one for all."""
    names = {"rna": "RNA", "promoter": "promoters"}
    for modality in names:
        rows = SAMPLES.loc[samples_of(names_from(wildcards)["corpus"]), f"{modality}_layer"]
        if rows.nunique() == 1 and rows.iloc[0]:
            names[modality] = rows.iloc[0]
    return names


def drivers_of(wildcards):
    """The drivers' table of a study's task, where the task is explained."""
    task = names_from(wildcards)["task"]
    return f"{RESULTS}/explain/{task}/drivers.tsv" if task in EXPLAINED else []


def measured_cells(wildcards):
    """The table of cells, where a task compares with a knockout that was measured in some of them."""
    measured = TASKS[wildcards.task].in_silico.measured
    return follow(CELLS)(wildcards) if measured else []


def on_one_node(text):
    """A resource of a model's pretraining, by a setting of it; unset on several nodes."""
    return lambda wildcards: resource_of(text, MODELS[wildcards.model], several=False)


def on_several_nodes(text):
    """The same, unset on one node."""
    return lambda wildcards: resource_of(text, MODELS[wildcards.model], several=True)


def resource_of(text, model, several):
    """Fill a resource with a model's settings, for one node or for several."""
    if (model.nodes > 1) != several:
        return None
    filled = text.format(gpus=model.gpus, nodes=model.nodes)
    return int(filled) if filled.isdecimal() else filled


def threads_of_model(wildcards):
    """Threads of a job on a pretrained model, beside others: several pay only if it is large.

    A small model's jobs are done sooner side by side, a thread each: a good part of such a job is
    its start, which is of one thread whatever it is given.
    """
    model = MODELS[names_from(wildcards)["model"]]
    return 1 if model.width * model.n_layers <= SMALL_MODEL else 8


def by_pilot(key, least, factor, attempt, pilot):
    """What a part needs, by what the pilot found: more than that, and more each time."""
    Path(pilot).stat()  # if it is not made yet, Snakemake goes by this error and asks again
    return ceil(attempt * (least + factor * read_json(pilot)[key]))


def resources_asked_for():
    """The public files that the config names by where they are fetched to."""
    return [path for path in PUBLIC if path in FETCHED]


def final_outputs():
    """What `rule all` asks for; everything else is on the way there."""
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
