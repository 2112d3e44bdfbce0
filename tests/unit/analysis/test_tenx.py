"""Every layout that Cell Ranger has written: the same counts from each."""

import gzip

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from scipy import sparse

from scdyn import tenx
from scdyn.errors import InputError
from scdyn.features import barcode_names, read_features
from scdyn.libraries import LibraryFiles, find_matrix, locate

COUNTS = np.array([[1, 0, 3, 0, 5], [0, 2, 0, 0, 1], [4, 0, 0, 6, 0]])  # (cells, features)
BARCODES = ["AAACCCAAGG-1", "CCCTTTGGAA-1", "GGGTTTAACC-1"]
IDS = ["ENSG1", "ENSG2", "ENSG3"]
SYMBOLS = ["Tbx6", "Sox2", "Meis2"]
PEAKS = [("chr1", 100, 200), ("chr2", 300, 450)]
NAMES = [f"{chrom}:{start}-{end}" for chrom, start, end in PEAKS]


def write(path, text, packed):
    if packed:
        with gzip.open(path.with_name(path.name + ".gz"), "wt") as handle:
            handle.write(text)
    else:
        path.write_text(text)


def write_mtx(folder, features, name, columns, packed=True):
    """A folder of matrix, barcodes and a list of features called ``name``."""
    folder.mkdir(parents=True)
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(COUNTS[:, columns].T))
    if packed:
        text = (folder / "matrix.mtx").read_text()
        (folder / "matrix.mtx").unlink()
        write(folder / "matrix.mtx", text, True)
    write(folder / "barcodes.tsv", "".join(f"{b}\n" for b in BARCODES), packed)
    write(folder / name, "".join("\t".join(map(str, row)) + "\n" for row in features), packed)


def named(path):
    """Ids and symbols of the genes that are read without the counts."""
    features = read_features(path)
    genes = features[features["kind"] == "Gene Expression"]
    return list(genes["id"]), list(genes["name"])


GENE_ROWS = list(zip(IDS, SYMBOLS, ["Gene Expression"] * 3, strict=True))
PEAK_ROWS = [(name, name, "Peaks") for name in NAMES]
GENES, ALL = [0, 1, 2], [0, 1, 2, 3, 4]


@pytest.mark.parametrize("packed", [True, False])
def test_version_3_mtx_has_genes_and_peaks(tmp_path, packed):
    outs = tmp_path / "run" / "outs"
    folder = outs / "filtered_feature_bc_matrix"
    write_mtx(folder, GENE_ROWS + PEAK_ROWS, "features.tsv", ALL, packed)
    for path in (tmp_path / "run", outs, folder):
        assert find_matrix(path).path == str(folder)
    rna, peaks = tenx.read_matrix(folder)
    np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3])
    np.testing.assert_array_equal(peaks.X.toarray(), COUNTS[:, 3:])
    assert list(rna.obs_names) == BARCODES and list(rna.var_names) == SYMBOLS
    assert list(rna.var["gene_ids"]) == IDS and list(peaks.var_names) == NAMES
    assert named(folder) == (IDS, SYMBOLS)
    assert list(barcode_names(folder)) == BARCODES


def test_version_2_mtx_has_genes_in_a_folder_a_genome(tmp_path):
    folder = tmp_path / "filtered_gene_bc_matrices" / "mm10"
    write_mtx(folder, list(zip(IDS, SYMBOLS, strict=True)), "genes.tsv", GENES, packed=False)
    assert find_matrix(tmp_path).path == str(folder)
    rna, peaks = tenx.read_matrix(folder)
    assert peaks is None and list(rna.var["gene_ids"]) == IDS
    np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3])
    assert named(folder) == (IDS, SYMBOLS)
    assert list(barcode_names(folder)) == BARCODES
    (tmp_path / "filtered_gene_bc_matrices" / "hg19").mkdir()
    (tmp_path / "filtered_gene_bc_matrices" / "hg19" / "matrix.mtx").touch()
    with pytest.raises(InputError, match="holds hg19, mm10; give the folder of one genome"):
        find_matrix(tmp_path)


def test_atac_output_has_peaks_and_fragments(tmp_path):
    folder = tmp_path / "filtered_peak_bc_matrix"
    write_mtx(folder, PEAKS, "peaks.bed", [3, 4], packed=False)
    (tmp_path / "fragments.tsv.gz").touch()
    place = locate(LibraryFiles("10x", str(tmp_path)))
    assert place.rna.path == str(folder)
    assert place.fragments == str(tmp_path / "fragments.tsv.gz")
    rna, peaks = tenx.read_matrix(folder)
    assert rna is None and list(peaks.var_names) == NAMES
    np.testing.assert_array_equal(peaks.X.toarray(), COUNTS[:, 3:])


def test_h5_of_either_version(tmp_path):
    matrix = sparse.csr_matrix(COUNTS[:, :3])  # (cells, genes): CSC of its transpose
    for version, group in ((2, "mm10"), (3, "matrix")):
        path = tmp_path / f"v{version}.h5"
        with h5py.File(path, "w") as file:
            place = file.create_group(group)
            for key in ("data", "indices", "indptr"):
                place[key] = getattr(matrix, key)
            place["shape"] = np.array([3, 3])
            place["barcodes"] = np.array(BARCODES, dtype="S")
            names = {"genes": IDS, "gene_names": SYMBOLS}
            if version == 3:
                place = place.create_group("features")
                kinds = ["Gene Expression"] * 3
                names = {"id": IDS, "name": SYMBOLS, "feature_type": kinds, "genome": ["mm10"] * 3}
            for key, values in names.items():
                place[key] = np.array(values, dtype="S")
        rna, _ = tenx.read_matrix(path)
        np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3])
        assert list(rna.var["gene_ids"]) == IDS
        assert named(path) == (IDS, SYMBOLS)
        assert list(barcode_names(path)) == BARCODES


def test_lists_of_windows_files_are_read(tmp_path):
    folder = tmp_path / "m"
    write_mtx(folder, GENE_ROWS, "features.tsv", GENES, packed=False)
    for name in ("features.tsv", "barcodes.tsv"):
        text = "\ufeff" + (folder / name).read_text().replace("\n", "\r\n")
        (folder / name).write_text(text, newline="")
    rna, _ = tenx.read_matrix(folder)
    assert list(rna.obs_names) == BARCODES and list(rna.var["gene_ids"]) == IDS


def turn(folder):
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(COUNTS[:2, :3]))


def lose_barcodes(folder):
    (folder / "barcodes.tsv").unlink()


def lose_features(folder):
    (folder / "features.tsv").unlink()


def repeat_a_barcode(folder):
    (folder / "barcodes.tsv").write_text("\n".join([BARCODES[0], *BARCODES[:2]]) + "\n")


def make_fractions(folder):
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(COUNTS[:, :3].T / 2))


def other_features(folder):
    rows = [(i, i, "Antibody Capture") for i in IDS]
    (folder / "features.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (turn, "list 3 and 3; is it of another run, or turned on its side"),
        (lose_barcodes, "lacks barcodes.tsv"),
        (lose_features, "lacks features.tsv or genes.tsv or peaks.bed"),
        (repeat_a_barcode, "AAACCCAAGG-1 stands there twice"),
        (make_fractions, "no counts"),
        (other_features, "3 cells of Antibody Capture"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(tmp_path, damage, words):
    folder = tmp_path / "m"
    write_mtx(folder, GENE_ROWS, "features.tsv", GENES, packed=False)
    damage(folder)
    with pytest.raises(InputError, match=words):
        tenx.read_matrix(folder)


def test_a_folder_without_matrix_is_named(tmp_path):
    with pytest.raises(InputError, match=r"filtered_feature_bc_matrix\.h5"):
        find_matrix(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        find_matrix(tmp_path / "nowhere")


def test_symbols_that_stand_for_two_genes_stay_two(tmp_path):
    folder = tmp_path / "m"
    rows = [(i, "Same", "Gene Expression") for i in IDS]
    write_mtx(folder, rows, "features.tsv", GENES)
    rna, _ = tenx.read_matrix(folder)
    assert isinstance(rna, ad.AnnData) and list(rna.var_names) == ["Same"] * 3
    pd.testing.assert_index_equal(pd.Index(rna.var["gene_ids"]), pd.Index(IDS), check_names=False)
