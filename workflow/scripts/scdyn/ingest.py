"""One sample, whatever its files, to RNA and promoter counts over the vocabulary."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import mudata
import numpy as np
import pandas as pd
from scipy import sparse

from scdyn import fragments as fragment_files
from scdyn import tenx
from scdyn.counts import align_genes, raw_counts
from scdyn.errors import InputError
from scdyn.log import logger


def read_sample(
    kind: str, path: str, atac_path: str, fragments: str
) -> tuple[ad.AnnData, ad.AnnData | None, Path | None]:
    """Read a sample's RNA counts and find its accessibility.

    Parameters
    ----------
    kind
        "arc", "h5ad" or "h5mu".
    path, atac_path, fragments
        As in the sample sheet; empty where not given.

    Returns
    -------
    rna : AnnData
        ``X`` counts (cells, genes), and ``layers["promoter"]`` if the file has promoter
        (or unspliced) counts.
    peaks : AnnData or None
        Counts (cells, peaks).
    fragments : Path or None
    """
    peaks, fragment_path = None, Path(fragments) if fragments else None
    if kind == "arc":
        library = tenx.locate(path)
        rna, peaks = tenx.read_matrix(library.matrix)
        fragment_path = fragment_path or library.fragments
    else:
        read = mudata.read_h5mu if kind == "h5mu" else ad.read_h5ad
        try:
            content = read(path)
            peaks = ad.read_h5ad(atac_path) if atac_path else None
        except Exception as error:  # h5py, zlib and anndata each raise their own
            raise InputError(f"{path}: not a readable {kind} ({error}).") from error
        if kind == "h5mu":
            if "rna" not in content.mod:
                raise InputError(f"{path}: has no modality 'rna' but {', '.join(content.mod)}.")
            rna, peaks = content.mod["rna"], content.mod.get("atac", peaks)
        else:
            rna = content
        rna = raw_counts(rna, path)
        peaks = None if peaks is None else raw_counts(peaks, atac_path or path)
    return rna, peaks, fragment_path


def require_barcodes(
    rna: pd.Index, other: pd.Index, min_overlap: float, name: str, what: str
) -> None:
    """Refuse modalities of different cells.

    Raises
    ------
    InputError
        If fewer than ``min_overlap`` of the RNA barcodes are among the others, showing
        five of each.
    """
    n_shared = len(rna.intersection(other))
    logger.info("%s: %d of %d barcodes are among the %s's", name, n_shared, len(rna), what)
    if n_shared < min_overlap * len(rna):
        raise InputError(
            f"sample {name}: only {n_shared} of its {len(rna)} RNA barcodes (such as "
            f"{', '.join(rna[:5])}) are among the barcodes of the {what} (such as "
            f"{', '.join(other[:5])}); ingest.min_barcode_overlap asks for {min_overlap:.0%}: are "
            "these two of the same cells?"
        )


def promoter_counts(
    rna: ad.AnnData,
    peaks: ad.AnnData | None,
    fragments: Path | None,
    windows: pd.DataFrame,
    to_vocabulary: sparse.csr_matrix,
    min_overlap: float,
    name: str,
) -> tuple[sparse.csr_matrix, pd.DataFrame, str]:
    """Count promoter accessibility of the RNA's cells, paired by barcode.

    Fragments come first, then a promoter layer, then peaks.

    Returns
    -------
    counts : csr_matrix
        (cells, genes of the vocabulary), in the order of the RNA's cells; a barcode the
        second modality lacks has an empty row.
    totals : DataFrame
        What :func:`scdyn.fragments.count_insertions` says of each cell; no columns
        without fragments.
    source : str
        "fragments", "promoter layer" or "peaks".
    """
    n_genes = to_vocabulary.shape[1]
    if fragments is not None:
        counts, totals = fragment_files.count_insertions(fragments, windows, n_genes, rna.obs_names)
        seen = rna.obs_names[totals["fragments"] > 0]
        if len(seen) < min_overlap * rna.n_obs:
            first = next(fragment_files.read_fragments(fragments))["barcode"].unique(
                maintain_order=True
            )
            seen = seen.append(pd.Index(first[:5].to_list()))
        require_barcodes(rna.obs_names, seen, min_overlap, name, "fragments")
        return counts, totals, "fragments"
    nothing = pd.DataFrame(index=rna.obs_names)
    if "promoter" in rna.layers:
        return sparse.csr_matrix(rna.layers["promoter"] @ to_vocabulary), nothing, "promoter layer"
    if peaks is None:
        raise InputError(
            f"sample {name}: has neither fragments nor peaks nor a promoter layer; name one in the "
            "sample sheet (columns fragments, atac_path)."
        )
    require_barcodes(rna.obs_names, peaks.obs_names, min_overlap, name, "peaks")
    row = pd.Series(np.arange(peaks.n_obs), index=peaks.obs_names).reindex(rna.obs_names)
    found = row.notna().to_numpy()
    # One row a cell of the RNA, a one where its barcode stands in the peaks.
    pairing = sparse.csr_matrix(
        (np.ones(found.sum()), (np.flatnonzero(found), row[found].astype(int))),
        shape=(rna.n_obs, peaks.n_obs),
    )
    counts = fragment_files.peaks_to_promoters(pairing @ peaks.X, peaks.var_names, windows, n_genes)
    return counts.astype(np.int32), nothing, "peaks"


def join_metadata(barcodes: pd.Index, path: str | Path, sample: str) -> pd.DataFrame:
    """Read what is known of the cells, such as labels or positions.

    The barcodes are looked for in every text column; where there is a column ``sample``,
    only this sample's rows count.

    Parameters
    ----------
    barcodes
        The sample's barcodes.
    path
        A table, comma- or tab-separated, plain or gzipped, with a header.
    sample
        The sample's name.

    Returns
    -------
    DataFrame
        Its columns, a row a barcode in the given order; missing values where the table
        has no row.

    Raises
    ------
    InputError
        If no column holds any of the barcodes, or one stands there twice.
    """
    table = pd.read_csv(
        path, sep="\t" if ".tsv" in Path(path).suffixes else ",", dtype={"sample": str}
    )
    if "sample" in table:
        table = table[table["sample"] == sample].drop(columns="sample")
    shares = {column: table[column].astype(str).isin(barcodes).sum() for column in table}
    key = max(shares, key=shares.get, default=None)
    if key is None or not shares[key]:
        raise InputError(
            f"{path}: no column holds barcodes of sample {sample} (such as "
            f"{', '.join(barcodes[:3])})."
        )
    table = table[table[key].isin(barcodes)].set_index(key)
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise InputError(f"{path}: barcode {twice} of sample {sample} stands there twice.")
    logger.info("%s: metadata of %d of %d cells", sample, len(table), len(barcodes))
    return table.reindex(barcodes).drop(columns="barcode", errors="ignore")


def ingest(
    sheet_row: dict[str, str],
    genes: pd.DataFrame,
    windows: pd.DataFrame,
    min_gene_overlap: float,
    min_barcode_overlap: float,
) -> ad.AnnData:
    """Bring one sample to the vocabulary.

    Parameters
    ----------
    sheet_row
        ``sample``, ``kind``, ``path``, ``atac_path``, ``fragments``, ``metadata`` and the
        covariates.
    genes, windows
        The vocabulary and its promoter windows.
    min_gene_overlap, min_barcode_overlap
        Shares, 0 to 1, below which the sample is refused.

    Returns
    -------
    AnnData
        All barcodes of the matrix, named ``{sample}_{barcode}``: ``X`` RNA counts,
        ``layers["promoter"]`` promoter counts, covariates and metadata in ``obs``,
        columns ``x`` and ``y`` of the metadata in ``obsm["spatial"]``.
    """
    row = dict(sheet_row)
    name = row.pop("sample")
    metadata = row.pop("metadata")
    rna, peaks, fragments = read_sample(
        *(row.pop(key) for key in ("kind", "path", "atac_path", "fragments"))
    )
    to_vocabulary = align_genes(
        rna, genes, min_gene_overlap, f"sample {name}", "ingest.min_gene_overlap"
    )
    counts, totals, source = promoter_counts(
        rna, peaks, fragments, windows, to_vocabulary, min_barcode_overlap, name
    )
    obs = totals.assign(sample=name, barcode=rna.obs_names, promoter_source=source, **row)
    if metadata:
        obs = obs.join(join_metadata(rna.obs_names, metadata, name), rsuffix="_metadata")
    cells = ad.AnnData(
        sparse.csr_matrix(rna.X @ to_vocabulary),
        obs=obs.set_axis(name + "_" + rna.obs_names),
        var=genes.set_index("gene_id"),
        layers={"promoter": counts},
    )
    if {"x", "y"} <= set(obs):
        cells.obsm["spatial"] = cells.obs[["x", "y"]].to_numpy(dtype=float)
    return cells
