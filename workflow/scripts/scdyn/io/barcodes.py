"""Barcodes of two modalities, brought to one form, so that cells are paired by what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.errors import InputError, reading
from scdyn.io.bounds import open_bytes
from scdyn.io.files import open_text

# What tools hang on a barcode, before or behind it, to say which modality it is of.
MODALITY = r"(?:rna|gex|atac|peaks?)"
# Of split-pool protocols a barcode has several short parts, all of which name the cell.
SEQUENCE = r"(?:(?:[ACGTN]{8,10}[-_.])+[ACGTN]{8,10}(?![ACGTN])|[ACGTN]{8,})"
# R's check.names makes a point of the dash before the library's number.
NUCLEOTIDES = rf"({SEQUENCE})(?:[-.](\d+))?"
# Fragments of a cell's barcode over those of the file's best ones, by the median, below which it is
# none of the file's cells; and how many the best must have for this to tell.
BACKGROUND = 0.05
FEWEST_FRAGMENTS = 20
# Cells called alike that may be a library: names may have the cell's own number in them.
FEWEST_CELLS = 5
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")

Form = Callable[[pd.Series], pd.Series]


def without_modality(barcodes: pd.Series) -> pd.Series:
    """Remove ``_rna``, ``-ATAC``, ``gex#`` and their like from either end."""
    tail, head = rf"(?i)[-_.#:]{MODALITY}$", rf"(?i)^{MODALITY}[-_.#:]"
    return barcodes.str.replace(tail, "", regex=True).str.replace(head, "", regex=True)


def with_library(barcodes: pd.Series) -> pd.Series:
    """Reduce to nucleotides and the library's number, which is 1 where there is none."""
    found = without_modality(barcodes).str.extract(NUCLEOTIDES)
    return (found[0] + "-" + found[1].fillna("1")).fillna(barcodes)


def nucleotides(barcodes: pd.Series) -> pd.Series:
    """Reduce to nucleotides: prefixes and numbers are dropped."""
    return barcodes.str.extract(NUCLEOTIDES)[0].fillna(barcodes)


def library_marks(barcodes: pd.Series) -> pd.Series:
    """Return what stands around the nucleotides, ``s2_*-1``: it tells libraries apart."""
    marks = barcodes.str.replace("[ACGTN]{8,}", "*", n=1, regex=True)
    return marks.where(marks != barcodes, "")


# From the least change to the most: the first of those that pair the most barcodes is taken.
FORMS: dict[str, Form] = {
    "as they are": lambda barcodes: barcodes,
    "without the modality's name": without_modality,
    "by nucleotides and library": with_library,
    "by nucleotides": nucleotides,
}


@dataclass(frozen=True)
class Pairing:
    """How the barcodes of a second modality are to be read as those of the RNA.

    Attributes
    ----------
    how
        What was done, in words.
    rna
        The RNA's barcodes in that form, in the RNA's order.
    form
        Brings any barcode of the second modality to that form.
    n_shared
        Barcodes of the RNA that the second modality has.
    marks
        Of the RNA's barcodes; see :func:`library_marks`.
    """

    how: str
    rna: pd.Index
    form: Form
    n_shared: int
    marks: pd.Index


def pair(rna: pd.Index, other: pd.Index, translation: Mapping[str, str] | None = None) -> Pairing:
    """Find the form in which most barcodes of two modalities are the same.

    A form in which two barcodes of a modality become one is not used, nor are nucleotides alone
    where the cells of two libraries would be paired with one library's; see :func:`confuses`.

    Parameters
    ----------
    rna, other
        Barcodes of the two modalities, or for ``other`` as many of them as are known.
    translation
        ATAC to RNA barcode, nucleotides alone; see :func:`read_translation`.

    Returns
    -------
    Pairing
    """
    forms = dict(FORMS)
    marks = pd.Index(library_marks(rna.to_series()))
    if translation:
        forms["by the translation table"] = lambda barcodes: translated(barcodes, translation)
    best = None
    for how, form in forms.items():
        # The table is for the second modality; the RNA's barcodes stand in it as they are.
        of_rna = with_library if how == "by the translation table" else form
        a, b = pd.Index(of_rna(rna.to_series())), pd.Index(form(other.to_series()))
        if a.has_duplicates or b.has_duplicates:
            continue
        if how == "by nucleotides" and confuses(rna, other):
            continue
        found = Pairing(how, a, form, len(a.intersection(b)), marks)
        if best is None or found.n_shared > best.n_shared:
            best = found
    if best is None:
        twice = rna[rna.duplicated()].append(other[other.duplicated()])
        raise InputError("BARCODES", f"barcode {twice[0]} is a duplicate; barcodes must differ.")
    return best


def confuses(rna: pd.Index, other: pd.Index) -> bool:
    """Tell whether nucleotides alone pair the cells of two libraries with those of one.

    The fragments of a library have nearly all barcodes that there are as background, and so those
    of another library's cells. Barcodes of the second modality without a number do not tell.

    Parameters
    ----------
    rna, other
        Barcodes of the two modalities, whose nucleotides differ within each.
    """
    a, b = (names.to_series().str.extract(NUCLEOTIDES).dropna() for names in (rna, other))
    if a[1].nunique() < 2:
        return False
    libraries = a.merge(b, on=0)[["1_x", "1_y"]]
    # Of each of the RNA's libraries, that of the other's in which most of its cells are.
    taken = libraries.groupby("1_x")["1_y"].agg(lambda numbers: numbers.value_counts().index[0])
    return bool(taken.duplicated().any())


def require_cells(pairing: Pairing, n_fragments: pd.Series, origin: object) -> None:
    """Refuse fragments in which the RNA's cells are only background.

    The beads of every 10x library have the same barcodes, so that most of a sample's are in the
    fragments of any other, with a fragment or two each.

    Parameters
    ----------
    pairing
        Of the RNA's barcodes and those of the fragments.
    n_fragments
        How many of the file's first fragments each of its barcodes has.
    origin
        The file, for messages.

    Raises
    ------
    InputError
        If the RNA's cells have less than :data:`BACKGROUND` times as many fragments as as many
        of the file's best barcodes, by the median; or those of one of its libraries as those of
        another that are paired with the same library's.
    """
    row = pairing.rna.get_indexer(pd.Index(pairing.form(n_fragments.index.to_series())))
    is_cell = row >= 0
    of_cells, best = n_fragments[is_cell].median(), n_fragments.nlargest(is_cell.sum()).median()
    if best >= FEWEST_FRAGMENTS and of_cells < BACKGROUND * best:
        raise InputError(
            "FRAGMENTS",
            f"{origin}: the RNA's cells that it has are background in it: of its first fragments "
            f"they have {of_cells:.0f} each, as many of its best barcodes {best:.0f}; are these "
            "the fragments of another sample?",
        )
    n, of_rna = n_fragments[is_cell].to_numpy(), pairing.marks[row[is_cell]]
    of_file = library_marks(n_fragments.index[is_cell].to_series()).to_numpy()
    for _, part in pd.DataFrame({"n": n, "mark": of_rna}).groupby(of_file):
        n_cells = part.groupby("mark")["n"].transform("size")
        medians = part[n_cells >= FEWEST_CELLS].groupby("mark")["n"].median()
        few = medians.index[medians < BACKGROUND * medians.max()]
        if len(few) and medians.max() >= FEWEST_FRAGMENTS:
            raise InputError(
                "FRAGMENTS",
                f"{origin}: the RNA's cells called {few[0]} are background in it: of its first "
                f"fragments they have {medians[few[0]]:.0f} each, those called {medians.idxmax()} "
                f"{medians.max():.0f}; are these the fragments of one of several libraries? Give "
                "each library a row of its own in the sample sheet, or fragments of all with the "
                "RNA's barcodes.",
            )


def require_unique(names: pd.Index, origin: object) -> None:
    """Refuse a matrix in which two cells have one barcode.

    Raises
    ------
    InputError
        Naming ``origin``, the file, and the first such barcode.
    """
    twice = names[names.duplicated()]
    if len(twice):
        raise InputError(
            "BARCODES",
            f"{origin}: barcode {twice[0]} is a duplicate; give each library a row or file of its "
            "own.",
        )


def sample_barcodes(libraries: Sequence[pd.Index]) -> pd.Index:
    """Join the barcodes of a sample's libraries; the number behind one says which it is of.

    As ``cellranger aggr`` does: ``-1`` for the first, ``-2`` for the second. Those of a single
    library stay as they are.

    Raises
    ------
    InputError
        If a library has its own numbers, so that two of its barcodes would become one.
    """
    if len(libraries) == 1:
        return libraries[0]
    joined = []
    for number, names in enumerate(libraries, start=1):
        plain = names.str.replace(r"-\d+$", "", regex=True)
        if plain.has_duplicates and not names.has_duplicates:
            raise InputError(
                "BARCODES",
                f"barcode {plain[plain.duplicated()][0]} is a duplicate in library {number} of "
                "a sample once its number is that of the library; give a matrix of joined "
                "libraries a row of its own in the sample sheet.",
            )
        joined.append(plain + f"-{number}")
    return pd.Index(np.concatenate(joined), dtype=object)


def translated(barcodes: pd.Series, translation: Mapping[str, str]) -> pd.Series:
    """Bring ATAC barcodes to the RNA's, with the library's number; unknown ones stay."""
    found = without_modality(barcodes).str.extract(NUCLEOTIDES)
    return (found[0].map(translation) + "-" + found[1].fillna("1")).fillna(barcodes)


def read_translation(path: str | Path) -> dict[str, str]:
    """Read pairs of barcodes of the two whitelists of a multiome chemistry.

    Cell Ranger ARC gives a cell's GEX and ATAC gel bead barcodes two sequences and writes the
    first for both. Files from before that step need the table.

    Parameters
    ----------
    path
        Two columns without header, RNA barcode and ATAC barcode, separated by tab, comma or
        space, plain or gzipped.

    Returns
    -------
    dict
        ATAC to RNA barcode, for the ATAC barcode as it is and reverse-complemented, since
        sequencers differ in which they read.

    Raises
    ------
    InputError
        If there are not two columns of nucleotides, or a barcode is a duplicate.
    """
    with reading("BARCODES", path, "not a readable table of barcodes"):
        table = pd.read_csv(open_bytes(path), header=None, sep=_separator(path), dtype=str)
    good = table.apply(lambda column: column.str.fullmatch("[ACGT]{8,}").fillna(False))
    if table.shape[1] != 2 or not good.to_numpy().all():
        bad = np.flatnonzero(~good.all(axis=1))
        where = f" (line {bad[0] + 1})" if len(bad) else ""
        raise InputError(
            "BARCODES",
            f"{path}: expected two columns of nucleotides, RNA barcode and ATAC barcode{where}.",
        )
    for column in table:
        twice = table[column][table[column].duplicated()]
        if len(twice):
            raise InputError("BARCODES", f"{path}: barcode {twice.iloc[0]} is a duplicate.")
    plain = dict(zip(table[1], table[0], strict=True))
    turned = {atac.translate(COMPLEMENT)[::-1]: rna for atac, rna in plain.items()}
    return {**turned, **plain}


def _separator(path: str | Path) -> str:
    """Tell what separates the columns of a table from its first line."""
    with open_text(path) as handle:
        line = handle.readline()
    return next((mark for mark in ("\t", ",") if mark in line), " ")
