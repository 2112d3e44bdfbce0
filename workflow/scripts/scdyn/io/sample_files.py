"""Find the input files of a sample's libraries from its row of the sample sheet.

The rules declare these files as inputs, preflight examines them and ingestion reads them. Files
named in the sheet take precedence over files that are found. Nothing here opens a file, so that it
runs in Snakemake's environment.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from scdyn.errors import InputError
from scdyn.order import natural_key

FILES = ("path", "atac_path", "fragments")
LAYERS = ("rna_layer", "promoter_layer")
# Columns of the sample sheet that describe files.
COLUMNS = ("sample", "kind", *FILES, *LAYERS)
# Value of the column atac_path: promoter accessibility was not measured, or is not to be used.
RNA_ONLY = "none"

# Outputs of Cell Ranger: ARC and GEX from version 3 on, GEX version 2 (`_mex` by its aggr), ATAC.
# They may have a prefix such as `sample_`, as from cellranger multi and in downloads.
MATRICES = (
    "filtered_feature_bc_matrix.h5",
    "filtered_feature_bc_matrix",
    "filtered_gene_bc_matrices_h5.h5",
    "filtered_gene_bc_matrices",
    "filtered_gene_bc_matrices_mex",
    "filtered_peak_bc_matrix.h5",
    "filtered_peak_bc_matrix",
)
GENOME_FOLDERS = ("gene_bc_matrices", "gene_bc_matrices_mex")
FRAGMENTS = ("atac_fragments.tsv.gz", "fragments.tsv.gz", "atac_fragments.tsv", "fragments.tsv")
METRICS = ("per_barcode_metrics.csv",)
# cellranger multi writes one folder per sample in it.
SAMPLE_FOLDER = "per_sample_outs"
# Output folder of STARsolo, which may have a prefix, and the folders of its counts.
SOLO = "Solo.out"
SOLO_FOLDERS = tuple(
    f"{outer}{features}/filtered"
    for features in ("Gene", "GeneFull", "GeneFull_Ex50pAS", "GeneFull_ExonOverIntron")
    for outer in (f"{SOLO}/", "")
)
# Folders of the matrix within a tool's output folder: Cell Ranger (`count` for multi and aggr),
# STARsolo, kb count --filter, alevin-fry.
FOLDERS = (
    "", "outs", "count", "outs/count", *SOLO_FOLDERS, "filtered", "counts_filtered", "alevin",
    "af_quant/alevin",
)  # fmt: skip
# Folders of spliced and unspliced counts: next to the matrix (kallisto bustools), or in a separate
# folder (STARsolo).
LAYER_FOLDERS = (
    *FOLDERS, f"{SOLO}/Velocyto/filtered", "Velocyto/filtered", "../../Velocyto/filtered",
)  # fmt: skip
# Names of a layer's files, whose counts are summed. The nac workflow of kb calls spliced RNA
# "mature" and writes ambiguous counts separately, which its authors count as mature.
LAYER_FILES = {
    "spliced": (("spliced",), ("mature", "ambiguous")),
    "unspliced": (("unspliced",), ("nascent",)),
    "ambiguous": (("ambiguous",),),
}
# alevin-fry writes spliced, unspliced and ambiguous counts into one matrix (USA mode); its authors
# count ambiguous ones as spliced.
USA = "quants_mat"
USA_PARTS = {
    "spliced": ("spliced", "ambiguous"), "unspliced": ("unspliced",), "ambiguous": ("ambiguous",)
}  # fmt: skip
PACKED = ("", ".gz", ".bz2", ".xz", ".zst")
ARCHIVE = re.compile(r"\.(tar|tgz|zip|rar|7z|tar\.\w+)$")
MTX = re.compile(r"\.mtx(\.gz|\.bz2|\.xz|\.zst)?$")


@dataclass(frozen=True)
class LibraryFiles:
    """The paths and layers that the sample sheet names for one library.

    Attributes
    ----------
    kind, path, atac_path, fragments, rna_layer, promoter_layer, sample
        As in the columns of the sheet; patterns are expanded.
    rna_only
        Whether promoter accessibility counts as not measured.
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
        """The paths in the sheet."""
        return [path for path in (self.path, self.atac_path, self.fragments) if path]


@dataclass(frozen=True)
class Matrix:
    """The files of a count matrix.

    Attributes
    ----------
    path
        The file (``.h5``, ``.h5ad``, ``.h5mu``), or the folder (or file) of MatrixMarket, as shown
        in messages.
    counts
        MatrixMarket files, whose counts are summed; empty for HDF5.
    barcodes, features
        The lists that belong to ``counts``.
    cells_in_rows
        Whether the rows of ``counts`` are cells.
    parts
        For alevin-fry's USA mode: which of "spliced", "unspliced" and "ambiguous" are summed.
    modality
        For ``.h5ad`` and ``.h5mu``: "rna", or "atac" to read peaks.
    """

    path: str
    counts: tuple[str, ...] = ()
    barcodes: str = ""
    features: str = ""
    cells_in_rows: bool = False
    parts: tuple[str, ...] = ()
    modality: str = "rna"

    def __str__(self) -> str:
        """Return the path, for messages."""
        return self.path

    @property
    def files(self) -> list[str]:
        """All files that are read."""
        return [*self.counts, self.barcodes, self.features] if self.counts else [self.path]


@dataclass(frozen=True)
class Library:
    """The files that are read for one library.

    Attributes
    ----------
    sample, kind, rna_layer, promoter_layer, rna_only
        As in the sheet.
    rna
        RNA counts, and peak counts if they are in the same file.
    unspliced
        Counts of ``promoter_layer``, if they are in separate files.
    peaks
        Peak counts, if they are in a separate file.
    fragments, metrics
        Empty if they do not exist or are not read.
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
        """All files that are read."""
        matrices = [matrix for matrix in (self.rna, self.unspliced, self.peaks) if matrix]
        files = {path for matrix in matrices for path in matrix.files}
        return sorted(files | {path for path in (self.fragments, self.metrics) if path})


class Tree:
    """The file system, with files that another rule will create.

    Hidden files are ignored, such as those that macOS creates (``._barcodes.tsv.gz``).

    Parameters
    ----------
    planned
        Files that count as existing.
    """

    def __init__(self, planned: Collection[str] = ()) -> None:
        self._planned: dict[str, set[str]] = {}
        for path in planned:
            path = os.path.normpath(path)
            while path != (folder := os.path.dirname(path)):
                self._planned.setdefault(folder, set()).add(os.path.basename(path))
                path = folder

    def exists(self, path: str) -> bool:
        """Tell whether a file, a folder or a link exists, even a broken link."""
        return self.is_planned(path) or os.path.lexists(path)

    def is_planned(self, path: str) -> bool:
        """Tell whether another rule will create a file or folder."""
        folder, name = os.path.split(os.path.normpath(path))
        return name in self._planned.get(folder, ())

    def is_dir(self, path: str) -> bool:
        """Tell whether a folder exists."""
        return os.path.normpath(path) in self._planned or os.path.isdir(path)

    def names(self, folder: str) -> list[str]:
        """List the content of a folder; an empty list if it cannot be read."""
        names = set(self._planned.get(os.path.normpath(folder), ()))
        try:
            names.update(os.listdir(folder))
        except OSError:
            pass
        return sorted(name for name in names if not name.startswith("."))

    def glob(self, pattern: str) -> list[str]:
        """List the paths that match a pattern, in natural order: ``lane2`` before ``lane10``."""
        parts = os.path.normpath(pattern).split(os.sep)
        planned = {os.path.join(f, name) for f, names in self._planned.items() for name in names}
        matched = [
            path
            for path in planned
            if len(path.split(os.sep)) == len(parts)
            and all(map(fnmatchcase, path.split(os.sep), parts))
        ]
        return sorted({*glob.glob(pattern), *matched}, key=natural_key)

    def find_one(self, folder: str, *names: str) -> str:
        """Find the file with one of some names, compressed or not; empty if there is none.

        Raises
        ------
        InputError
            If there are several, whose contents may differ.
        """
        paths = [os.path.join(folder, name + packed) for name in names for packed in PACKED[::-1]]
        return self.find_one_of(folder, paths)

    def find_one_of(self, folder: str, paths: Sequence[str]) -> str:
        """Find the path that exists, or links to the same file; see :meth:`find_one`."""
        found = [path for path in paths if self.exists(path)]
        for path in found:
            if os.path.realpath(path) != os.path.realpath(found[0]):
                names = " and ".join(os.path.basename(p) for p in (found[0], path))
                raise InputError(
                    "PATH",
                    f"{folder}: contains both {names}; remove or rename the one that is not meant.",
                )
        return found[0] if found else ""


def find_libraries(row: Mapping[str, str], planned: Collection[str] = ()) -> list[LibraryFiles]:
    """Find a sample's libraries: one, or one per match of the patterns in its paths.

    Parameters
    ----------
    row
        Of the sample sheet: ``sample``, ``kind`` and the columns of :data:`FILES` and
        :data:`LAYERS`.
    planned
        Files that another rule will create.

    Raises
    ------
    InputError
        If a pattern matches nothing, the patterns of the columns match different numbers of
        paths, or a sample without promoters has fragments.
    """
    tree = Tree(planned)
    rna_only = row["atac_path"] == RNA_ONLY
    if rna_only and (row["fragments"] or row["promoter_layer"]):
        raise InputError(
            "SHEET",
            f"sample {row['sample']}: atac_path is '{RNA_ONLY}', but fragments or promoter_layer "
            "is set; clear one of them in the sample sheet.",
        )
    found = {}
    for column in FILES:
        path = "" if column == "atac_path" and rna_only else row[column]
        # An existing path is no pattern, even if it contains brackets.
        if not path or tree.exists(path) or not glob.has_magic(path):
            found[column] = [path]
        else:
            found[column] = tree.glob(path)
            if not found[column]:
                raise InputError(
                    "PATH",
                    f"sample {row['sample']}: no file matches {path} (column {column}); correct "
                    "the path in the sample sheet.",
                )
    n_libraries = len(found["path"])
    for column, paths in found.items():
        if paths != [""] and len(paths) != n_libraries:
            raise InputError(
                "PATH",
                f"sample {row['sample']}: {row['path']} matches {n_libraries} libraries, but "
                f"column {column} ({row[column]}) {len(paths)}; each library needs one of each.",
            )
        found[column] = paths if len(paths) == n_libraries else paths * n_libraries
    kind, *layers = (row[column] for column in ("kind", *LAYERS))
    return [
        LibraryFiles(
            kind, path, atac_path, fragments, layers[0], layers[1], rna_only, row["sample"]
        )
        for path, atac_path, fragments in zip(*found.values(), strict=True)
    ]


def list_input_files(
    row: Mapping[str, str], planned: Collection[str] = (), only_rna: bool = False
) -> list[str]:
    """List all files that the ingestion of a sample reads, without folders and indices.

    Parameters
    ----------
    row
        As for :func:`find_libraries`.
    planned
        Files that another rule will create. They count as existing, so that the list is the same
        before and after.
    only_rna
        List only the files of the RNA counts.

    Returns
    -------
    list of str
        Sorted. If the row has an error, the files that the sheet names. Missing files are left
        out, so that preflight can report them; Snakemake would treat existing results as current.
    """
    files: set[str] = set()
    try:
        libraries = find_libraries(row, planned)
    except InputError:
        files.update(row[column] for column in (FILES[:1] if only_rna else FILES))
        libraries = []
    for library in libraries:
        try:
            located = locate(library, planned)
            files.update(located.rna.files if only_rna else located.files)
        except InputError:
            files.update([library.path] if only_rna else library.named)
    return sorted(path for path in files if path in planned or os.path.isfile(path))


def require_distinct(files: Mapping[str, Sequence[str]]) -> None:
    """Refuse two samples with the same matrix: cells could be both in training and test set.

    Parameters
    ----------
    files
        Files of the RNA counts, by sample.

    Raises
    ------
    InputError
        Naming the two samples and the file.
    """
    of_whom: dict[str, str] = {}
    for sample, paths in files.items():
        for path in paths:
            other = of_whom.setdefault(os.path.realpath(path), sample)
            if other != sample:
                raise InputError(
                    "SHEET",
                    f"samples {other} and {sample} have the same matrix, {path}; correct the path "
                    "in the sample sheet, or remove one of the samples.",
                )


def locate(files: LibraryFiles, planned: Collection[str] = ()) -> Library:
    """Find the files that are read for one library.

    Promoter counts come from the first of fragments, promoter_layer and atac_path that the sheet
    names. If it names none, they come from a fragments file next to the matrix, else from the
    matrix itself (:func:`choose_promoter_source`).

    Parameters
    ----------
    files
        Paths in the sheet.
    planned
        Files that another rule will create.

    Raises
    ------
    InputError
        If a file is missing, or a folder contains no matrix or several.
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
        metrics = "" if files.rna_only else find_sibling(rna, METRICS, tree)
    if fragments and not tree.exists(fragments):
        raise InputError(
            "PATH", f"{fragments}: no such file; correct fragments in the sample sheet."
        )
    if fragments or files.promoter_layer or files.rna_only:
        pass
    elif files.atac_path:
        fragments, peaks = find_accessibility(files.atac_path, tree)
    elif files.kind == "10x":
        fragments = find_sibling(rna, FRAGMENTS, tree)
    library = Library(
        files.sample, files.kind, rna, None if fragments else unspliced, peaks, fragments, metrics,
        files.rna_layer, files.promoter_layer, files.rna_only,
    )  # fmt: skip
    for path in library.files:
        refuse_dangling(path, tree)
    return library


def choose_promoter_source(
    library: Library, layers: Collection[str], has_peaks: bool
) -> tuple[str, str | None]:
    """Choose the source of a library's promoter counts, for preflight and ingestion.

    Parameters
    ----------
    library
        As found by :func:`locate`.
    layers
        Layers in the file of the RNA counts.
    has_peaks
        Whether that file also has peaks.

    Returns
    -------
    source : str
        "none", "fragments", "promoter layer" or "peaks".
    layer : str or None
        Name of the layer.

    Raises
    ------
    InputError
        If there is no source, and the sheet does not mark the sample as RNA only.
    """
    if library.rna_only:
        return "none", None
    if library.fragments:
        return "fragments", None
    if library.promoter_layer:
        return "promoter layer", library.promoter_layer
    if library.peaks:
        return "peaks", None
    # Measured accessibility is better than unspliced counts, which are only a proxy.
    if "promoter" in layers:
        return "promoter layer", "promoter"
    if has_peaks:
        return "peaks", None
    if "unspliced" in layers:
        return "promoter layer", "unspliced"
    raise InputError(
        "PROMOTERS",
        f"sample {library.sample}: no promoter accessibility found (no fragments, peaks or "
        "promoter layer); name one in the sample sheet (columns fragments, atac_path, "
        f"promoter_layer), or write '{RNA_ONLY}' into atac_path if it was not measured.",
    )


def find_annotated(path: str, kind: str, tree: Tree) -> Matrix:
    """Find an ``.h5ad`` or ``.h5mu``.

    Raises
    ------
    InputError
        If it does not exist, or has another format by its name.
    """
    refuse_dangling(path, tree)
    if not tree.exists(path):
        raise InputError("PATH", f"{path}: no such file; correct the path in the sample sheet.")
    refuse_other_formats(path)
    if tree.is_dir(path):
        raise InputError(
            "FORMAT",
            f"{path}: is a folder, not an {kind} file; if Cell Ranger or a similar tool wrote it, "
            "set kind to 10x in the sample sheet.",
        )
    return Matrix(path)


def refuse_dangling(path: str, tree: Tree) -> None:
    """Refuse a broken link, unless another rule will create the file.

    Parameters
    ----------
    path
        Any path.
    tree
        The existing and planned files.

    Raises
    ------
    InputError
        Naming the target of the link.
    """
    if os.path.islink(path) and not os.path.exists(path) and not tree.is_planned(path):
        raise InputError(
            "PATH",
            f"{path}: broken link to {os.readlink(path)}; repair it, or name the file itself.",
        )


def find_accessibility(path: str, tree: Tree) -> tuple[str, Matrix | None]:
    """Find the fragments, or else the peak counts, of the column ``atac_path``.

    Parameters
    ----------
    path
        Output folder of a tool, or a file: a 10x matrix of peaks, an AnnData of peaks, or a MuData
        with a modality "atac".
    tree
        The existing and planned files.

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
        if tree.is_dir(folder) and (fragments := tree.find_one(folder, *FRAGMENTS)):
            return fragments, None
    peaks = find_matrix(path, tree)
    fragments = find_sibling(peaks, FRAGMENTS, tree)
    return fragments, None if fragments else peaks


def refuse_other_formats(path: str) -> None:
    """Refuse a file whose name shows that its format is not supported.

    Raises
    ------
    InputError
        Naming a way to convert it.
    """
    if path.endswith(".loom"):
        raise InputError(
            "FORMAT",
            f"{path}: loom is not supported; convert it to .h5ad "
            "(anndata.io.read_loom(file).write_h5ad(other)) and name that file, with kind h5ad.",
        )
    if path.lower().endswith((".rds", ".rdata", ".qs")):
        raise InputError(
            "FORMAT",
            f"{path}: R objects are not supported; export the raw counts as a 10x folder "
            "(DropletUtils::write10xCounts) or as .h5ad, and name that.",
        )
    if ARCHIVE.search(path):
        raise InputError("FORMAT", f"{path}: is an archive; unpack it and name its folder.")


def find_matrix(path: str | os.PathLike[str], tree: Tree | None = None) -> Matrix:
    """Find the matrix written by Cell Ranger, STARsolo, kallisto bustools or alevin-fry.

    Parameters
    ----------
    path
        Output folder of the tool, a folder within it, or the matrix itself: an ``.h5``, a folder
        with ``matrix.mtx`` and its lists, or an ``.mtx`` in the same folder as its lists.
    tree
        The existing and planned files.

    Raises
    ------
    InputError
        If there is no matrix or more than one, or if one of its lists is missing.
    """
    path, tree = os.fspath(path), tree or Tree()
    refuse_dangling(path, tree)
    if not tree.exists(path):
        raise InputError(
            "PATH", f"{path}: no such file or folder; correct the path in the sample sheet."
        )
    if not tree.is_dir(path):
        refuse_other_formats(path)
        if path.endswith((".h5ad", ".h5mu")):
            raise InputError(
                "FORMAT",
                f"{path}: is not a 10x matrix; set kind to {path.rsplit('.', 1)[1]} in the sample "
                "sheet.",
            )
        return assemble_mtx(path, tree) if MTX.search(path) else Matrix(path)
    for folder in list_folders(path, FOLDERS, tree):
        if matrix := find_matrix_in(folder, tree):
            return matrix
    folder = os.path.join(path, "outs") if tree.is_dir(os.path.join(path, "outs")) else path
    raise InputError(
        "PATH",
        f"{folder}: no count matrix found ({', '.join(MATRICES)} or matrix.mtx); name the .h5 or "
        f"the folder of the matrix itself{suggest_matrices(path, tree)}.",
    )


def list_folders(path: str, parts: Sequence[str], tree: Tree) -> list[str]:
    """List the existing folders of a tool's layout.

    Parameters
    ----------
    path
        Output folder of the tool, or a folder within it.
    parts
        Such as :data:`FOLDERS`. STARsolo's folder may have any prefix. If cellranger multi wrote
        a single sample, its folder is searched, too.
    tree
        The existing and planned files.

    Raises
    ------
    InputError
        If there are several folders of STARsolo.
    """
    prefixed = [name for name in tree.names(path) if name.endswith(SOLO)]
    solo = SOLO
    if prefixed and SOLO not in prefixed:
        refuse_several(path, prefixed)
        solo = prefixed[0]
    found = [os.path.join(path, part.replace(SOLO, solo)) if part else path for part in parts]
    samples = list_multi_samples(path, tree)
    if len(samples) == 1:
        found += [os.path.join(samples[0], "count"), samples[0]]
    return [folder for folder in found if tree.is_dir(folder)]


def list_multi_samples(path: str, tree: Tree) -> list[str]:
    """List the folders of cellranger multi, one per sample."""
    for part in (SAMPLE_FOLDER, f"outs/{SAMPLE_FOLDER}", ""):
        folder = os.path.normpath(os.path.join(path, part))
        if os.path.basename(folder) == SAMPLE_FOLDER and tree.is_dir(folder):
            return [os.path.join(folder, name) for name in tree.names(folder)]
    return []


def suggest_matrices(path: str, tree: Tree) -> str:
    """Return a hint in brackets at matrices that are read only if the sheet names them."""
    samples = list_multi_samples(path, tree)
    if samples:
        return f" ({SAMPLE_FOLDER} has {', '.join(map(os.path.basename, samples[:3]))}: name one)"
    parts = {part.removesuffix("filtered") for part in FOLDERS}
    for folder in list_folders(path, sorted(parts, key=len), tree):
        for name in tree.names(folder):
            if re.search("^raw|_raw_|unfiltered", name):
                raw = os.path.relpath(os.path.join(folder, name), path).removeprefix("outs/")
                return f" (there is {raw}: name it to use all barcodes)"
    return ""


def find_matrix_in(folder: str, tree: Tree) -> Matrix | None:
    """Find the matrix in a folder, None if there is none; see :func:`find_matrix`.

    Parameters
    ----------
    folder
        Searched without its subfolders, except the genome folders of Cell Ranger 2.
    tree
        The existing and planned files.

    Raises
    ------
    InputError
        If there are several matrices, or a list is missing.
    """
    names = tree.names(folder)
    if plain := tree.find_one(folder, "matrix.mtx", f"{USA}.mtx"):
        return assemble_mtx(plain, tree, folder)
    for ends_with in (str.__eq__, str.endswith):
        for matrix in MATRICES:
            found = [os.path.join(folder, name) for name in names if ends_with(name, matrix)]
            found = [p for p in found if not tree.is_dir(p) or contains_mtx(p, tree)]
            if found:
                refuse_several(folder, found)
                return find_matrix(found[0], tree) if tree.is_dir(found[0]) else Matrix(found[0])
    if os.path.normpath(folder).endswith(GENOME_FOLDERS):
        genomes = [name for name in names if contains_mtx(os.path.join(folder, name), tree)]
        if len(genomes) == 1:
            return find_matrix_in(os.path.join(folder, genomes[0]), tree)
        raise InputError(
            "GENOMES",
            f"{folder}: contains {', '.join(genomes) or 'no genome'}; name the folder of one "
            "genome as path.",
        )
    if layer := find_layer_in(folder, "spliced", tree):
        return layer
    found = [os.path.join(folder, name) for name in names if MTX.search(name)]
    listed = [path for path in found if find_lists(path, tree)]
    if len(found) == 1 and not listed:
        return assemble_mtx(found[0], tree)
    refuse_several(folder, listed)
    return assemble_mtx(listed[0], tree) if listed else None


def contains_mtx(folder: str, tree: Tree) -> bool:
    """Tell whether a folder or one of its subfolders contains a ``matrix.mtx``."""
    folders = [folder, *(os.path.join(folder, name) for name in tree.names(folder))]
    names = [f"matrix.mtx{packed}" for packed in PACKED]
    return any(tree.is_dir(f) and tree.exists(os.path.join(f, n)) for f in folders for n in names)


def refuse_several(folder: str, found: Sequence[str]) -> None:
    """Refuse a folder with more than one matrix of the same kind.

    Parameters
    ----------
    folder
        The folder, for messages.
    found
        Paths of its matrices.

    Raises
    ------
    InputError
        Naming the first three.
    """
    if len(found) > 1:
        names = ", ".join(os.path.basename(path) for path in found[:3])
        raise InputError(
            "PATH",
            f"{folder}: contains {len(found)} matrices ({names}); name one of them as path, or a "
            "pattern with * if all are libraries of the sample.",
        )


def find_layer(path: str, name: str, tree: Tree) -> Matrix:
    """Find the counts of spliced or unspliced RNA in a tool's output.

    Raises
    ------
    InputError
        If there are none.
    """
    for folder in map(os.path.normpath, list_folders(path, LAYER_FOLDERS, tree)):
        if layer := find_layer_in(folder, name, tree):
            return layer
    raise InputError(
        "LAYER",
        f"{path}: no matrix of the layer '{name}' found, as written by kallisto bustools, STARsolo "
        "(Velocyto) and alevin-fry (USA); check rna_layer and promoter_layer in the sample sheet.",
    )


def find_layer_in(folder: str, name: str, tree: Tree) -> Matrix | None:
    """Find the counts of a layer in a folder; None if there are none.

    Parameters
    ----------
    folder
        Searched without its subfolders.
    name
        A key of :data:`LAYER_FILES`; other layers are never found.
    tree
        The existing and planned files.

    Raises
    ------
    InputError
        If there are several matrices of the layer, or a list is missing.
    """
    if name in USA_PARTS and (path := tree.find_one(folder, f"{USA}.mtx")):
        return assemble_mtx(path, tree, folder, USA_PARTS[name])
    files = [file for file in tree.names(folder) if MTX.search(file)]
    stems = {MTX.sub("", file): file for file in files}
    for parts in LAYER_FILES.get(name, ()):
        of_parts = {part: [s for s in stems if s.split(".")[-1] == part] for part in parts}
        if found := of_parts[parts[0]]:
            refuse_several(folder, [file for file in files if MTX.sub("", file) in found])
            matrices = [
                assemble_mtx(os.path.join(folder, stems[stem]), tree, folder)
                for part in parts
                for stem in of_parts[part]
            ]
            lists = matrices[0].barcodes, matrices[0].features, matrices[0].cells_in_rows
            return Matrix(folder, tuple(m.counts[0] for m in matrices), *lists)
    return None


def assemble_mtx(
    path: str, tree: Tree, folder: str = "", parts: tuple[str, ...] = USA_PARTS["spliced"]
) -> Matrix:
    """Combine a MatrixMarket file with its lists.

    Parameters
    ----------
    path
        The file.
    tree
        The existing and planned files.
    folder
        Shown in messages; the file if empty.
    parts
        Of counts in USA mode.

    Raises
    ------
    InputError
        If a list is missing.
    """
    lists = find_lists(path, tree)
    if lists is None:
        stem = MTX.sub("", os.path.basename(path))
        prefix = stem.removesuffix("matrix") if stem.endswith("matrix") else ""
        lacks = [f"{prefix}barcodes.tsv"]
        if not stem.endswith("matrix"):
            lacks.append(f"{stem}.barcodes.txt")
        if tree.find_one(os.path.dirname(path), *lacks):
            lacks = [f"{prefix}{name}" for name in ("features.tsv", "genes.tsv", "peaks.bed")]
        raise InputError(
            "PATH", f"{folder or path}: {' or '.join(lacks)} is missing (plain or gzipped)."
        )
    usa = os.path.basename(path).startswith(f"{USA}.")
    return Matrix(folder or path, (path,), *lists, parts if usa else ())


def find_lists(path: str, tree: Tree) -> tuple[str, str, bool] | None:
    """Find the lists of a MatrixMarket file by its name.

    Returns
    -------
    tuple of str, str, bool or None
        Barcodes, features, and whether the rows of the matrix are cells; None if a list is
        missing.
    """
    folder, stem = os.path.dirname(path), MTX.sub("", os.path.basename(path))
    outer = stem.rpartition(".")[0]
    prefix = stem.removesuffix("matrix") if stem.endswith("matrix") else ""
    candidates = [
        # kallisto bustools: genes.mtx, or cells_x_genes.mature.mtx with cells_x_genes.genes.txt
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
        # A list of features has precedence over peaks.bed, which may also be there.
        of_peaks = [name for name in features if name.endswith("peaks.bed")]
        listed = tree.find_one(folder, *(name for name in features if name not in of_peaks))
        found = tree.find_one(folder, barcodes), listed or tree.find_one(folder, *of_peaks)
        if all(found):
            return *found, cells_in_rows
    return None


def find_sibling(matrix: Matrix, names: Sequence[str], tree: Tree) -> str:
    """Find a file next to a matrix, with or without its prefix, compressed or not, else empty."""
    folder, file = os.path.split(matrix.path)
    folders = [matrix.path, folder] if tree.is_dir(matrix.path) else [folder]
    of_mtx = [f"matrix.mtx{packed}" for packed in PACKED]
    ends = [end for end in (*MATRICES, *of_mtx) if file.endswith(end)]
    prefix = file.removesuffix(ends[0]) if ends else ""
    found = (tree.find_one(f, *(p + name for name in names)) for f in folders for p in (prefix, ""))
    return next(filter(None, found), "")
