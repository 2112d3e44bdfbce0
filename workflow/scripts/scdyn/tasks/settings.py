"""What the config's ``tasks`` mean: which models are fine-tuned for each; plain values alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The model as the task's block describes it; variants of it are named behind it.
MAIN = "scdynomics"
# What people call the methods.
NAMES = {
    MAIN: "scDynOmics",
    "majority": "commonest class",
    "logistic_regression": "logistic regression",
    "logistic_regression_rna": "logistic regression, RNA",
    "logistic_regression_l1": "logistic regression, L1",
    "knn": "nearest neighbours",
    "xgboost": "XGBoost",
    "mlp": "MLP",
    "scanvi": "scANVI",
}
# What decides a fine-tuned model besides the cells; the rest of a task's block does not.
DECISIVE = (
    "adapter",
    "rank",
    "pretrained",
    "modalities",
    "n_pools",
    "hidden",
    "dropout",
    "training",
)


def method_name(method: str) -> str:
    """Name a method as people do; variants of the model by what differs."""
    if method.startswith(f"{MAIN}_"):
        return f"scDynOmics, {method.removeprefix(f'{MAIN}_').replace('_', ' ')}"
    return NAMES.get(method, method)


def variants_of(task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name the models that are fine-tuned for a task, with the settings of each.

    Parameters
    ----------
    task
        One entry of the config's ``tasks``.

    Returns
    -------
    dict
        ``scdynomics``, the model as the block has it; ``scdynomics_NAME`` for each of its
        ``variants``; ``labels_SHARE``, which see a share of the labels; ``without_I``, from which
        the I-th of ``left_out`` classes is kept. Settings are those that decide the model, with
        ``labels`` (the share) and ``without`` (the class, or None).
    """
    main = {key: task[key] for key in DECISIVE} | {"labels": 1.0, "without": None}
    variants = {MAIN: main}
    for name, changes in task["variants"].items():
        changes = {key: value for key, value in changes.items() if key != "seeds"}
        rate = changes.pop("learning_rate", main["training"]["learning_rate"])
        training = main["training"] | {"learning_rate": rate}
        variants[f"{MAIN}_{name}"] = main | changes | {"training": training}
    return variants | {name: main | seen for name, seen in less_seen(task).items()}


def is_compared(variant: str) -> bool:
    """Tell whether a variant is scored beside the baselines: all classes, all labels."""
    return variant == MAIN or variant.startswith(f"{MAIN}_")


def runs_of(task: Mapping[str, Any], variant: str) -> list[tuple[int, int]]:
    """List the runs of a variant: seed and fold; of a model without a class, the first alone."""
    if variant.startswith("without_"):
        return [(task["seeds"][0], 0)]
    own = task.get("variants", {}).get(variant.removeprefix(f"{MAIN}_"), {})
    seeds = own.get("seeds", task["seeds"])
    return [(seed, fold) for seed in seeds for fold in range(task["folds"])]


def alone(task: Mapping[str, Any]) -> dict[str, str]:
    """Name, by modality, the variant that reads this one alone; the first if there are several."""
    found: dict[str, str] = {}
    for name, settings in variants_of(task).items():
        if is_compared(name) and settings["modalities"] != "both":
            found.setdefault(settings["modalities"], name)
    return found


def of_split(task: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide which cells are learned from and tested: plain values."""
    keys = ["label", "train", "predict", "split_by", "folds", "validation_share"]
    keys += ["min_cells_per_class", "min_units"]
    return {key: task[key] for key in keys} | {"seed": task["seeds"][0]}


def of_baselines(task: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide which baselines are fitted to which cells: plain values."""
    keys = ("baselines", "seeds", "folds", "label_shares", "left_out")
    return {key: task[key] for key in keys}


def of_evaluation(task: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide how a task's runs are scored side by side."""
    keys = ("split_by", "variants", "seeds", "folds", "label_shares", "left_out")
    return {key: task[key] for key in (*keys, *DECISIVE)}


def of_explanation(task: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide the attributions of a task's main runs."""
    keys = ("attribution_baseline", "steps", "explained_cells")
    return {key: task[key] for key in keys} | {"seeds": task["seeds"][:1]}


def of_checks(task: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide the checks of an explanation; one fits the main model once more."""
    keys = ("checked_cells", *DECISIVE)
    return of_explanation(task) | {key: task[key] for key in keys}


def of_in_silico(task: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide which perturbations are tried in a task's main runs."""
    keys = ("in_silico", "checked_cells")
    return {key: task[key] for key in keys} | {"seeds": task["seeds"][:1]}


def less_seen(task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Name the variants that see fewer labels, or not all classes: share and class of each."""
    shares = {f"labels_{share:g}": (share, None) for share in task["label_shares"]}
    classes = {f"without_{i}": (1.0, name) for i, name in enumerate(task["left_out"])}
    return {
        name: {"labels": share, "without": without}
        for name, (share, without) in {**shares, **classes}.items()
    }
