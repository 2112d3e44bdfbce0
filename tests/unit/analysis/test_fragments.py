"""Insertions and peaks in promoter windows, against counts worked out by hand."""

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import sparse

from scdyn.errors import InputError
from scdyn.io import fragments
from scdyn.pp.reference import make_tss_rings

# Gene 0 has two overlapping windows, gene 1 one on the same chromosome, gene 2 one elsewhere.
WINDOWS = pd.DataFrame(
    {
        "chrom": ["chr1", "chr1", "chr1", "chr2"],
        "start": [100, 150, 400, 100],
        "end": [200, 250, 500, 200],
        "gene": [0, 0, 1, 2],
    }
)


def write(path, rows):
    with gzip.open(path, "wt") as handle:
        handle.write("# id=toy\n# a header, as Cell Ranger writes one\n")
        for row in rows:
            handle.write("\t".join(map(str, row)) + "\n")
    return path


def test_both_ends_count_in_every_window_that_holds_them(tmp_path):
    path = write(
        tmp_path / "f.tsv.gz",
        [
            ("chr1", 160, 451, "A", 1),  # 160 lies in two windows of gene 0, 450 in gene 1's
            ("chr1", 99, 201, "A", 1),  # 99 lies before the window, 200 in the second of gene 0
            ("chr1", 100, 200, "B", 3),  # 100 and 199: gene 0 once and twice; duplicates count once
            ("chr2", 199, 301, "B", 1),  # 199: gene 2; 300 nowhere
            ("chr2", 200, 260, "B", 1),  # half open: 200 is outside
            ("chr1", 160, 451, "X", 1),  # not a called barcode
            ("chr9", 160, 451, "A", 1),  # no window there
        ],
    )
    counts, totals = fragments.count_insertions(path, WINDOWS, 3, pd.Index(["B", "A", "C"]))
    np.testing.assert_array_equal(counts.toarray(), [[3, 0, 1], [3, 1, 0], [0, 0, 0]])
    assert totals["fragments"].tolist() == [3, 3, 0]
    assert totals["insertions_in_promoters"].tolist() == [3, 3, 0]


def test_counts_equal_brute_force_on_random_fragments(tmp_path):
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 3000, 500)
    rows = [
        (f"chr{rng.integers(1, 4)}", s, s + rng.integers(20, 400), "ABCD"[rng.integers(4)], 1)
        for s in starts
    ]
    window_starts = np.sort(rng.integers(0, 3000, 60))
    windows = pd.DataFrame(
        {
            "chrom": np.repeat(["chr1", "chr2"], 30),
            "start": np.concatenate([np.sort(window_starts[::2]), np.sort(window_starts[1::2])]),
            "gene": rng.integers(0, 20, 60),
        }
    )
    windows["end"] = windows["start"] + rng.integers(50, 600, 60)  # nested and overlapping
    expected = np.zeros((4, 20), dtype=int)
    for chrom, start, end, barcode, _ in rows:
        for position in (start, end - 1):
            for w in windows.itertuples():
                if w.chrom == chrom and w.start <= position < w.end:
                    expected["ABCD".index(barcode), w.gene] += 1
    path = write(tmp_path / "f.tsv.gz", rows)
    counts, _ = fragments.count_insertions(path, windows, 20, pd.Index(list("ABCD")))
    np.testing.assert_array_equal(counts.toarray(), expected)
    assert counts.sum() > 100


def test_enrichment_at_tss_is_insertions_a_base_over_those_in_the_flanks(tmp_path):
    genes = pd.DataFrame({"chrom": ["chr1", "chr1"], "tss": ["5000", "5000,9000"]})
    rings = make_tss_rings(genes)  # a TSS of two genes counts once
    places = rings[rings["is_centre"]][["start", "end"]].to_numpy().tolist()
    assert places == [[4950, 5051], [8950, 9051]]
    # A: 4950 and 5050 at the first TSS, 3000 and 3099 in its flank; 4949 and 3100 in neither.
    rows = [("chr1", 4950, 5051, "A", 1), ("chr1", 3000, 3100, "A", 1)]
    rows += [("chr1", 3100, 4950, "A", 1), ("chr1", 6901, 7001, "B", 1)]
    path = write(tmp_path / "f.tsv.gz", rows)
    barcodes = pd.Index(["A", "B", "C"])
    _, totals = fragments.count_insertions(path, WINDOWS, 3, barcodes, rings=rings)
    # B: 6901 and 7000 in the flank after 5000, of which 7000 is in the flank before 9000 too.
    expected = [(2 / 101) / (2 / 200), 0, 0]
    np.testing.assert_allclose(totals["tss_enrichment"], expected)
    assert totals["promoter_share"].tolist() == [0, 0, 0]


def test_blocks_do_not_change_the_counts(tmp_path, monkeypatch):
    rows = [("chr1", 100 + i % 90, 150 + i % 90, "AB"[i % 2], 1) for i in range(4000)]
    path = write(tmp_path / "f.tsv.gz", rows)
    whole, _ = fragments.count_insertions(path, WINDOWS, 3, pd.Index(["A", "B"]))
    assert whole.sum() > 4000
    monkeypatch.setattr(fragments, "BLOCK_BYTES", 2000)
    for n_held in (1, 700):
        monkeypatch.setattr(fragments, "INSERTIONS_AT_ONCE", n_held)
        parts, _ = fragments.count_insertions(path, WINDOWS, 3, pd.Index(["A", "B"]))
        np.testing.assert_array_equal(whole.toarray(), parts.toarray())
        assert parts.dtype == np.int32 and parts.has_sorted_indices


def test_more_places_than_int32_can_number(tmp_path):
    path = write(tmp_path / "f.tsv.gz", [("chr1", 160, 451, "A", 1), ("chr2", 150, 161, "Z", 1)])
    n_cells, n_genes = 100_000, 40_000
    cells = pd.Index(["A", *map(str, range(n_cells - 2)), "Z"])
    windows = WINDOWS.assign(gene=[0, 0, 1, n_genes - 1])
    counts, _ = fragments.count_insertions(path, windows, n_genes, cells)
    assert n_cells * n_genes > 2**31
    found = counts.tocoo()
    assert [*zip(found.row, found.col, found.data, strict=True)] == [
        (0, 0, 2), (0, 1, 1), (n_cells - 1, n_genes - 1, 2)
    ]  # fmt: skip


def test_foreign_chromosomes_are_refused(tmp_path):
    path = write(tmp_path / "f.tsv.gz", [("KI270728.1", 160, 451, "A", 1)])
    with pytest.raises(InputError, match="same genome build"):
        fragments.count_insertions(path, WINDOWS, 3, pd.Index(["A"]))


def test_chromosomes_go_by_any_name(tmp_path):
    path = write(
        tmp_path / "f.tsv.gz", [("1", 160, 451, "A", 1), ("NC_000002.12", 150, 190, "A", 1)]
    )
    counts, _ = fragments.count_insertions(path, WINDOWS, 3, pd.Index(["A"]))
    assert counts.toarray().tolist() == [[2, 1, 2]]
    peaks = sparse.csr_matrix(np.array([[3, 5]]))
    names = pd.Index(["1:160-170", "2:150-160"])
    summed = peaks @ fragments.map_peaks(names, WINDOWS, 3)
    assert summed.toarray().tolist() == [[6, 0, 5]]


def test_truncated_file_is_refused(tmp_path):
    path = write(tmp_path / "f.tsv.gz", [("chr1", i, i + 50, "A", 1) for i in range(9000)])
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match=str(path)):
        fragments.count_insertions(path, WINDOWS, 3, pd.Index(["A"]))


def test_peaks_are_summed_over_the_windows_they_meet():
    peaks = sparse.csr_matrix([[1, 2, 4, 8], [0, 0, 1, 0]])
    names = pd.Index(["chr1:190-300", "chr1:250-400", "chr2:50-101", "chr7:1-2"])
    counts = peaks @ fragments.map_peaks(names, WINDOWS, 3)
    # The first peak meets both windows of gene 0, the second none (half open), the third gene 2.
    np.testing.assert_array_equal(counts.toarray(), [[2, 0, 4], [0, 0, 1]])


def test_a_peak_without_place_is_named():
    with pytest.raises(InputError, match="promoter_7"):
        fragments.map_peaks(pd.Index(["promoter_7"]), WINDOWS, 3)


FRAGMENTS = [("chr1", 160, 451, "A-1"), ("chr2", 199, 301, "B-1")]


def rows_of(path):
    return [row for block in fragments.read_fragments(path) for row in block.rows()]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("more", [(), (1,), (1, "+"), (1, "+", "x")])
def test_what_stands_behind_the_barcode_is_not_used(tmp_path, more, end):
    lines = ["\t".join(map(str, [*row, *more])) for row in FRAGMENTS]
    comments = ["# id=x", "# a\tb\tc\td\te"]
    path = tmp_path / "f.tsv.gz"
    path.write_bytes(
        gzip.compress(end.join([comments[0], lines[0], comments[1], "", lines[1]]).encode())
    )
    assert rows_of(path) == FRAGMENTS


def test_lines_of_different_length_are_read(tmp_path):
    path = tmp_path / "f.tsv"
    path.write_text("chr1\t160\t451\tA-1\nchr2\t199\t301\tB-1\t3\t-\n")
    assert rows_of(path) == FRAGMENTS


def zstd(text):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstd])
@pytest.mark.parametrize("name", ["f.tsv", "f.tsv.gz"])
def test_the_first_bytes_tell_how_it_is_packed(tmp_path, pack, name):
    text = "".join("\t".join(map(str, row)) + "\t1\n" for row in FRAGMENTS).encode()
    (tmp_path / name).write_bytes(pack(text))
    assert rows_of(tmp_path / name) == FRAGMENTS


def test_blocks_end_between_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(fragments, "BLOCK_BYTES", 50)
    expected = [("chr1", i, i + 100, f"CELL{i % 7}-1") for i in range(1, 200)]
    path = write(tmp_path / "f.tsv.gz", expected)
    assert rows_of(path) == expected


@pytest.mark.parametrize(
    "row",
    [
        ("chr1", 1, 2), ("chr1", "start", "end", "A"), ("chr1", 1, "", "A"),
        ("chr1", "1e+05", 100150, "A", 1), ("chr1 100000 100150 A 1",),
    ],
)  # fmt: skip
@pytest.mark.parametrize("n_before", [1, 9])
def test_a_line_that_is_no_fragment_is_shown(tmp_path, monkeypatch, row, n_before):
    monkeypatch.setattr(fragments, "BLOCK_BYTES", 100)
    path = write(tmp_path / "f.tsv.gz", [FRAGMENTS[0]] * n_before + [row] + [FRAGMENTS[1]] * 9)
    shown = " ".join(map(str, row)).replace("+", "[+]")
    with pytest.raises(InputError, match=rf"f.tsv.gz: line {n_before + 3} \('{shown}'\) is no"):
        rows_of(path)


@pytest.mark.parametrize("comments", ["", "# id=x\n\n#\n"])
def test_names_of_columns_in_the_first_line_are_skipped(tmp_path, comments):
    lines = "".join("\t".join(map(str, row)) + "\t1\n" for row in FRAGMENTS)
    (tmp_path / "f.tsv").write_text(f"{comments}chrom\tstart\tend\tbarcode\tcount\n{lines}")
    assert rows_of(tmp_path / "f.tsv") == FRAGMENTS
    (tmp_path / "f.tsv").write_text(f"chr1\t1e+05\t100150\tA-1\t1\n{lines}")
    with pytest.raises(InputError, match="line 1 "):
        rows_of(tmp_path / "f.tsv")


def test_barcodes_are_counted_over_blocks_in_the_order_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(fragments, "BLOCK_BYTES", 50)
    rows = [("chr1", i, i + 100, "BCA"[i % 3]) for i in range(100)]
    counts = fragments.count_barcodes(fragments.read_fragments(write(tmp_path / "f.gz", rows)))
    assert list(counts.items()) == [("B", 34), ("C", 33), ("A", 33)]
    assert fragments.count_barcodes([]).empty
