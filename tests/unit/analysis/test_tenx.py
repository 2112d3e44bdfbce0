"""Every layout that Cell Ranger has written: the same counts from each."""

import gzip
from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
from scipy import sparse

from scdyn.errors import InputError
from scdyn.io import tenx
from scdyn.io.features import read_barcodes, read_features
from scdyn.io.sample_files import LibraryFiles, find_matrix, locate

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
    assert list(read_barcodes(folder)) == BARCODES


def test_version_2_mtx_has_genes_in_a_folder_a_genome(tmp_path):
    folder = tmp_path / "filtered_gene_bc_matrices" / "mm10"
    write_mtx(folder, list(zip(IDS, SYMBOLS, strict=True)), "genes.tsv", GENES, packed=False)
    assert find_matrix(tmp_path).path == str(folder)
    rna, peaks = tenx.read_matrix(folder)
    assert peaks is None and list(rna.var["gene_ids"]) == IDS
    np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3])
    assert named(folder) == (IDS, SYMBOLS)
    assert list(read_barcodes(folder)) == BARCODES
    (tmp_path / "filtered_gene_bc_matrices" / "hg19").mkdir()
    (tmp_path / "filtered_gene_bc_matrices" / "hg19" / "matrix.mtx").touch()
    with pytest.raises(InputError, match="contains hg19, mm10; name the folder of one genome"):
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
        assert list(read_barcodes(path)) == BARCODES


def test_lists_of_windows_files_are_read(tmp_path):
    folder = tmp_path / "m"
    write_mtx(folder, GENE_ROWS, "features.tsv", GENES, packed=False)
    for name in ("features.tsv", "barcodes.tsv"):
        text = "\ufeff" + (folder / name).read_text().replace("\n", "\r\n")
        (folder / name).write_text(text, newline="")
    rna, _ = tenx.read_matrix(folder)
    assert list(rna.obs_names) == BARCODES and list(rna.var["gene_ids"]) == IDS


@pytest.mark.parametrize("line", ["{}\t{}\t{}", "{}  {}   {}", "{} {} {} ", "  {} {} {}\r"])
def test_any_blanks_separate_the_entries_of_a_matrix(tmp_path, line):
    write_mtx(tmp_path / "m", GENE_ROWS, "features.tsv", GENES, packed=False)
    header, *entries = (tmp_path / "m" / "matrix.mtx").read_text().split("\n3 3 4\n")
    lines = [line.format(*entry.split()) for entry in entries[0].splitlines()]
    text = header + "\n3 3 4\n" + "\n".join(lines) + "\n"
    (tmp_path / "m" / "matrix.mtx").write_bytes(text.encode())
    rna, _ = tenx.read_matrix(tmp_path / "m")
    np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3])
    (tmp_path / "m" / "matrix.mtx").write_text(text.replace(lines[2], "2 2 two"))
    with pytest.raises(InputError, match="matrix.mtx: '2 2 two' is not an entry .row, column and"):
        tenx.read_matrix(tmp_path / "m")


@pytest.mark.parametrize(
    ("write_row", "header"),
    [
        ('"{n}","{name}"', ""),
        ('"{n}","{name}"', '"","x"\n'),
        ("{n}\t{name}", ""),
        ('"{n}" "{name}"', ""),
        ('"{name}","T cell"', ""),
        ("{name},x", ""),
    ],
)
def test_lists_of_barcodes_as_tables_of_r_are_read(tmp_path, write_row, header):
    folder = tmp_path / "m"
    write_mtx(folder, GENE_ROWS, "features.tsv", GENES, packed=False)
    rows = [write_row.format(n=n, name=name) for n, name in enumerate(BARCODES, 1)]
    (folder / "barcodes.tsv").write_text(header + "\n".join(rows) + "\n")
    rna, _ = tenx.read_matrix(folder)
    assert list(rna.obs_names) == list(read_barcodes(folder)) == BARCODES


@pytest.mark.parametrize("write_row", ["cell {n}", "{n}\tA", "7,{n}"])
def test_barcodes_that_only_look_like_tables_are_kept(tmp_path, write_row):
    folder = tmp_path / "m"
    write_mtx(folder, GENE_ROWS, "features.tsv", GENES, packed=False)
    rows = [write_row.format(n=n) for n in range(1, 1 + len(BARCODES))]
    (folder / "barcodes.tsv").write_text("\n".join(rows) + "\n")
    assert list(read_barcodes(folder)) == [row.split("\t")[0] for row in rows]


@pytest.mark.parametrize("end", ["\n", "\n\n\n", " \n", "\r\n", "\t", "\n "])
def test_blank_lines_are_no_entries(tmp_path, end):
    write_mtx(tmp_path / "m", GENE_ROWS, "features.tsv", GENES, packed=False)
    path = tmp_path / "m" / "matrix.mtx"
    text = path.read_text()
    path.write_bytes((text + end).encode())
    tenx.check_first_counts(find_matrix(tmp_path / "m"))
    rna, _ = tenx.read_matrix(tmp_path / "m")
    np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3])
    header, *entries = text.split("\n3 3 4\n")
    path.write_bytes((header + "\n3 3 4\n" + entries[0].rsplit("\n", 2)[0] + "\n" + end).encode())
    with pytest.raises(InputError, match="has 3 entries .* its header declares 4 in a matrix"):
        tenx.read_matrix(tmp_path / "m")
    path.write_bytes((header + "\n3 3 0\n" + end).encode())
    with pytest.raises(InputError, match="the count matrix is empty"):
        tenx.check_first_counts(find_matrix(tmp_path / "m"))


ROWS = [f"{i}\t{s}\tGene Expression" for i, s in zip(IDS, SYMBOLS, strict=True)]


@pytest.mark.parametrize(
    "write_row",
    [
        lambda row: "\t".join(f'"{field}"' for field in row.split("\t")),  # R's write.table
        lambda row: ",".join(f'"{field}"' for field in row.split("\t")[:2]),
        lambda row: row.replace("\t", ","),
        lambda row: row.replace("\t", " "),
        lambda row: row.replace("\t", " \t") + " ",
        lambda row: row + "\t",
        lambda row: row.replace("Gene Expression", "protein_coding"),
        lambda row: row.replace("Gene Expression", "Gene expression"),
        lambda row: row.replace("Gene Expression", ""),
    ],
)
def test_lists_of_other_programs_are_read(tmp_path, write_row):
    folder = tmp_path / "m"
    write_mtx(folder, GENE_ROWS, "features.tsv", GENES, packed=False)
    (folder / "features.tsv").write_text("".join(f"{write_row(row)}\n" for row in ROWS))
    (folder / "barcodes.tsv").write_text("".join(f'"{name}" \n' for name in BARCODES))
    rna, _ = tenx.read_matrix(folder)
    assert list(rna.obs_names) == BARCODES and list(rna.var_names) == SYMBOLS
    assert list(rna.var["gene_ids"]) == IDS


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
        (turn, "list 3 and 3: are they from different runs, or is the matrix transposed"),
        (lose_barcodes, "barcodes.tsv is missing"),
        (lose_features, "features.tsv or genes.tsv or peaks.bed is missing"),
        (repeat_a_barcode, "duplicate barcode AAACCCAAGG-1"),
        (make_fractions, "counts are not integers"),
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


def write_bustools(folder, names=("genes",), cells=BARCODES):
    """Matrices of cells x genes, each with its lists of one column."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names, start=1):
        values = sparse.coo_matrix(i * COUNTS[: len(cells), :3])
        scipy.io.mmwrite(folder / f"{name}.mtx", values)
        (folder / f"{name}.barcodes.txt").write_text("".join(f"{b}\n" for b in cells))
        (folder / f"{name}.genes.txt").write_text("".join(f"{i}\n" for i in IDS))


def test_kallisto_bustools_has_cells_in_rows(tmp_path):
    write_bustools(tmp_path)
    rna, peaks = tenx.read_matrix(tmp_path)
    assert peaks is None
    np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3])
    assert list(rna.var_names) == list(rna.var["gene_ids"]) == IDS
    assert list(rna.obs_names) == BARCODES


def test_mature_and_ambiguous_counts_are_summed(tmp_path):
    write_bustools(tmp_path, ["x.mature", "x.ambiguous", "x.nascent"])
    for kind in ("barcodes", "genes"):
        (tmp_path / f"x.mature.{kind}.txt").rename(tmp_path / f"x.{kind}.txt")
        for name in ("ambiguous", "nascent"):
            (tmp_path / f"x.{name}.{kind}.txt").unlink()
    library = locate(LibraryFiles("10x", str(tmp_path), promoter_layer="unspliced"))
    rna, _ = tenx.read_matrix(library.rna)
    np.testing.assert_array_equal(rna.X.toarray(), 3 * COUNTS[:, :3])
    np.testing.assert_array_equal(
        tenx.read_layer(library.unspliced, rna.obs_names, rna.var["gene_ids"]).toarray(),
        3 * COUNTS[:, :3],
    )


def test_unspliced_counts_are_paired_by_barcode(tmp_path):
    write_bustools(tmp_path, ["spliced"])
    write_bustools(tmp_path, ["unspliced"], BARCODES[:2])
    lines = (tmp_path / "unspliced.barcodes.txt").read_text().split()
    (tmp_path / "unspliced.barcodes.txt").write_text("\n".join(lines[::-1]) + "\n")
    library = locate(LibraryFiles("10x", str(tmp_path), promoter_layer="unspliced"))
    rna, _ = tenx.read_matrix(library.rna)
    expected = COUNTS[[1, 0, 0], :3] * np.array([[1], [1], [0]])
    np.testing.assert_array_equal(
        tenx.read_layer(library.unspliced, rna.obs_names, rna.var["gene_ids"]).toarray(), expected
    )
    (tmp_path / "unspliced.genes.txt").write_text("A\nB\nC\n")
    with pytest.raises(InputError, match="the genes differ from those of the RNA counts"):
        tenx.read_layer(library.unspliced, rna.obs_names, rna.var["gene_ids"])


@pytest.mark.parametrize("all_listed", [True, False])
def test_alevin_fry_keeps_three_counts_of_a_gene(tmp_path, all_listed):
    folder = tmp_path / "alevin"
    folder.mkdir()
    spliced, unspliced, ambiguous = (COUNTS[:, :3] * factor for factor in (1, 5, 7))
    values = np.concatenate([spliced, unspliced, ambiguous], axis=1)
    scipy.io.mmwrite(folder / "quants_mat.mtx", sparse.coo_matrix(values))
    (folder / "quants_mat_rows.txt").write_text("".join(f"{b}\n" for b in BARCODES))
    ends = ["", "-U", "-A"] if all_listed else [""]
    (folder / "quants_mat_cols.txt").write_text("".join(f"{i}{e}\n" for e in ends for i in IDS))
    library = locate(LibraryFiles("10x", str(tmp_path), promoter_layer="unspliced"))
    rna, _ = tenx.read_matrix(library.rna)
    np.testing.assert_array_equal(rna.X.toarray(), spliced + ambiguous)
    np.testing.assert_array_equal(
        tenx.read_layer(library.unspliced, rna.obs_names, rna.var["gene_ids"]).toarray(), unspliced
    )
    assert list(rna.var["gene_ids"]) == list(read_features(library.rna)["id"]) == IDS
    scipy.io.mmwrite(folder / "quants_mat.mtx", sparse.coo_matrix(spliced))
    if not all_listed:
        np.testing.assert_array_equal(tenx.read_matrix(folder)[0].X.toarray(), spliced)
        with pytest.raises(InputError, match="has no separate unspliced counts"):
            tenx.read_matrix(library.unspliced)


def test_genes_times_three_and_cells_times_genes_are_called_what_they_are(tmp_path):
    folder = tmp_path / "m"
    write_mtx(folder, GENE_ROWS[:2], "features.tsv", [0, 1], packed=False)
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(COUNTS[:, :2]))
    with pytest.raises(InputError, match=r"the matrix is transposed \(cells x genes"):
        tenx.read_matrix(folder)
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_matrix(np.tile(COUNTS[:, :2], 3).T))
    with pytest.raises(InputError, match="three columns per gene, as alevin-fry"):
        tenx.read_matrix(folder)


def test_a_list_of_one_column_names_and_identifies_genes(tmp_path):
    folder = tmp_path / "m"
    write_mtx(folder, [(name,) for name in SYMBOLS], "genes.tsv", GENES, packed=False)
    rna, _ = tenx.read_matrix(folder)
    assert list(rna.var_names) == list(rna.var["gene_ids"]) == SYMBOLS


def write_h5_of(path, groups, lists=("barcodes", "genes", "gene_names")):
    """Version 2: a group a genome."""
    matrix = sparse.csr_matrix(COUNTS[:, :3])
    content = {"barcodes": BARCODES, "genes": IDS, "gene_names": SYMBOLS}
    with h5py.File(path, "w") as file:
        for name in groups:
            group = file.create_group(name)
            for key in ("data", "indices", "indptr"):
                group[key] = getattr(matrix, key)
            group["shape"] = np.array([3, 3])
            for key in lists:
                group[key] = np.array(content[key], dtype="S")
    return path


def test_h5_of_version_2_that_cannot_be_used_is_called_what_it_is(tmp_path):
    path = write_h5_of(tmp_path / "two.h5", ["hg19", "mm10"])
    with pytest.raises(InputError, match=r"genes of 2 genomes \(hg19, mm10\)"):
        tenx.read_matrix(path)
    path = write_h5_of(tmp_path / "bare.h5", ["mm10"], ())
    with pytest.raises(
        InputError, match=r"'barcodes' is missing in this matrix of Cell Ranger 2 \(mm10\)"
    ):
        read_features(path)


def test_a_mixture_of_species_is_refused_by_its_ids(tmp_path):
    folder = tmp_path / "m"
    ids = ["GRCh38_ENSG00000000001", "GRCh38_ENSG00000000002", "mm10___ENSMUSG00000000001"]
    write_mtx(folder, list(zip(ids, ids, strict=True)), "genes.tsv", GENES, packed=False)
    with pytest.raises(InputError, match=r"genes of 2 genomes \(GRCh38, mm10\)"):
        tenx.read_matrix(folder)


def test_other_kinds_of_features_are_left_out_and_it_is_said(tmp_path, caplog):
    folder = tmp_path / "m"
    rows = [*GENE_ROWS[:2], ("CD3", "CD3", "Antibody Capture")]
    write_mtx(folder, rows, "features.tsv", GENES, packed=False)
    with caplog.at_level("INFO", logger="scdyn"):
        rna, _ = tenx.read_matrix(folder)
    assert rna.n_vars == 2
    assert "ignoring 1 features of type Antibody Capture" in caplog.text


@pytest.mark.parametrize("n_bytes", [1, 5, 12, 10_000])
@pytest.mark.parametrize("by_cell", [True, False])
def test_blocks_and_order_of_entries_do_not_change_the_counts(
    tmp_path, n_bytes, by_cell, monkeypatch
):
    monkeypatch.setattr(tenx, "BLOCK_BYTES", n_bytes)
    counts = np.vstack(
        [COUNTS[:, :3], np.zeros((1, 3), int), COUNTS[:1, :3], np.zeros((2, 3), int)]
    )
    write_mtx(tmp_path / "m", GENE_ROWS, "features.tsv", GENES, packed=False)
    (tmp_path / "m" / "barcodes.tsv").write_text("".join(f"cell {i}\n" for i in range(7)))
    cells, genes = np.nonzero(counts)
    lines = [f"{g + 1} {c + 1} {counts[c, g]}\n" for c, g in zip(cells, genes, strict=True)]
    head = f"%%MatrixMarket matrix coordinate integer general\n3 7 {len(lines)}\n"
    lines = lines if by_cell else [lines[i] for i in (1, 0, 5, 2, 4, 3)]
    (tmp_path / "m" / "matrix.mtx").write_text(head + "".join(lines))
    rna, _ = tenx.read_matrix(tmp_path / "m")
    np.testing.assert_array_equal(rna.X.toarray(), counts)
    assert rna.X.dtype == np.int32
    (tmp_path / "m" / "matrix.mtx").write_text(head + "".join(lines[:-1]) + "1 8 2\n")
    with pytest.raises(InputError, match="has 6 entries or some out of range"):
        tenx.read_matrix(tmp_path / "m")


def test_counts_are_summed_to_columns_as_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tenx, "CELLS_AT_ONCE", 2)
    features = [GENE_ROWS[0], PEAK_ROWS[0], GENE_ROWS[1], GENE_ROWS[2], PEAK_ROWS[1]]
    order = [0, 3, 1, 2, 4]  # genes and peaks in turn
    write_mtx(tmp_path / "m", features, "features.tsv", order)
    matrix = sparse.csr_matrix(COUNTS[:, order])
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for key in ("data", "indices", "indptr"):
            file[f"matrix/{key}"] = getattr(matrix, key)
        file["matrix/shape"] = np.array([5, 3])
        file["matrix/barcodes"] = np.array(BARCODES, dtype="S")
        columns = zip(("id", "name", "feature_type"), zip(*features, strict=True), strict=True)
        for key, values in columns:
            file[f"matrix/features/{key}"] = np.array(values, dtype="S")
    to_pairs = sparse.csr_matrix(np.array([[0, 1], [1, 0], [0, 1]], dtype=np.int32))
    asked = []

    def choose(kind, features):
        asked.append((kind, list(features.index)))
        names = pd.DataFrame(index=["a", "b"])
        return tenx.Columns(to_pairs, names) if kind == "Gene Expression" else None

    for path in (tmp_path / "m", tmp_path / "m.h5"):
        rna, peaks = tenx.read_matrix(path, choose)
        assert peaks is None and list(rna.var_names) == ["a", "b"]
        np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3] @ to_pairs.toarray())
        assert rna.X.dtype == np.int32 and rna.X.has_sorted_indices
        rna, peaks = tenx.read_matrix(path)
        np.testing.assert_array_equal(rna.X.toarray(), COUNTS[:, :3])
        np.testing.assert_array_equal(peaks.X.toarray(), COUNTS[:, 3:])
    assert asked == [("Gene Expression", SYMBOLS), ("Peaks", NAMES)] * 2


@pytest.mark.parametrize(
    "rows", [[2, 0, 1], [0, 1, 2], [-1, 2, -1, 0], [1, 1, 0, 1], [-1], [], [0, 1]]
)
def test_rows_are_taken_in_any_order_and_stay_sorted(rows):
    counts = sparse.csr_matrix(COUNTS.astype(np.int32))
    taken = tenx.take_rows(counts, np.array(rows, dtype=int))
    expected = [COUNTS[row] if row >= 0 else np.zeros(5) for row in rows]
    np.testing.assert_array_equal(taken.toarray(), np.reshape(expected, (-1, 5)))
    assert taken.dtype == np.int32 and taken.has_sorted_indices
    taken.check_format(full_check=True)


def test_rows_in_their_own_order_are_not_copied():
    counts = sparse.csr_matrix(COUNTS)
    assert tenx.take_rows(counts, np.arange(3)) is counts


N_BEFORE = 2**31 + 5


class Behind:
    """An array of a file, of which only the numbers behind many others are stored."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, part):
        assert part.start >= N_BEFORE
        return self.values[part.start - N_BEFORE : part.stop - N_BEFORE]


def test_more_counts_than_int32_can_number_stand_before_the_cells(monkeypatch):
    monkeypatch.setattr(tenx, "CELLS_AT_ONCE", 2)
    counts = sparse.csr_matrix(COUNTS)
    blocks = tenx.iter_rows(
        Behind(counts.data), Behind(counts.indices), N_BEFORE + counts.indptr.astype(np.int64), 5
    )
    np.testing.assert_array_equal(sparse.vstack(list(blocks)).toarray(), COUNTS)


def test_more_counts_than_int32_can_number_are_taken(monkeypatch):
    """The bounds of rows that have more counts than fit into memory."""

    class Many:
        shape = 3, 5
        data = indices = np.zeros(0)
        indptr = 2**30 * np.arange(4)

        def __getitem__(self, rows):
            return self

    monkeypatch.setattr(tenx, "sparse", SimpleNamespace(csr_matrix=lambda arrays, shape: arrays))
    ends = tenx.take_rows(Many(), np.array([2, -1, 0, 1]))[2]
    assert (ends == 2**30 * np.array([0, 1, 1, 2, 3])).all()
