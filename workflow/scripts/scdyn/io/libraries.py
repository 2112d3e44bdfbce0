"""Which files a row of the sample sheet means: the one place that decides what is read.

The rules declare these files, preflight examines them and ingestion reads them. What the sheet
names beats what is guessed. Nothing here opens a file, so that it runs in Snakemake's own
environment.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from scdyn.errors import InputError
from scdyn.order import natural

FILES = ("path", "atac_path", "fragments")
LAYERS = ("rna_layer", "promoter_layer")
# What a row of the sample sheet says of files and their content.
COLUMNS = ("sample", "kind", *FILES, *LAYERS)
# In the column atac_path: promoters were not measured, or are not to be used.
RNA_ONLY = "none"

# What Cell Ranger calls its outputs: ARC and GEX from version 3 on, GEX version 2 (its aggr writes
# `_mex`), and ATAC.
# `sample_` or another prefix may stand before it, as cellranger multi and downloads have it.
MATRICES = (
    "filtered_feature_bc_matrix.h5",
    "filtered_feature_bc_matrix",
    "filtered_gene_bc_matrices_h5.h5",
    "filtered_gene_bc_matrices",
    "filtered_gene_bc_matrices_mex",
    "filtered_peak_bc_matrix.h5",
    "filtered_peak_bc_matrix",
)
OF_GENOMES = ("gene_bc_matrices", "gene_bc_matrices_mex")
FRAGMENTS = ("atac_fragments.tsv.gz", "fragments.tsv.gz", "atac_fragments.tsv", "fragments.tsv")
METRICS = ("per_barcode_metrics.csv",)
# Where cellranger multi writes a folder a sample.
OF_SAMPLES = "per_sample_outs"
# STARsolo's folder, before which its user may have put a prefix, and what it counts in.
SOLO = "Solo.out"
SOLO_FOLDERS = tuple(
    f"{outer}{features}/filtered"
    for features in ("Gene", "GeneFull", "GeneFull_Ex50pAS", "GeneFull_ExonOverIntron")
    for outer in (f"{SOLO}/", "")
)
# Where the matrix lies within the folder that a tool was told to write to: Cell Ranger (multi and
# aggr have `count`), STARsolo, kb count --filter, alevin-fry.
FOLDERS = (
    "", "outs", "count", "outs/count", *SOLO_FOLDERS, "filtered", "counts_filtered", "alevin",
    "af_quant/alevin",
)  # fmt: skip
# Where spliced and unspliced counts lie: kallisto bustools beside the matrix, STARsolo in a folder
# of their own.
LAYER_FOLDERS = (
    *FOLDERS, f"{SOLO}/Velocyto/filtered", "Velocyto/filtered", "../../Velocyto/filtered",
)  # fmt: skip
# A layer's names in those of the files that are summed for it; kb's workflow nac calls spliced
# RNA mature and keeps apart what may be either, which its authors count as mature.
LAYER_FILES = {
    "spliced": (("spliced",), ("mature", "ambiguous")),
    "unspliced": (("unspliced",), ("nascent",)),
    "ambiguous": (("ambiguous",),),
}
# alevin-fry writes spliced, unspliced and ambiguous counts side by side (USA); its authors count
# ambiguous ones as spliced.
USA = "quants_mat"
USA_PARTS = {
    "spliced": ("spliced", "ambiguous"), "unspliced": ("unspliced",), "ambiguous": ("ambiguous",)
}  # fmt: skip
PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
ARCHIVE = re.compile(r"\.(tar|tgz|zip|rar|7z|tar\.\w+)$")
MTX = re.compile(r"\.mtx(\.gz|\.bz2|\.xz|\.zst)?$")


@dataclass(frozen=True)
class LibraryFiles:
    """One library of a sample: the sheet's ``kind``, one file or folder a column, and layers.

    ``rna_only`` says that promoters are to be read as not measured.
    """

    kind: str
    path: str
    atac_path: str = ""
    fragments: str = ""
    rna_layer: str = ""
    promoter_layer: str = ""
    rna_only: bool = False
    sample: str = ""

    @property
    def named(self) -> list[str]:
        """What the sheet names, as it names it."""
        return [path for path in (self.path, self.atac_path, self.fragments) if path]


@dataclass(frozen=True)
class Matrix:
    """Which files hold a matrix of counts.

    Attributes
    ----------
    path
        The file (``.h5``, ``.h5ad``, ``.h5mu``), or the folder (or file) of MatrixMarket, by
        which messages call it.
    counts
        Files of MatrixMarket, whose counts are summed; empty of a file of HDF5.
    barcodes, features
        The lists that belong to ``counts``.
    cells_in_rows
        Whether cells stand in the rows of ``counts``.
    parts
        Of alevin-fry's USA counts: which of "spliced", "unspliced" and "ambiguous" are summed.
    modality
        Of an ``.h5ad`` or ``.h5mu``: "rna", or "atac" if peaks are read of it.
    """

    path: str
    counts: tuple[str, ...] = ()
    barcodes: str = ""
    features: str = ""
    cells_in_rows: bool = False
    parts: tuple[str, ...] = ()
    modality: str = "rna"

    def __str__(self) -> str:
        """Name it in messages."""
        return self.path

    @property
    def files(self) -> list[str]:
        """Every file that is read."""
        return [*self.counts, self.barcodes, self.features] if self.counts else [self.path]


@dataclass(frozen=True)
class Library:
    """What is read of one library.

    Attributes
    ----------
    sample, kind, rna_layer, promoter_layer, rna_only
        As the sheet has them.
    rna
        RNA counts; also the peaks', if they lie in the same file.
    unspliced
        Counts of ``promoter_layer``, if they lie in files of their own.
    peaks
        Peaks, if they lie in a file of their own.
    fragments, metrics
        Empty if not there, or not read.
    """

    sample: str
    kind: str
    rna: Matrix
    unspliced: Matrix | None = None
    peaks: Matrix | None = None
    fragments: str = ""
    metrics: str = ""
    rna_layer: str = ""
    promoter_layer: str = ""
    rna_only: bool = False

    @property
    def files(self) -> list[str]:
        """Every file that is read."""
        matrices = [matrix for matrix in (self.rna, self.unspliced, self.peaks) if matrix]
        files = {path for matrix in matrices for path in matrix.files}
        return sorted(files | {path for path in (self.fragments, self.metrics) if path})


class Tree:
    """The files that are there, and those that another rule will make.

    Hidden files, such as those that macOS leaves beside others (``._barcodes.tsv.gz``), are none.

    Parameters
    ----------
    planned
        Files that count as being there.
    """

    def __init__(self, planned: Collection[str] = ()) -> None:
        self._planned: dict[str, set[str]] = {}
        for path in planned:
            path = os.path.normpath(path)
            while path != (folder := os.path.dirname(path)):
                self._planned.setdefault(folder, set()).add(os.path.basename(path))
                path = folder

    def exists(self, path: str) -> bool:
        """Tell whether a file or folder is there, or a link, wherever it leads."""
        return self.is_planned(path) or os.path.lexists(path)

    def is_planned(self, path: str) -> bool:
        """Tell whether another rule will make a file or folder."""
        folder, name = os.path.split(os.path.normpath(path))
        return name in self._planned.get(folder, ())

    def is_dir(self, path: str) -> bool:
        """Tell whether a folder is there."""
        return os.path.normpath(path) in self._planned or os.path.isdir(path)

    def names(self, folder: str) -> list[str]:
        """List what lies in a folder; nothing if it cannot be looked into."""
        names = set(self._planned.get(os.path.normpath(folder), ()))
        try:
            names.update(os.listdir(folder))
        except OSError:
            pass
        return sorted(name for name in names if not name.startswith("."))

    def glob(self, pattern: str) -> list[str]:
        """List what a pattern finds, in natural order: ``lane2`` before ``lane10``."""
        parts = os.path.normpath(pattern).split(os.sep)
        planned = {os.path.join(f, name) for f, names in self._planned.items() for name in names}
        meant = [
            path
            for path in planned
            if len(path.split(os.sep)) == len(parts)
            and all(map(fnmatchcase, path.split(os.sep), parts))
        ]
        return sorted({*glob.glob(pattern), *meant}, key=natural)

    def one(self, folder: str, *names: str) -> str:
        """Find the file that is there under one of some names, packed or not; empty if none is.

        Raises
        ------
        InputError
            If there are two, which need not hold the same.
        """
        paths = [os.path.join(folder, name + packed) for name in names for packed in PACKED[::-1]]
        return self.one_of(folder, paths)

    def one_of(self, folder: str, paths: Sequence[str]) -> str:
        """Find the one path of some that is there, or links to it; see :meth:`one`."""
        found = [path for path in paths if self.exists(path)]
        for path in found:
            if os.path.realpath(path) != os.path.realpath(found[0]):
                names = " and ".join(os.path.basename(p) for p in (found[0], path))
                raise InputError(
                    "PATH",
                    f"{folder}: holds {names}, and nothing tells which is meant; remove or rename "
                    "one of them.",
                )
        return found[0] if found else ""


def find_libraries(row: Mapping[str, str], planned: Collection[str] = ()) -> list[LibraryFiles]:
    """Find a sample's libraries: one, or as many as the patterns of its paths find.

    Parameters
    ----------
    row
        Of the sample sheet: ``sample``, ``kind`` and the columns of :data:`FILES` and
        :data:`LAYERS`.
    planned
        Files that another rule will make.

    Raises
    ------
    InputError
        If a pattern finds nothing, the columns' patterns find different numbers, or a sample
        of RNA only has fragments.
    """
    tree = Tree(planned)
    rna_only = row["atac_path"] == RNA_ONLY
    if rna_only and (row["fragments"] or row["promoter_layer"]):
        raise InputError(
            "SHEET",
            f"sample {row['sample']}: atac_path says '{RNA_ONLY}', yet fragments or promoter_layer "
            "names something; empty one of them in the sample sheet.",
        )
    found = {}
    for column in FILES:
        path = "" if column == "atac_path" and rna_only else row[column]
        # A name that is there is meant as it is, even if it has brackets.
        if not path or tree.exists(path) or not glob.has_magic(path):
            found[column] = [path]
        else:
            found[column] = tree.glob(path)
            if not found[column]:
                raise InputError(
                    "PATH",
                    f"sample {row['sample']}: nothing is called {path} (column {column}); check "
                    "the sample sheet's path.",
                )
    n_libraries = len(found["path"])
    for column, paths in found.items():
        if paths != [""] and len(paths) != n_libraries:
            raise InputError(
                "PATH",
                f"sample {row['sample']}: {row['path']} finds {n_libraries} libraries, but column "
                f"{column} ({row[column]}) {len(paths)}; each library needs one of each.",
            )
        found[column] = paths if len(paths) == n_libraries else paths * n_libraries
    kind, *layers = (row[column] for column in ("kind", *LAYERS))
    return [
        LibraryFiles(
            kind, path, atac_path, fragments, layers[0], layers[1], rna_only, row["sample"]
        )
        for path, atac_path, fragments in zip(*found.values(), strict=True)
    ]


def input_files(
    row: Mapping[str, str], planned: Collection[str] = (), rna_alone: bool = False
) -> list[str]:
    """List every file that ingestion of a sample reads, never a folder or an index.

    Parameters
    ----------
    row
        As for :func:`find_libraries`.
    planned
        Files that another rule will make; they count as being there, so that the answer is the
        same before and after.
    rna_alone
        List the files of the RNA counts alone.

    Returns
    -------
    list of str
        Sorted. Of what is not understood, the files that the sheet names. What is not there is
        not listed: preflight says so, where Snakemake would take results of before for current.
    """
    files: set[str] = set()
    try:
        libraries = find_libraries(row, planned)
    except InputError:
        files.update(row[column] for column in (FILES[:1] if rna_alone else FILES))
        libraries = []
    for library in libraries:
        try:
            located = locate(library, planned)
            files.update(located.rna.files if rna_alone else located.files)
        except InputError:
            files.update([library.path] if rna_alone else library.named)
    return sorted(path for path in files if path in planned or os.path.isfile(path))


def require_distinct(files: Mapping[str, Sequence[str]]) -> None:
    """Refuse two samples of one matrix: their cells would be there twice, in training and test.

    Parameters
    ----------
    files
        By sample, the files of its RNA counts.

    Raises
    ------
    InputError
        Naming both.
    """
    of_whom: dict[str, str] = {}
    for sample, paths in files.items():
        for path in paths:
            other = of_whom.setdefault(os.path.realpath(path), sample)
            if other != sample:
                raise InputError(
                    "SHEET",
                    f"samples {other} and {sample} have one matrix, {path}: correct the sample "
                    "sheet's path, or remove one of the two.",
                )


def locate(files: LibraryFiles, planned: Collection[str] = ()) -> Library:
    """Find what is read of one library.

    Promoters come from what the sheet names, in the order fragments, promoter_layer, atac_path;
    if it names nothing, from fragments beside the matrix, else from what the matrix holds
    (:func:`promoter_source`).

    Parameters
    ----------
    files
        As the sheet names them.
    planned
        Files that another rule will make.

    Raises
    ------
    InputError
        If a file is missing, or a folder holds no matrix or several.
    """
    tree = Tree(planned)
    fragments, metrics, unspliced, peaks = files.fragments, "", None, None
    of_layers = files.kind == "10x" and (files.rna_layer or files.promoter_layer)
    if files.kind != "10x":
        rna = find_annotated(files.path, files.kind, tree)
    elif of_layers:
        if files.promoter_layer:
            unspliced = find_layer(files.path, files.promoter_layer, tree)
        rna = find_layer(files.path, files.rna_layer or "spliced", tree)
    else:
        rna = find_matrix(files.path, tree)
        metrics = "" if files.rna_only else beside(rna, METRICS, tree)
    if fragments and not tree.exists(fragments):
        raise InputError("PATH", f"{fragments}: no such file; check the sample sheet's fragments.")
    if fragments or files.promoter_layer or files.rna_only:
        pass
    elif files.atac_path:
        fragments, peaks = find_accessibility(files.atac_path, tree)
    elif files.kind == "10x":
        fragments = beside(rna, FRAGMENTS, tree)
    library = Library(
        files.sample, files.kind, rna, None if fragments else unspliced, peaks, fragments, metrics,
        files.rna_layer, files.promoter_layer, files.rna_only,
    )  # fmt: skip
    for path in library.files:
        refuse_dangling(path, tree)
    return library


def promoter_source(
    library: Library, layers: Collection[str], has_peaks: bool
) -> tuple[str, str | None]:
    """Say where a library's promoter counts come from, as preflight says it and ingestion does it.

    Parameters
    ----------
    library
        As :func:`locate` finds it.
    layers
        The layers that the RNA's file has.
    has_peaks
        Whether that file has peaks, too.

    Returns
    -------
    source : str
        "none", "fragments", "promoter layer" or "peaks".
    layer : str or None
        The layer's name.

    Raises
    ------
    InputError
        If promoters were not measured and the sheet does not say so.
    """
    if library.rna_only:
        return "none", None
    if library.fragments:
        return "fragments", None
    if library.promoter_layer:
        return "promoter layer", library.promoter_layer
    if library.peaks:
        return "peaks", None
    # Accessibility that was measured beats what only stands in for it.
    if "promoter" in layers:
        return "promoter layer", "promoter"
    if has_peaks:
        return "peaks", None
    if "unspliced" in layers:
        return "promoter layer", "unspliced"
    raise InputError(
        "PROMOTERS",
        f"sample {library.sample}: has neither fragments nor peaks nor a promoter layer; name one "
        "in the sample sheet (columns fragments, atac_path, promoter_layer), or write "
        f"'{RNA_ONLY}' into atac_path if promoters were not measured.",
    )


def find_annotated(path: str, kind: str, tree: Tree) -> Matrix:
    """Find an ``.h5ad`` or ``.h5mu``.

    Raises
    ------
    InputError
        If it is not there, or obviously something else.
    """
    refuse_dangling(path, tree)
    if not tree.exists(path):
        raise InputError("PATH", f"{path}: no such file; check the sample sheet's path.")
    refuse_other_formats(path)
    if tree.is_dir(path):
        raise InputError(
            "FORMAT",
            f"{path}: is a folder, not an {kind} file; if it is of Cell Ranger or its like, write "
            "10x into the sample sheet's kind.",
        )
    return Matrix(path)


def refuse_dangling(path: str, tree: Tree) -> None:
    """Refuse a link to what is not there, and will not be made.

    Parameters
    ----------
    path
        The link, if it is one.
    tree
        The files that are there.

    Raises
    ------
    InputError
        Naming what it leads to.
    """
    if os.path.islink(path) and not os.path.exists(path) and not tree.is_planned(path):
        raise InputError(
            "PATH",
            f"{path}: is a link to {os.readlink(path)}, which is not there; mend the link, or name "
            "the file itself.",
        )


def find_accessibility(path: str, tree: Tree) -> tuple[str, Matrix | None]:
    """Find the fragments, or else the matrix of peaks, that the column ``atac_path`` means.

    Parameters
    ----------
    path
        A folder of a tool's output, or a file: a matrix of peaks, an AnnData of them, or a MuData
        with a modality of them.
    tree
        The files that are there.

    Returns
    -------
    fragments : str
        Empty if there are none.
    peaks : Matrix or None
        None if there are fragments.

    Raises
    ------
    InputError
        If there is neither; see :func:`find_matrix`.
    """
    if path.endswith((".h5ad", ".h5mu")):
        return "", replace(find_annotated(path, "h5ad", tree), modality="atac")
    for folder in (path, os.path.join(path, "outs")):
        if tree.is_dir(folder) and (fragments := tree.one(folder, *FRAGMENTS)):
            return fragments, None
    peaks = find_matrix(path, tree)
    fragments = beside(peaks, FRAGMENTS, tree)
    return fragments, None if fragments else peaks


def refuse_other_formats(path: str) -> None:
    """Refuse what is known by its name to be of another format.

    Raises
    ------
    InputError
        Saying how to turn it into one that is read.
    """
    if path.endswith(".loom"):
        raise InputError(
            "FORMAT",
            f"{path}: is a loom file; write it as .h5ad "
            "(anndata.io.read_loom(file).write_h5ad(other)) and name that, with kind h5ad.",
        )
    if path.lower().endswith((".rds", ".rdata", ".qs")):
        raise InputError(
            "FORMAT",
            f"{path}: is a file of R; write its counts as a 10x folder "
            "(DropletUtils::write10xCounts) or as .h5ad, and name that.",
        )
    if ARCHIVE.search(path):
        raise InputError("FORMAT", f"{path}: is an archive; unpack it and name the folder in it.")


def find_matrix(path: str | os.PathLike[str], tree: Tree | None = None) -> Matrix:
    """Find the matrix that Cell Ranger, STARsolo, kallisto bustools or alevin-fry wrote.

    Parameters
    ----------
    path
        The folder that the tool wrote to, a folder within it, or the matrix itself: an ``.h5``,
        a folder with ``matrix.mtx`` and its lists, or an ``.mtx`` beside its lists.
    tree
        The files that are there.

    Raises
    ------
    InputError
        If there is no matrix, more than one, or a list of it is missing.
    """
    path, tree = os.fspath(path), tree or Tree()
    refuse_dangling(path, tree)
    if not tree.exists(path):
        raise InputError("PATH", f"{path}: no such file or folder; check the sample sheet's path.")
    if not tree.is_dir(path):
        refuse_other_formats(path)
        if path.endswith((".h5ad", ".h5mu")):
            raise InputError(
                "FORMAT",
                f"{path}: is no 10x matrix; write {path.rsplit('.', 1)[1]} into the sample "
                "sheet's kind.",
            )
        return mtx_matrix(path, tree) if MTX.search(path) else Matrix(path)
    for folder in folders_in(path, FOLDERS, tree):
        if matrix := matrix_in(folder, tree):
            return matrix
    folder = os.path.join(path, "outs") if tree.is_dir(os.path.join(path, "outs")) else path
    raise InputError(
        "PATH",
        f"{folder}: holds none of {', '.join(MATRICES)} and no matrix.mtx; name the .h5 or the "
        f"folder of the matrix itself{other_matrices(path, tree)}.",
    )


def folders_in(path: str, parts: Sequence[str], tree: Tree) -> list[str]:
    """List the folders of a tool's layout that are there.

    Parameters
    ----------
    path
        The folder that the tool wrote to, or one within it.
    parts
        As :data:`FOLDERS`. Those of STARsolo are looked for under any prefix, and all in the
        folder of cellranger multi's sample, too, if it wrote a single one.
    tree
        The files that are there.

    Raises
    ------
    InputError
        If several folders have a prefix before STARsolo's name.
    """
    prefixed = [name for name in tree.names(path) if name.endswith(SOLO)]
    solo = SOLO
    if prefixed and SOLO not in prefixed:
        refuse_several(path, prefixed)
        solo = prefixed[0]
    found = [os.path.join(path, part.replace(SOLO, solo)) if part else path for part in parts]
    samples = samples_of_multi(path, tree)
    if len(samples) == 1:
        found += [os.path.join(samples[0], "count"), samples[0]]
    return [folder for folder in found if tree.is_dir(folder)]


def samples_of_multi(path: str, tree: Tree) -> list[str]:
    """List the folders that cellranger multi wrote, one a sample."""
    for part in (OF_SAMPLES, f"outs/{OF_SAMPLES}", ""):
        folder = os.path.normpath(os.path.join(path, part))
        if os.path.basename(folder) == OF_SAMPLES and tree.is_dir(folder):
            return [os.path.join(folder, name) for name in tree.names(folder)]
    return []


def other_matrices(path: str, tree: Tree) -> str:
    """Say which matrices a folder holds that are read only if they are named, in brackets."""
    samples = samples_of_multi(path, tree)
    if samples:
        return f" ({OF_SAMPLES} holds {', '.join(map(os.path.basename, samples[:3]))}: name one)"
    parts = {part.removesuffix("filtered") for part in FOLDERS}
    for folder in folders_in(path, sorted(parts, key=len), tree):
        for name in tree.names(folder):
            if re.search("^raw|_raw_|unfiltered", name):
                raw = os.path.relpath(os.path.join(folder, name), path).removeprefix("outs/")
                return f" (it holds {raw}: name that if all barcodes are meant)"
    return ""


def matrix_in(folder: str, tree: Tree) -> Matrix | None:
    """Find the one matrix that lies in a folder, None if there is none; see :func:`find_matrix`.

    Parameters
    ----------
    folder
        Itself, not the folders in it, save those of genomes that Cell Ranger 2 wrote.
    tree
        The files that are there.

    Raises
    ------
    InputError
        If there are several, or one lacks its lists.
    """
    names = tree.names(folder)
    if plain := tree.one(folder, "matrix.mtx", f"{USA}.mtx"):
        return mtx_matrix(plain, tree, folder)
    for ends_with in (str.__eq__, str.endswith):
        for matrix in MATRICES:
            found = [os.path.join(folder, name) for name in names if ends_with(name, matrix)]
            found = [p for p in found if not tree.is_dir(p) or holds_mtx(p, tree)]
            if found:
                refuse_several(folder, found)
                return find_matrix(found[0], tree) if tree.is_dir(found[0]) else Matrix(found[0])
    if os.path.normpath(folder).endswith(OF_GENOMES):
        genomes = [name for name in names if holds_mtx(os.path.join(folder, name), tree)]
        if len(genomes) == 1:
            return matrix_in(os.path.join(folder, genomes[0]), tree)
        raise InputError(
            "GENOMES",
            f"{folder}: holds {', '.join(genomes) or 'no genome'}; give the folder of one genome "
            "as path.",
        )
    if layer := layer_in(folder, "spliced", tree):
        return layer
    found = [os.path.join(folder, name) for name in names if MTX.search(name)]
    listed = [path for path in found if find_lists(path, tree)]
    if len(found) == 1 and not listed:
        return mtx_matrix(found[0], tree)
    refuse_several(folder, listed)
    return mtx_matrix(listed[0], tree) if listed else None


def holds_mtx(folder: str, tree: Tree) -> bool:
    """Tell whether a folder, or one a genome in it, holds a matrix of MatrixMarket."""
    folders = [folder, *(os.path.join(folder, name) for name in tree.names(folder))]
    names = [f"matrix.mtx{packed}" for packed in PACKED]
    return any(tree.is_dir(f) and tree.exists(os.path.join(f, n)) for f in folders for n in names)


def refuse_several(folder: str, found: Sequence[str]) -> None:
    """Refuse a folder with more than one matrix of the same kind.

    Parameters
    ----------
    folder
        For messages.
    found
        The paths of what it holds.

    Raises
    ------
    InputError
        Naming the first three.
    """
    if len(found) > 1:
        names = ", ".join(os.path.basename(path) for path in found[:3])
        raise InputError(
            "PATH",
            f"{folder}: holds {len(found)} matrices ({names}); name one of them as path, or a "
            "pattern with * if all are libraries of the sample.",
        )


def find_layer(path: str, name: str, tree: Tree) -> Matrix:
    """Find the counts of spliced or unspliced RNA that a tool keeps apart.

    Raises
    ------
    InputError
        If there are none.
    """
    for folder in map(os.path.normpath, folders_in(path, LAYER_FOLDERS, tree)):
        if layer := layer_in(folder, name, tree):
            return layer
    raise InputError(
        "LAYER",
        f"{path}: holds no matrix of the layer '{name}', as kallisto bustools, STARsolo (Velocyto) "
        "and alevin-fry (USA) write them; check the sample sheet's rna_layer and promoter_layer.",
    )


def layer_in(folder: str, name: str, tree: Tree) -> Matrix | None:
    """Find the counts of a layer in a folder, None if there are none.

    Parameters
    ----------
    folder
        Itself, not the folders in it.
    name
        A key of :data:`LAYER_FILES`; of any other layer there are none.
    tree
        The files that are there.

    Raises
    ------
    InputError
        If several matrices hold it, or one lacks its lists.
    """
    if name in USA_PARTS and (path := tree.one(folder, f"{USA}.mtx")):
        return mtx_matrix(path, tree, folder, USA_PARTS[name])
    files = [file for file in tree.names(folder) if MTX.search(file)]
    stems = {MTX.sub("", file): file for file in files}
    for parts in LAYER_FILES.get(name, ()):
        of_parts = {part: [s for s in stems if s.split(".")[-1] == part] for part in parts}
        if found := of_parts[parts[0]]:
            refuse_several(folder, [file for file in files if MTX.sub("", file) in found])
            matrices = [
                mtx_matrix(os.path.join(folder, stems[stem]), tree, folder)
                for part in parts
                for stem in of_parts[part]
            ]
            lists = matrices[0].barcodes, matrices[0].features, matrices[0].cells_in_rows
            return Matrix(folder, tuple(m.counts[0] for m in matrices), *lists)
    return None


def mtx_matrix(
    path: str, tree: Tree, folder: str = "", parts: tuple[str, ...] = USA_PARTS["spliced"]
) -> Matrix:
    """Put a file of MatrixMarket together with its lists.

    Parameters
    ----------
    path
        The file.
    tree
        The files that are there.
    folder
        By which messages call it; the file if empty.
    parts
        Of USA counts.

    Raises
    ------
    InputError
        If a list is not there.
    """
    lists = find_lists(path, tree)
    if lists is None:
        stem = MTX.sub("", os.path.basename(path))
        prefix = stem.removesuffix("matrix") if stem.endswith("matrix") else ""
        lacks = [f"{prefix}barcodes.tsv"]
        if not stem.endswith("matrix"):
            lacks.append(f"{stem}.barcodes.txt")
        if tree.one(os.path.dirname(path), *lacks):
            lacks = [f"{prefix}{name}" for name in ("features.tsv", "genes.tsv", "peaks.bed")]
        raise InputError("PATH", f"{folder or path}: lacks {' or '.join(lacks)}, plain or gzipped.")
    usa = os.path.basename(path).startswith(f"{USA}.")
    return Matrix(folder or path, (path,), *lists, parts if usa else ())


def find_lists(path: str, tree: Tree) -> tuple[str, str, bool] | None:
    """Find the lists of a file of MatrixMarket by its name.

    Returns
    -------
    tuple of str, str, bool or None
        Barcodes, features, and whether cells stand in the matrix's rows; None if one is missing.
    """
    folder, stem = os.path.dirname(path), MTX.sub("", os.path.basename(path))
    outer = stem.rpartition(".")[0]
    prefix = stem.removesuffix("matrix") if stem.endswith("matrix") else ""
    candidates = [
        # kallisto bustools: genes.mtx, or cells_x_genes.mature.mtx of cells_x_genes.genes.txt
        (f"{stem}.barcodes.txt", [f"{stem}.genes.txt"], True),
        (f"{outer}.barcodes.txt", [f"{outer}.genes.txt"], True),
        (f"{USA}_rows.txt", [f"{USA}_cols.txt"], True),
        # Cell Ranger and STARsolo
        (
            f"{prefix}barcodes.tsv",
            [f"{prefix}{name}" for name in ("features.tsv", "genes.tsv", "peaks.bed")],
            False,
        ),
    ]
    for barcodes, features, cells_in_rows in candidates:
        # Peaks may lie beside a list of features, as a file of their own.
        of_peaks = [name for name in features if name.endswith("peaks.bed")]
        listed = tree.one(folder, *(name for name in features if name not in of_peaks))
        found = tree.one(folder, barcodes), listed or tree.one(folder, *of_peaks)
        if all(found):
            return *found, cells_in_rows
    return None


def beside(matrix: Matrix, names: Sequence[str], tree: Tree) -> str:
    """Find a file beside a matrix, packed or not, under its prefix or none; empty if none is."""
    folder, file = os.path.split(matrix.path)
    folders = [matrix.path, folder] if tree.is_dir(matrix.path) else [folder]
    of_mtx = [f"matrix.mtx{packed}" for packed in PACKED]
    ends = [end for end in (*MATRICES, *of_mtx) if file.endswith(end)]
    prefix = file.removesuffix(ends[0]) if ends else ""
    found = (tree.one(f, *(p + name for name in names)) for f in folders for p in (prefix, ""))
    return next(filter(None, found), "")
