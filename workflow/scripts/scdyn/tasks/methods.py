"""Readable names of the methods that a task compares."""

from __future__ import annotations

from scdyn.settings import MAIN

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
    """Return the readable name of a method or of a variant of the model."""
    if method.startswith(f"{MAIN}_"):
        return f"scDynOmics, {method.removeprefix(f'{MAIN}_').replace('_', ' ')}"
    return NAMES.get(method, method)
