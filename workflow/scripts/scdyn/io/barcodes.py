"""Cell barcodes: one form for RNA and ATAC, so that both modalities of a cell can be paired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scdyn.errors import InputError, reading
from scdyn.io.files import open_bytes, open_text

# Modality names that tools add before or after a barcode.
MODALITY = r"(?:rna|gex|atac|peaks?)"
# Barcodes of split-pool protocols consist of several short parts.
SEQUENCE = r"(?:(?:[ACGTN]{8,10}[-_.])+[ACGTN]{8,10}(?![ACGTN])|[ACGTN]{8,})"
# R's check.names replaces the dash before the library number by a dot.
NUCLEOTIDES = rf"({SEQUENCE})(?:[-.](\d+))?"
# Barcodes are background if their median number of fragments is below this share of the median of
# the file's best barcodes. Tested only if the best barcodes have this many fragments.
BACKGROUND = 0.05
FEWEST_FRAGMENTS = 20
# Fewer cells with the same prefix and suffix are not taken for a library.
FEWEST_CELLS = 5
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")

Form = Callable[[pd.Series], pd.Series]


def strip_modality(barcodes: pd.Series) -> pd.Series:
    """Remove ``_rna``, ``-ATAC``, ``gex#`` and similar from either end."""
    tail, head = rf"(?i)[-_.#:]{MODALITY}$", rf"(?i)^{MODALITY}[-_.#:]"
    return barcodes.str.replace(tail, "", regex=True).str.replace(head, "", regex=True)


def keep_nucleotides_and_library(barcodes: pd.Series) -> pd.Series:
    """Reduce barcodes to nucleotides and the library number, which is 1 if it is missing."""
    found = strip_modality(barcodes).str.extract(NUCLEOTIDES)
    return (found[0] + "-" + found[1].fillna("1")).fillna(barcodes)


def keep_nucleotides(barcodes: pd.Series) -> pd.Series:
    """Reduce barcodes to nucleotides, without prefixes and library numbers."""
    return barcodes.str.extract(NUCLEOTIDES)[0].fillna(barcodes)


def mask_nucleotides(barcodes: pd.Series) -> pd.Series:
    """Return prefix and suffix of each barcode, as ``s2_*-1``; they distinguish libraries."""
    marks = barcodes.str.replace("[ACGTN]{8,}", "*", n=1, regex=True)
    return marks.where(marks != barcodes, "")


# Ordered by how much they change. Among forms that pair equally many barcodes the first is used.
FORMS: dict[str, Form] = {
    "as they are": lambda barcodes: barcodes,
    "without the modality's name": strip_modality,
    "by nucleotides and library": keep_nucleotides_and_library,
    "by nucleotides": keep_nucleotides,
}


@dataclass(frozen=True)
class Pairing:
    """How the barcodes of a second modality are matched to those of the RNA.

    Attributes
    ----------
    how
        Description of the form.
    rna
        The RNA barcodes in that form, in their original order.
    form
        Converts barcodes of the second modality to that form.
    n_shared
        Number of barcodes in common.
    marks
        Prefix and suffix of each RNA barcode; see :func:`mask_nucleotides`.
    """

    how: str
    rna: pd.Index
    form: Form
    n_shared: int
    marks: pd.Index


def pair_barcodes(
    rna: pd.Index, other: pd.Index, translation: Mapping[str, str] | None = None
) -> Pairing:
    """Find the form in which two modalities have the most barcodes in common.

    A form is not used if it creates duplicate barcodes within a modality, nor are nucleotides
    alone if :func:`confuses_libraries` applies.

    Parameters
    ----------
    rna, other
        Barcodes of the two modalities; ``other`` may be incomplete.
    translation
        RNA barcode of each ATAC barcode, only nucleotides; see :func:`read_translation`.

    Returns
    -------
    Pairing

    Raises
    ------
    InputError
        If a modality has duplicate barcodes.
    """
    forms = dict(FORMS)
    marks = pd.Index(mask_nucleotides(rna.to_series()))
    if translation:
        forms["by the translation table"] = lambda barcodes: translate(barcodes, translation)
    best = None
    for how, form in forms.items():
        # The table translates only ATAC barcodes.
        of_rna = keep_nucleotides_and_library if how == "by the translation table" else form
        a, b = pd.Index(of_rna(rna.to_series())), pd.Index(form(other.to_series()))
        if a.has_duplicates or b.has_duplicates:
            continue
        if how == "by nucleotides" and confuses_libraries(rna, other):
            continue
        found = Pairing(how, a, form, len(a.intersection(b)), marks)
        if best is None or found.n_shared > best.n_shared:
            best = found
    if best is None:
        twice = rna[rna.duplicated()].append(other[other.duplicated()])
        raise InputError("BARCODES", f"duplicate barcode {twice[0]}; barcodes must be unique.")
    return best


def confuses_libraries(rna: pd.Index, other: pd.Index) -> bool:
    """Tell whether nucleotides alone pair the cells of two RNA libraries with one ATAC library.

    This happens because nearly every possible barcode occurs as background in the fragments of any
    library. It cannot be detected if the barcodes of ``other`` have no library number.

    Parameters
    ----------
    rna, other
        Barcodes of the two modalities, with unique nucleotides within each.
    """
    a, b = (names.to_series().str.extract(NUCLEOTIDES).dropna() for names in (rna, other))
    if a[1].nunique() < 2:
        return False
    libraries = a.merge(b, on=0)[["1_x", "1_y"]]
    # For each RNA library, the library of the other modality that has most of its cells.
    taken = libraries.groupby("1_x")["1_y"].agg(lambda numbers: numbers.value_counts().index[0])
    return bool(taken.duplicated().any())


def refuse_background(pairing: Pairing, n_fragments: pd.Series, origin: object) -> None:
    """Refuse fragments in which the RNA's cells are only background.

    All 10x libraries use the same barcode whitelist, so that most barcodes of a sample also occur
    in the fragments of any other sample, with one or two fragments each.

    Parameters
    ----------
    pairing
        Of the RNA barcodes with those of the fragments.
    n_fragments
        Fragments per barcode among the file's first fragments.
    origin
        The file, for messages.

    Raises
    ------
    InputError
        If the median number of fragments of the RNA's cells is less than :data:`BACKGROUND` times
        that of as many of the file's best barcodes; or if this holds for one RNA library compared
        with another one that is paired with the same library of the file.
    """
    row = pairing.rna.get_indexer(pd.Index(pairing.form(n_fragments.index.to_series())))
    is_cell = row >= 0
    of_cells, best = n_fragments[is_cell].median(), n_fragments.nlargest(is_cell.sum()).median()
    if best >= FEWEST_FRAGMENTS and of_cells < BACKGROUND * best:
        raise InputError(
            "FRAGMENTS",
            f"{origin}: the RNA's cells are only background in these fragments: among the first "
            f"ones they have {of_cells:.0f} per cell, the same number of best barcodes "
            f"{best:.0f}; are these the fragments of another sample?",
        )
    n, of_rna = n_fragments[is_cell].to_numpy(), pairing.marks[row[is_cell]]
    of_file = mask_nucleotides(n_fragments.index[is_cell].to_series()).to_numpy()
    for _, part in pd.DataFrame({"n": n, "mark": of_rna}).groupby(of_file):
        n_cells = part.groupby("mark")["n"].transform("size")
        medians = part[n_cells >= FEWEST_CELLS].groupby("mark")["n"].median()
        few = medians.index[medians < BACKGROUND * medians.max()]
        if len(few) and medians.max() >= FEWEST_FRAGMENTS:
            raise InputError(
                "FRAGMENTS",
                f"{origin}: the RNA's cells named {few[0]} are only background in these fragments: "
                f"among the first ones they have {medians[few[0]]:.0f} per cell, those named "
                f"{medians.idxmax()} {medians.max():.0f}; are these the fragments of only one of "
                "several libraries? Give each library its own row in the sample sheet, or the "
                "fragments of all libraries with the RNA's barcodes.",
            )


def require_unique(names: pd.Index, origin: object) -> None:
    """Refuse a matrix with duplicate barcodes.

    Raises
    ------
    InputError
        Naming the file ``origin`` and the first duplicate.
    """
    twice = names[names.duplicated()]
    if len(twice):
        raise InputError(
            "BARCODES",
            f"{origin}: duplicate barcode {twice[0]}; give each library its own row or file.",
        )


def join_barcodes(libraries: Sequence[pd.Index]) -> pd.Index:
    """Join the barcodes of a sample's libraries, with the library number as a suffix.

    As in ``cellranger aggr``: ``-1`` for the first library, ``-2`` for the second. Barcodes of a
    single library are not changed.

    Raises
    ------
    InputError
        If a library already numbers its barcodes, so that the new suffix creates duplicates.
    """
    if len(libraries) == 1:
        return libraries[0]
    joined = []
    for number, names in enumerate(libraries, start=1):
        plain = names.str.replace(r"-\d+$", "", regex=True)
        if plain.has_duplicates and not names.has_duplicates:
            raise InputError(
                "BARCODES",
                f"duplicate barcode {plain[plain.duplicated()][0]} in library {number} of a sample "
                "once its number is replaced by the library's; give a matrix of several libraries "
                "its own row in the sample sheet.",
            )
        joined.append(plain + f"-{number}")
    return pd.Index(np.concatenate(joined), dtype=object)


def translate(barcodes: pd.Series, translation: Mapping[str, str]) -> pd.Series:
    """Translate ATAC to RNA barcodes with library number; unknown ones are not changed."""
    found = strip_modality(barcodes).str.extract(NUCLEOTIDES)
    return (found[0].map(translation) + "-" + found[1].fillna("1")).fillna(barcodes)


def read_translation(path: str | Path) -> dict[str, str]:
    """Read the pairs of RNA and ATAC barcodes of a multiome chemistry.

    The two barcodes of a gel bead differ. Cell Ranger ARC writes the RNA barcode for both
    modalities; the output of other tools needs this table.

    Parameters
    ----------
    path
        Two columns without header, RNA barcode and ATAC barcode, separated by tab, comma or
        space, plain or compressed.

    Returns
    -------
    dict
        RNA barcode of each ATAC barcode and of its reverse complement, because sequencers differ
        in the strand that they read.

    Raises
    ------
    InputError
        If the table does not have two columns of nucleotides, or has duplicate barcodes.
    """
    with reading("BARCODES", path, "not a readable table of barcodes"):
        table = pd.read_csv(open_bytes(path), header=None, sep=_find_separator(path), dtype=str)
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
            raise InputError("BARCODES", f"{path}: duplicate barcode {twice.iloc[0]}.")
    plain = dict(zip(table[1], table[0], strict=True))
    reversed_strand = {atac.translate(COMPLEMENT)[::-1]: rna for atac, rna in plain.items()}
    return {**reversed_strand, **plain}


def _find_separator(path: str | Path) -> str:
    """Find the column separator of a table from its first line."""
    with open_text(path) as handle:
        line = handle.readline()
    return next((mark for mark in ("\t", ",") if mark in line), " ")
