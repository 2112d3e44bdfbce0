"""Provenance of the results: config, versions, commit, hashes, and a Methods text."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scdyn.io.artefacts import make_stamp, read_stamp
from scdyn.io.environment import read_packages
from scdyn.io.files import Json, sha256
from scdyn.plotting.pages import render
from scdyn.settings import Config, GrnSettings, ModelSettings, QualitySettings, TaskSettings
from scdyn.tasks.methods import method_name
from scdyn.version import __version__

GRN_METHODS = {
    "fast": "ridge regression on ranks",
    "grnboost2": "GRNBoost2 (arboreto {arboreto})",
    "genie3": "GENIE3 (arboreto {arboreto})",
}
MOTIF_PROGRAMS = {
    "fast": "cisTarget's method in the workflow's own code",
    "pyscenic": "cisTarget by pySCENIC {pyscenic}",
}


def read_commit(repository: str | Path) -> str:
    """Read the repository's commit, marked if files were changed; "unknown" without git."""
    try:
        git = ["git", "-C", str(repository)]
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        status = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (" with changes" if status.stdout.strip() else "")


def collect_provenance(
    config: Config,
    sheet: str | Path,
    environments: Sequence[str | Path],
    models: Sequence[str | Path],
    repository: str | Path,
    snakemake: str,
    stamped: Mapping[str, Sequence[str]],
    hashed: Sequence[str | Path],
) -> Json:
    """Collect the config, versions, devices and hashes that identify the results.

    Parameters
    ----------
    config
        The config, with its defaults.
    sheet
        The sample sheet.
    environments
        Package lists of the rules' environments (:func:`scdyn.io.environment.read_packages`).
    models
        ``config.json`` of each pretrained model, in a folder named after the model.
    repository
        The workflow's checkout.
    snakemake
        Version of Snakemake.
    stamped
        By rule, the results that store the version of the code that wrote them.
    hashed
        Results to hash (SHA-256).
    """
    return {
        "scdyn": __version__,
        "code": "{version}, format {format}".format(**make_stamp()),
        "commit": read_commit(repository),
        "snakemake": snakemake,
        "config": config.model_dump(),
        "samples": Path(sheet).read_text(),
        "environments": {Path(path).stem: read_packages(path) for path in environments},
        "devices": {
            Path(path).parent.name: json.loads(Path(path).read_text())["device"] for path in models
        },
        "written_by": {
            rule: dict(Counter(map(read_version, paths))) for rule, paths in stamped.items()
        },
        "sha256": {str(path): sha256(path) for path in hashed},
    }


def read_version(path: str | Path) -> str:
    """Read the version of the code that wrote a result, and its format."""
    return "{version}, format {format}".format(**read_stamp(path))


def describe_versions(record: Json) -> str:
    """Say which versions wrote the results and what to remake; "" if all are by this version.

    Tables and figures store no version and are not counted.

    Parameters
    ----------
    record
        As :func:`collect_provenance` returns it.
    """
    present, written_by = record["code"], record["written_by"]
    versions = sorted({version for counts in written_by.values() for version in counts})
    old = [rule for rule, counts in written_by.items() if set(counts) - {present}]
    if not old:
        return ""
    if len(versions) == 1:
        return f"Version {versions[0]} wrote these results; version {present} wrote this page."
    return (
        f"Several versions of the code wrote these results: {'; '.join(versions)}. To remake them "
        f"with this version ({present}): snakemake --forcerun {' '.join(old)}, with the options "
        "of your run."
    )


def describe_grn(grn: GrnSettings, packages: Mapping[str, str]) -> str:
    """Describe how regulons were inferred, for the Methods text."""
    method = GRN_METHODS[grn.method].format(**packages)
    of_whom = "" if grn.repressing else "positively correlated "
    program = MOTIF_PROGRAMS[grn.motifs].format(**packages)
    targets = (
        f"pruned by motif enrichment ({program}, NES at least {grn.nes_threshold:g})"
        if grn.rankings
        else f"each TF's {grn.n_targets} strongest {of_whom}targets, without a motif database"
    )
    if grn.promoters_prune:
        targets += (
            ", kept where the target's promoter is open in cells that express the TF (permutation "
            f"p at most {grn.promoter_p:g})"
        )
    return (
        f"Regulatory edges were inferred by {method} in {len(grn.seeds)} runs on at most "
        f"{grn.max_cells:,} {'metacells' if grn.cells == 'metacells' else 'cells'}; "
        f"regulons ({targets}) and targets were kept if found in at least "
        f"{grn.runs_needed} runs, and scored by AUCell."
    )


def describe_qc(qc: QualitySettings) -> str:
    """Describe which cells were kept."""
    parts = [
        f"at least {qc.min_rna_counts} UMIs",
        f"at least {qc.min_genes} genes",
        f"at most {qc.max_mito_share:.0%} mitochondrial UMIs",
        f"where promoters were measured at least {qc.min_promoter_counts} promoter counts",
    ]
    optional = (
        (qc.n_mads, "counts within {:g} MADs of the median"),
        (qc.min_tss_enrichment, "a TSS enrichment of at least {:g}"),
        (qc.max_nucleosome_signal, "a nucleosome signal of at most {:g}"),
        (qc.min_promoter_share, "at least {:.0%} of the insertions in promoters"),
        (qc.max_doublet_score, "a doublet score (Scrublet) of at most {:g}"),
        (qc.max_promoter_doublet_score, "a doublet score of the promoter counts of at most {:g}"),
    )
    parts += [words.format(bound) for bound, words in optional if bound is not None]
    kept = ", ".join(parts[:-1]) + f" and {parts[-1]}"
    return kept if qc.keep == "both" else f"{kept}, if they passed in one of both modalities"


def describe_objective(model: ModelSettings) -> str:
    """Describe what a model was pretrained to predict."""
    if model.architecture == "paper":
        return f"the bins of {model.mask_share:.0%} hidden genes"
    low, high = model.thinning
    given = f", given its {model.batch_key}" if model.batch_key else ""
    parts = []
    if model.whole_cell:
        parts.append(
            "counts of a cell that were taken out from those that were left "
            f"({low:.0%} to {high:.0%}){given}, from cell vectors that start as principal "
            "components and, in training, have noise of standard deviation "
            f"{model.cell_noise:g} (weight {model.whole_cell:g}; genes weighted by their mean "
            f"count to the power of -{model.gene_power:g})"
        )
    if model.consistency:
        parts.append(
            "which vector of counts taken out belongs to which vector of counts left, among cells "
            f"of similar depth (weight {model.consistency:g})"
        )
    if model.hidden_values:
        parts.append(
            f"the values of {model.mask_share:.0%} hidden genes (weight {model.hidden_values:g})"
        )
    return "; and ".join(parts)


def describe_fine_tuning(task: TaskSettings, architecture: str, peft: str) -> str:
    """Describe how a model was fine-tuned for a task."""
    if task.is_head_only(architecture):
        how = "by training a head on the frozen encoder"
        if task.n_views > 1:
            how += (
                f", with all counts of a cell and {task.n_views - 1} times with "
                f"{task.thinning:.0%} to 100% of them"
            )
    else:
        how = {
            "lora": f"with LoRA modules of rank {task.rank} (peft {peft})",
            "nonlinear": f"with non-linear modules of rank {task.rank}",
            "full": "by training all parameters",
            "none": "by training a head on the frozen encoder",
        }[task.trained]
    how += "" if task.pretrained else " from a random start"
    if architecture != "paper":
        how += (
            "; its head read the cell vector, principal components and, per class, "
            f"{task.n_markers} marker genes chosen among the training cells;"
        )
    return how


def write_methods(record: Json) -> str:
    """Write a Methods paragraph from the record of a run."""
    config, packages = Config.model_validate(record["config"]), record["environments"]
    reference, qc, grn = config.reference, config.ingest.qc, config.grn
    analysis, torch = packages["analysis"], packages["torch"]
    sentences = [
        f"Data were processed with the scDynOmics workflow (version {record['scdyn']}, commit "
        f"{record['commit'][:12]}; Snakemake {record['snakemake']}).",
        f"Accessibility was counted in pan-promoter windows from -{reference.upstream} to "
        f"+{reference.downstream} bp of every TSS; cells were kept with "
        f"{describe_qc(qc)} (scanpy {analysis['scanpy']}).",
        describe_grn(grn, packages["grn"]),
    ]
    for name, model in config.models.items():
        sentences.append(
            f"Model '{name}' ({model.n_layers} layers, width {model.width}, "
            f"{model.n_heads} heads, {model.n_latents} latents) was pretrained for "
            f"{model.training.epochs} epochs by predicting {describe_objective(model)} "
            f"(PyTorch {torch['torch']} on {record['devices'][name]}, seed {model.seed})."
        )
    for name, task in config.tasks.items():
        unit = f"keeping each {task.split_by} whole" if task.split_by else "over cells"
        how = describe_fine_tuning(task, config.models[task.model].architecture, torch["peft"])
        weights = {
            "none": "All cells had the same weight in training",
            "sqrt": "Classes were weighted by the inverse square root of their number of cells",
            "balanced": "Classes were weighted by the inverse of their number of cells",
        }[task.class_weights]
        averaged = (
            "An ensemble is the mean probability of the seeds of a fold; that of the model has a "
            "temperature of its own. "
        )
        names = "; ".join(map(method_name, task.baselines))
        compared = (
            f"On the same splits it was compared with {names} "
            f"(scikit-learn {analysis['scikit-learn']}, XGBoost {analysis['xgboost-cpu']}). "
        )
        sentences.append(
            f"For task '{name}' ({task.label}) the model was fine-tuned {how} in {task.folds} "
            f"folds {unit} with {len(task.seeds)} seeds; {task.validation_share:.0%} of the "
            "training cells were held out for temperature scaling of the probabilities. "
            f"{averaged if len(task.seeds) > 1 else ''}"
            f"{weights}{', also in the baselines that have weights' if task.baselines else ''}. "
            f"{compared if task.baselines else ''}"
            "Confidence intervals are Student's t over folds, of the mean of the seeds of each, "
            "with the variance corrected for folds that share training cells (Nadeau and Bengio "
            "2003)."
        )
    return " ".join(sentences)


def dump(content: Any, sort_keys: bool = True) -> str:
    """Write a part of the record as YAML."""
    # The way through JSON copies shared objects, for which YAML would write anchors.
    return yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=sort_keys)


def render_provenance(record: Json) -> str:
    """Render the record as an HTML page; every value is escaped."""
    versions = describe_versions(record)
    return render(
        "provenance.html",
        "Provenance",
        commit=record["commit"],
        paragraphs={
            **({"Versions of the code": versions} if versions else {}),
            "Methods": write_methods(record),
        },
        listings={
            "Config, with defaults": dump(record["config"], sort_keys=False),
            "Samples": record["samples"],
            "Environments": dump(record["environments"]),
            "Devices of the pretraining": dump(record["devices"]),
            "Code that wrote the results, by rule": dump(record["written_by"]),
            "SHA-256 of results": json.dumps(record["sha256"], indent=1),
        },
    )
