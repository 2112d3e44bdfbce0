"""Barcodes that two tools wrote differently, paired all the same, and what is refused."""

import gzip

import numpy as np
import pandas as pd
import pytest

from scdyn.errors import InputError
from scdyn.io import barcodes


def sequences(n, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("ACGT"), 16)) for _ in range(n)]


CELLS = sequences(12)


@pytest.mark.parametrize(
    ("rna", "other", "how"),
    [
        ("{}-1", "{}-1", "as they are"),
        ("{}", "{}-1", "by nucleotides and library"),
        ("{}-1", "{}", "by nucleotides and library"),
        ("{}_rna", "{}_atac", "without the modality's name"),
        ("{}-1-GEX", "{}-1-ATAC", "without the modality's name"),
        ("gex#{}-1", "atac#{}-1", "without the modality's name"),
        ("mouse3_{}-1", "{}-1", "by nucleotides and library"),
        ("mouse3_{}-1", "lane_2:{}-4", "by nucleotides"),
    ],
)
def test_forms_are_brought_together(rna, other, how):
    a = pd.Index([rna.format(cell) for cell in CELLS])
    b = pd.Index([other.format(cell) for cell in CELLS[::-1][:9]])
    pairing = barcodes.pair_barcodes(a, b)
    assert (pairing.how, pairing.n_shared) == (how, 9)
    formed = pd.Index(pairing.form(b.to_series()))
    found = [CELLS.index(CELLS[::-1][i]) for i in range(9)]
    assert pairing.rna.get_indexer(formed).tolist() == found


def test_all_parts_of_a_split_pool_barcode_name_the_cell():
    """Their first parts are the same in every sublibrary."""
    parts = [cell[:8] for cell in CELLS]
    a = pd.Index([f"{part}_{parts[0]}_{parts[1]}" for part in parts])
    b = pd.Index([f"{part}_{parts[2]}_{parts[3]}" for part in parts])
    assert barcodes.pair_barcodes(a, "s1_" + b).n_shared == 0
    pairing = barcodes.pair_barcodes(a, a[:9] + "__s1")
    assert (pairing.how, pairing.n_shared) == ("by nucleotides and library", 9)
    # A table may name a cell by both chemistries' barcodes.
    assert (
        barcodes.keep_nucleotides(pd.Series(["ACGTACGTACGTACGT_TTGGCCAATTGGCCAA-1"]))[0]
        == "ACGT" * 4
    )


def test_libraries_are_not_mixed_up():
    """The same nucleotides in two libraries are two cells."""
    a = pd.Index([f"{cell}-{library}" for library in (1, 2) for cell in CELLS])
    b = pd.Index([f"s_{cell}-{library}" for library in (2, 1) for cell in CELLS])
    pairing = barcodes.pair_barcodes(a, b)
    assert pairing.how == "by nucleotides and library" and pairing.n_shared == 24
    formed = pd.Index(pairing.form(b.to_series()))
    assert pairing.rna.get_indexer(formed).tolist() == [*range(12, 24), *range(12)]
    unlike = barcodes.pair_barcodes(a, pd.Index([f"{cell}-3" for cell in CELLS]))
    assert unlike.n_shared == 0  # nucleotides alone would make two cells one


def test_background_of_one_library_is_not_taken_for_cells_of_another():
    """A library's fragments have the nucleotides of another's cells, too."""
    a = pd.Index([f"{cell}-{1 + i // 6}" for i, cell in enumerate(CELLS)])
    pairing = barcodes.pair_barcodes(a, pd.Index([f"{cell}-1" for cell in CELLS]))
    assert (pairing.how, pairing.n_shared) == ("as they are", 6)
    # Libraries in another order are told by nucleotides.
    swapped = pd.Index([f"{cell}-{2 - i // 6}" for i, cell in enumerate(CELLS)])
    pairing = barcodes.pair_barcodes(a, swapped)
    assert (pairing.how, pairing.n_shared) == ("by nucleotides", 12)


@pytest.mark.parametrize(
    ("rna", "other", "shown"),
    [("{cell}-{n}", "{cell}", r"\*-2"), ("s{n}_{cell}-1", "{cell}-1", r"s2_\*-1")],
)
def test_libraries_whose_cells_are_background_are_named(rna, other, shown):
    """Where the fragments do not tell their library, how many a cell has does."""
    a = pd.Index([rna.format(cell=cell, n=1 + i // 6) for i, cell in enumerate(CELLS)])
    b = pd.Index([other.format(cell=cell) for cell in CELLS])
    pairing = barcodes.pair_barcodes(a, b)
    assert pairing.n_shared == 12
    barcodes.refuse_background(pairing, pd.Series(100, b), "f.tsv")
    with pytest.raises(
        InputError, match=rf"f.tsv: the RNA's cells named {shown} are only background"
    ):
        barcodes.refuse_background(pairing, pd.Series([100] * 6 + [1] * 6, b), "f.tsv")
    # What differs from cell to cell is no library's.
    each = pd.Index([f"{i}_{cell}-1" for i, cell in enumerate(CELLS)])
    barcodes.refuse_background(
        barcodes.pair_barcodes(each, b), pd.Series([100] * 8 + [1] * 4, b), "f.tsv"
    )
    # A shallow library whose fragments are its own is one.
    barcodes.refuse_background(
        barcodes.pair_barcodes(a, a), pd.Series([100] * 6 + [1] * 6, a), "f.tsv"
    )


def test_barcodes_that_are_no_nucleotides_are_left_as_they_are():
    a = pd.Index(["cell_1", "cell_2", "cell_3"])
    pairing = barcodes.pair_barcodes(a, pd.Index(["cell_3", "cell_9"]))
    assert (pairing.how, pairing.n_shared) == ("as they are", 1)


def test_a_barcode_twice_is_named():
    with pytest.raises(InputError, match="duplicate barcode AAA"):
        barcodes.pair_barcodes(pd.Index(["AAA", "AAA"]), pd.Index(["AAA"]))


@pytest.mark.parametrize("separator", ["\t", ",", " "])
@pytest.mark.parametrize("turned", [False, True])
def test_the_two_chemistries_barcodes_are_translated(tmp_path, separator, turned):
    atac = sequences(12, seed=1)
    path = tmp_path / "arc.tsv.gz"
    with gzip.open(path, "wt") as handle:
        handle.writelines(f"{a}{separator}{b}\n" for a, b in zip(CELLS, atac, strict=True))
    table = barcodes.read_translation(path)
    if turned:
        atac = [cell.translate(str.maketrans("ACGT", "TGCA"))[::-1] for cell in atac]
    rna = pd.Index([f"{cell}-1" for cell in CELLS])
    other = pd.Index([f"{cell}-1" for cell in atac])
    assert barcodes.pair_barcodes(rna, other).n_shared == 0
    pairing = barcodes.pair_barcodes(rna, other, table)
    assert (pairing.how, pairing.n_shared) == ("by the translation table", 12)
    # A file that has the RNA's barcodes already needs no table.
    assert barcodes.pair_barcodes(rna, rna, table).how == "as they are"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ACGTACGTAC\n", "two columns of nucleotides"),
        ("ACGTACGTAC\tTTTTTTTTTT\nACGTACGTAG\tcell_2\n", r"\(line 2\)"),
        ("ACGTACGTAC\tTTTTTTTTTT\nACGTACGTAC\tTTTTTTTTTA\n", "duplicate barcode ACGTACGTAC"),
        ("", "not a readable table"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path, text, words):
    path = tmp_path / "table.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        barcodes.read_translation(path)
    with pytest.raises(InputError, match="not a readable table"):
        barcodes.read_translation(tmp_path / "nowhere.tsv")
