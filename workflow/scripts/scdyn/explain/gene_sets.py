"""Attribution of regulons, and enrichment of gene sets in a ranking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, mannwhitneyu

from scdyn.errors import InputError
from scdyn.explain.matching import permute_within_bins
from scdyn.io.files import open_text

MIN_GENES = 3


def regulon_members(regulons: pd.DataFrame) -> dict[str, set[str]]:
    """Return the symbols of each regulon's TF and targets."""
    return {
        str(name): {*part["tf"].astype(str), *part["target"].astype(str)}
        for name, part in regulons.groupby("regulon", sort=False)
    }


def membership(sets: Mapping[str, set[str]], symbols: pd.Series) -> pd.DataFrame:
    """Return set membership (sets, genes), 0 or 1, of sets with at least three of the genes."""
    table = pd.DataFrame({name: symbols.isin(members) for name, members in sets.items()}).T
    return table[table.sum(axis=1) >= MIN_GENES].astype(float)


def regulon_attribution(
    attributions: pd.DataFrame,
    sets: Mapping[str, set[str]],
    expression: pd.Series,
    n_permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Sum each class's mean attributions over a regulon's genes, and test it by permutation.

    Attributions add up to a difference of log-odds, so their sum over genes is the regulon's
    contribution; genes have equal weights. The null distribution permutes attributions among genes
    of similar mean expression (ten bins), because highly expressed genes have larger attributions.

    Parameters
    ----------
    attributions
        As :func:`scdyn.explain.attribution_tables.attribution_table`.
    sets
        Regulon to symbols (:func:`regulon_members`).
    expression
        Mean expression by gene id (:func:`scdyn.explain.drivers.average_expression`).
    n_permutations, seed
        Number of permutations, and their seed.

    Returns
    -------
    DataFrame
        ``class``, ``regulon``, ``n_genes``, ``attribution`` (sum), ``z`` (standard deviations
        from the mean of the permutations), ``p`` (one-sided, greater) and ``q``
        (Benjamini-Hochberg within the class); highest ``z`` first.
    """
    rng = np.random.default_rng(seed)
    both = attributions[attributions["modality"] == "both"]
    tables = []
    for label, part in both.groupby("class", sort=False):
        part = part.sort_values("gene_id")
        members = membership(sets, part["symbol"])
        if members.empty:
            continue
        values, height = part["mean"].to_numpy(), expression[part["gene_id"]].to_numpy()
        found = members.to_numpy() @ values
        permuted = [permute_within_bins(values, height, rng) for _ in range(n_permutations)]
        chance = members.to_numpy() @ np.stack(permuted, axis=1)
        p = (1 + (chance >= found[:, None]).sum(1)) / (1 + n_permutations)
        spread = np.maximum(chance.std(1), 1e-12)
        tables.append(
            pd.DataFrame(
                {
                    "class": label,
                    "regulon": members.index,
                    "n_genes": members.sum(axis=1).astype(int).to_numpy(),
                    "attribution": found,
                    "z": (found - chance.mean(1)) / spread,
                    "p": p,
                    "q": false_discovery_control(p),
                }
            ).sort_values("z", ascending=False, kind="stable")
        )
    columns = ["class", "regulon", "n_genes", "attribution", "z", "p", "q"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def read_gmt(path: str | Path) -> dict[str, set[str]]:
    """Read gene sets from GMT: one set per line; tab-separated name, description, symbols.

    Raises
    ------
    InputError
        If a line has no genes.
    """
    sets = {}
    with open_text(path) as handle:
        for number, line in enumerate(handle, start=1):
            name, *rest = line.rstrip("\r\n").split("\t")
            if len(rest) < 2:
                raise InputError(
                    "EXPLAIN",
                    f"{path}, line {number}: not a gene set in GMT format; expected name, "
                    "description and symbols, separated by tabs.",
                )
            sets[name] = {symbol for symbol in rest[1:] if symbol}
    return sets


def gene_set_enrichment(attributions: pd.DataFrame, sets: Mapping[str, set[str]]) -> pd.DataFrame:
    """Test for high specificity of a set's genes, by the Mann-Whitney test.

    The test ignores the correlation of genes within a set, so the p-values are too small (Wu and
    Smyth 2012) and only rank the sets.

    Parameters
    ----------
    attributions
        As :func:`scdyn.explain.attribution_tables.attribution_table`.
    sets
        Name to symbols.

    Returns
    -------
    DataFrame
        ``class``, ``set``, ``n_genes`` (in the vocabulary), ``auroc`` (of the set's genes among
        all), ``p`` (one-sided) and ``q`` (Benjamini-Hochberg within the class); smallest ``p``
        first.

    Raises
    ------
    InputError
        If there are sets and none has three genes of the vocabulary.
    """
    columns = ["class", "set", "n_genes", "auroc", "p", "q"]
    if not sets:
        return pd.DataFrame(columns=columns)
    both = attributions[attributions["modality"] == "both"]
    tables = []
    for label, part in both.groupby("class", sort=False):
        scores = part["specificity"].to_numpy()
        rows = []
        for name, members in sets.items():
            inside = part["symbol"].isin(members).to_numpy()
            if MIN_GENES <= inside.sum() < len(inside):
                test = mannwhitneyu(scores[inside], scores[~inside], alternative="greater")
                auroc = test.statistic / (inside.sum() * (~inside).sum())
                rows.append((label, name, int(inside.sum()), auroc, test.pvalue))
        table = pd.DataFrame(rows, columns=columns[:-1])
        if table.empty:
            raise InputError(
                "EXPLAIN",
                f"gene_sets: no set has {MIN_GENES} genes of the vocabulary; check "
                "that the sets have gene symbols of this species.",
            )
        table["q"] = false_discovery_control(table["p"])
        tables.append(table.sort_values("p", kind="stable"))
    return pd.concat(tables, ignore_index=True)
