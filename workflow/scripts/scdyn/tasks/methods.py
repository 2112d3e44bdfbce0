"""Readable names of the methods that a task compares."""

from __future__ import annotations

from collections.abc import Collection

from scdyn.settings import ENSEMBLE, MAIN

NAMES = {
    MAIN: "scDynOmics",
    "majority": "commonest class",
    "logistic_regression": "logistic regression",
    "logistic_regression_rna": "logistic regression, RNA",
    "logistic_regression_l1": "logistic regression, L1",
    "logistic_regression_pca": "logistic regression, PCA",
    "knn": "nearest neighbours",
    "xgboost": "XGBoost",
    "mlp": "MLP",
    "scanvi": "scANVI",
}


def method_name(method: str) -> str:
    """Return the readable name of a method, of a variant of the model, or of an ensemble."""
    if method.endswith(ENSEMBLE):
        return f"{method_name(method.removesuffix(ENSEMBLE))}, ensemble"
    if method.startswith(f"{MAIN}_"):
        return f"scDynOmics, {method.removeprefix(f'{MAIN}_').replace('_', ' ')}"
    return NAMES.get(method, method)


def choose_model(methods: Collection[str]) -> str:
    """Choose the method that stands for the model: its ensemble, if it is one of the methods."""
    ensemble = f"{MAIN}{ENSEMBLE}"
    return ensemble if ensemble in methods else MAIN
