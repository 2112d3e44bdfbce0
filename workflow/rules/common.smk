# Config, sample sheet, names and targets: everything the rules share.

import os
import re
import sys
import time
from math import ceil
from pathlib import Path

from snakemake import __version__ as snakemake_version
from snakemake.exceptions import WorkflowError

BASE = Path(workflow.basedir)
sys.path.insert(0, str(BASE / "workflow/scripts"))

from scdyn import config as study
from scdyn import grn_settings, stage_times, task_settings
from scdyn.artefacts import read_json
from scdyn.errors import InputError
from scdyn.libraries import FILES, find_libraries
from scdyn.resources import read_catalogue

try:
    if workflow.deployment_settings.deployment_method:
        study.check_environments_folder(
            workflow.deployment_settings.conda_prefix or ".snakemake/conda"
        )
    ORIGIN = ", ".join(map(str, workflow.configfiles)) or "config"
    config = study.read_config(
        config, study.read_schema(BASE / "workflow/schemas/config.schema.yaml"), ORIGIN
    )
    SAMPLES = study.read_samples(
        config["samples"],
        study.read_schema(BASE / "workflow/schemas/samples.schema.yaml"),
        config["covariates"],
        config["corpora"],
    )
    CATALOGUE = read_catalogue(BASE / "resources/catalogue.tsv", **config["resources"])
    LIBRARIES = {sample: find_libraries(row) for sample, row in SAMPLES.to_dict("index").items()}
except InputError as error:
    raise WorkflowError(str(error)) from None

# Threads that wait by spinning take the cores of whatever runs beside them: on a shared node
# training was six times slower. The jobs inherit this.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Memory that is given back between steps has to be cleared by the system when it is taken again,
# page by page: training was up to a third slower. These keep large tensors' memory in the process.
os.environ.setdefault("MALLOC_MMAP_MAX_", "0")
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**36))
# No param: it decides how fast a result is there, not which.
os.environ.update(SCDYN_DEVICE=config["device"])

BEGUN = time.time()
RESULTS = config["results"]
LOGS = f"{RESULTS}/logs"
CORPORA, MODELS, TASKS, STUDIES = (config[key] for key in ("corpora", "models", "tasks", "studies"))
DOWNLOADS = "resources/downloads"
TRANSLATION = [path for path in [config["ingest"]["barcode_translation"]] if path]
ENVIRONMENTS = ["analysis", "grn", "torch", *(["scvi"] if config["peers"] else [])]
# Width times layers of a model that one thread trains well.
SMALL_MODEL = 256
EXPLAINED = [name for name, task in TASKS.items() if task["explain"]]


wildcard_constraints:
    sample="[A-Za-z0-9_-]+",
    corpus="|".join(CORPORA),
    run=f"[0-9]+|{grn_settings.LEFT_OUT}",
    model="|".join(MODELS),
    task="|".join(TASKS) or "none",
    variant="[A-Za-z0-9_.-]+",
    seed="[0-9]+",
    fold="[0-9]+",
    study="|".join(STUDIES) or "none",
    environment="|".join(ENVIRONMENTS),
    resource="|".join(map(re.escape, CATALOGUE)),


def samples_of(corpus):
    return CORPORA[corpus]["samples"] or list(SAMPLES.index)


def files_of(sample):
    """Files and folders that a row of the sample sheet names, by column."""
    files = {
        column: [getattr(library, column) for library in LIBRARIES[sample]] for column in FILES
    }
    files["metadata"] = [SAMPLES.loc[sample, "metadata"]]
    return {column: sorted({path for path in paths if path}) for column, paths in files.items()}


def names_from(wildcards):
    """Add the names that follow from a wildcard: a study's task, a task's model, its corpus."""
    names = dict(wildcards.items())
    if "study" in names:
        names["task"] = STUDIES[names["study"]]["task"]
    if "task" in names:
        names["model"] = TASKS[names["task"]]["model"]
    if "model" in names:
        names["corpus"] = MODELS[names["model"]]["corpus"]
    return names


def follow(path):
    """Fill another rule's output with the names that follow from the wildcards."""
    return lambda wildcards: path.format(**names_from(wildcards))


def all_folds(path):
    """Fill another rule's output with every fold of the wildcard `task`."""
    return lambda wildcards: expand(path, task=wildcards.task, fold=folds_of(wildcards.task))


def folds_of(task):
    return range(TASKS[task]["folds"])


def runs_of(path, task, variants):
    """Fill a path with every run of some variants of a task."""
    return [
        path.format(task=task, variant=variant, seed=seed, fold=fold)
        for variant in variants
        for seed, fold in task_settings.runs_of(TASKS[task], variant)
    ]


def all_runs(path):
    """Fill another rule's output with every run of every variant of the wildcard `task`."""
    return lambda wildcards: runs_of(
        path, wildcards.task, task_settings.variants_of(TASKS[wildcards.task])
    )


def main_runs(path):
    """Fill another rule's output with the runs of the main model of the wildcard `task`."""
    return lambda wildcards: runs_of(path, wildcards.task, [task_settings.MAIN])


def variant_settings(wildcards):
    """What decides a fine-tuned model, so that nothing else in its task's block makes it anew."""
    return task_settings.variants_of(TASKS[wildcards.task])[wildcards.variant]


def split_settings(wildcards):
    """What decides the split of a task; a variant more leaves it, and every model on it, alone."""
    return task_settings.of_split(TASKS[wildcards.task])


def baseline_settings(wildcards):
    """What decides the baselines of a task."""
    return task_settings.of_baselines(TASKS[wildcards.task])


def settings_of(kind, wildcard):
    """Plain values of one block of the config, chosen by a wildcard, as a rule's params."""
    return lambda wildcards: config[kind][getattr(wildcards, wildcard)]


def studies_of(kind):
    """A wildcard's pattern: the studies of a kind."""
    return "|".join(name for name, study in STUDIES.items() if study["kind"] == kind) or "none"


def alone_of(wildcards):
    """Methods of a study's task that read one modality alone, by modality."""
    return task_settings.alone(TASKS[names_from(wildcards)["task"]])


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


def on_one_node(text):
    """A resource of a model's pretraining, by a setting of it; unset on several nodes."""
    return lambda wildcards: resource_of(text, MODELS[wildcards.model], several=False)


def on_several_nodes(text):
    """The same, unset on one node."""
    return lambda wildcards: resource_of(text, MODELS[wildcards.model], several=True)


def resource_of(text, model, several):
    """Fill a resource with a model's settings, for one node or for several."""
    if (model["nodes"] > 1) != several:
        return None
    filled = text.format(**model)
    return int(filled) if filled.isdecimal() else filled


def threads_of_model(wildcards):
    """Threads of a job that is one of many on a model: several pay only if it is wide or deep.

    A small model's jobs are done sooner side by side, one thread each: an eighth of such a job is
    its start, on one thread whatever it is given.
    """
    model = MODELS[names_from(wildcards)["model"]]
    return 1 if model["width"] * model["n_layers"] <= SMALL_MODEL else 8


def by_pilot(key, least, factor, attempt, pilot):
    """What a part needs, by what the pilot found: more than that, and more each time."""
    Path(pilot).stat()  # if it is not made yet, Snakemake goes by this error and asks again
    return ceil(attempt * (least + factor * read_json(pilot)[key]))


def resources_asked_for():
    """The public files that the config names by where they are fetched to."""
    reference, grn = config["reference"], config["grn"]
    paths = [reference["annotation"], reference["tfs"], *grn["rankings"], grn["annotations"]]
    return [path for path in paths if path in {f"{DOWNLOADS}/{name}" for name in CATALOGUE}]


def final_outputs():
    """What `rule all` asks for; everything else is on the way there."""
    return [
        *expand(f"{RESULTS}/ingest/{{sample}}.qc.svg", sample=SAMPLES.index),
        *expand(f"{RESULTS}/grn/{{corpus}}/regulons.svg", corpus=CORPORA),
        *expand(
            f"{RESULTS}/grn/{{corpus}}/regulons.loom",
            corpus=CORPORA if config["grn"]["loom"] else [],
        ),
        *expand(f"{RESULTS}/pretrain/{{model}}/training.svg", model=MODELS),
        *[f"{RESULTS}/embed/{model}/{content['corpus']}.svg" for model, content in MODELS.items()],
        *expand(f"{RESULTS}/finetune/{{task}}/task.svg", task=TASKS),
        *expand(f"{RESULTS}/explain/{{task}}/checks.svg", task=EXPLAINED),
        *[f"{RESULTS}/studies/{name}/{content['kind']}.svg" for name, content in STUDIES.items()],
        *[
            f"{RESULTS}/studies/{name}/drivers.svg"
            for name, content in STUDIES.items()
            if content["kind"] == "development" and content["task"] in EXPLAINED
        ],
        f"{RESULTS}/scores.json",
        f"{RESULTS}/provenance.json",
    ]
