"""Small corpora on disk, for the tests of what reads them."""

import atexit
import shutil
import tempfile
from functools import cache

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from scdyn.data.corpus import Corpus


def make_genes(n_genes=23, n_tfs=5):
    rng = np.random.default_rng(7)
    ids = [f"g{i:02d}" for i in range(n_genes)]
    return pd.DataFrame(
        {
            "gene_id": ids,
            "symbol": [name.upper() for name in ids],
            "is_tf": np.arange(n_genes) < n_tfs,
            "length": rng.integers(300, 9000, n_genes),
            "n_tss": rng.integers(1, 5, n_genes),
            "is_mt": False,
        }
    )


def make_sample(name="s1", n_cells=40, genes=None, seed=0, measured=True):
    """Random counts of a sample, some cells without any, one modality sparser than the other."""
    genes = make_genes() if genes is None else genes
    rng = np.random.default_rng([seed, *name.encode()])
    shape = (n_cells, len(genes))
    parts = []
    for share in (0.4, 0.1 if measured else 0.0):
        values = rng.integers(1, 300, shape) * (rng.random(shape) < share)
        values[[0, 7 % n_cells, n_cells - 1]] = 0
        parts.append(sparse.csr_matrix(values.astype(np.int32)))
    barcodes = [f"{i:04d}-1" for i in range(n_cells)]
    source = "fragments" if measured else "none"
    obs = pd.DataFrame(
        {"sample": name, "barcode": barcodes, "promoter_source": source},
        index=[f"{name}_{barcode}" for barcode in barcodes],
    )
    obs["rna_counts"] = np.asarray(parts[0].sum(1)).ravel()
    var = genes.set_index("gene_id")
    return ad.AnnData(parts[0], obs=obs, var=var, layers={"promoter": parts[1]})


def make_samples(genes=None):
    """Three samples, the last without promoters."""
    return [
        make_sample("a", 40, genes),
        make_sample("b", 25, genes),
        make_sample("c", 15, genes, measured=False),
    ]


def write_corpus(folder, samples=None):
    """Write samples, or copy the corpus of :func:`make_samples`, which is written once."""
    if samples is not None:
        return Corpus.write(folder, samples)
    shutil.copytree(write_template(), folder)
    return Corpus(folder)


@cache
def write_template():
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return Corpus.write(folder, make_samples()).folder
