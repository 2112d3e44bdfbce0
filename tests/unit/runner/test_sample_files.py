"""Which files a row of the sheet means, before anything is read, in Snakemake's own environment."""

from pathlib import Path

import pytest

from scdyn.errors import InputError
from scdyn.io.sample_files import (
    FILES,
    LAYERS,
    LibraryFiles,
    choose_promoter_source,
    find_libraries,
    find_matrix,
    list_input_files,
    locate,
    require_distinct,
)
from scdyn.order import natural_key

MTX = ["matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"]
H5 = "filtered_feature_bc_matrix.h5"


def plant(folder, *names):
    """Empty files; what is resolved is never opened."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def row(**columns):
    empty = dict.fromkeys([*FILES, *LAYERS], "")
    return {"sample": "s", "kind": "10x", **empty, **{k: str(v) for k, v in columns.items()}}


def files(folder, **columns):
    """Files that are read, from the folder on."""
    path = folder / columns.pop("path", "")
    found = list_input_files(row(path=path, **columns))
    return [name.removeprefix(f"{folder}/") for name in found]


LAYOUTS = {
    "arc": ([H5, "atac_fragments.tsv.gz", "per_barcode_metrics.csv"], "", None),
    "arc, the folder above outs": (
        [f"outs/{H5}", "outs/atac_fragments.tsv.gz", "outs/per_barcode_metrics.csv"], "", None,
    ),
    "mtx folder": ([f"filtered_feature_bc_matrix/{name}" for name in MTX], "", None),
    "mtx folder itself": ([f"m/{name}" for name in MTX], "m", None),
    "multi": (["sample_filtered_feature_bc_matrix.h5"], "", None),
    "multi, above count": (["count/sample_filtered_feature_bc_matrix.h5"], "", None),
    "multi, mtx": ([f"count/sample_filtered_feature_bc_matrix/{name}" for name in MTX], "", None),
    "aggr": ([f"outs/count/{H5}"], "outs", None),
    "a download's prefix": (
        ["pbmc_filtered_feature_bc_matrix.h5", "pbmc_atac_fragments.tsv.gz"],
        "pbmc_filtered_feature_bc_matrix.h5", None,
    ),
    "prefix of GEO": ([f"GSM1_{name}" for name in MTX], "", None),
    "prefix of GEO, named": ([f"GSM1_{name}" for name in MTX], "GSM1_matrix.mtx.gz", None),
    "version 2": (
        [f"filtered_gene_bc_matrices/mm10/{name.removesuffix('.gz')}" for name in MTX],
        "", None,
    ),
    "STARsolo": (
        [f"Solo.out/Gene/filtered/{n}" for n in ("matrix.mtx", "barcodes.tsv", "features.tsv")],
        "", None,
    ),
    "multi, of one sample": (
        ["outs/per_sample_outs/S/count/sample_filtered_feature_bc_matrix.h5"], "", None,
    ),
    "multi 9, of one sample, outs named": (
        ["outs/per_sample_outs/S/sample_filtered_feature_bc_matrix.h5"], "outs", None,
    ),
    "multi, per_sample_outs named": (
        [f"per_sample_outs/S/count/sample_filtered_feature_bc_matrix/{name}" for name in MTX],
        "per_sample_outs", None,
    ),
    "version 2, aggr": (
        [f"outs/filtered_gene_bc_matrices_mex/mm10/{n}" for n in MTX], "", None,
    ),
    "STARsolo, nuclei": (
        [
            f"Solo.out/GeneFull_Ex50pAS/filtered/{name}"
            for name in ("matrix.mtx", "barcodes.tsv", "features.tsv")
        ],
        "", None,
    ),
    "STARsolo, prefix": ([f"S1_Solo.out/Gene/filtered/{name}" for name in MTX], "", None),
    "STARsolo, prefix, named": (
        [f"S1_Solo.out/Gene/filtered/{name}" for name in MTX], "S1_Solo.out", None,
    ),
    "kallisto bustools": (
        ["cells_x_genes.mtx", "cells_x_genes.barcodes.txt", "cells_x_genes.genes.txt"], "", None,
    ),
    "kallisto bustools, nac": (
        [
            "cells_x_genes.mature.mtx", "cells_x_genes.ambiguous.mtx",
            "cells_x_genes.barcodes.txt", "cells_x_genes.genes.txt",
        ],
        "", ["cells_x_genes.nascent.mtx"],
    ),
    "kallisto bustools, lamanno": (
        ["spliced.mtx", "spliced.barcodes.txt", "spliced.genes.txt"],
        "", ["unspliced.mtx", "unspliced.barcodes.txt", "unspliced.genes.txt"],
    ),
    "alevin-fry": (
        [f"alevin/quants_mat{end}" for end in (".mtx", "_rows.txt", "_cols.txt")], "", None,
    ),
}  # fmt: skip


PACKED = ("", ".gz", ".bz2", ".xz", ".zst")


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("of_matrix", PACKED)
def test_fragments_are_found_beside_the_matrix_however_they_are_packed(of_matrix, packed, tmp_path):
    plant(tmp_path, f"outs/{H5}", f"outs/atac_fragments.tsv{packed}")
    assert files(tmp_path) == sorted([f"outs/{H5}", f"outs/atac_fragments.tsv{packed}"])
    lists = [f"geo/GSM1_{name}.tsv{of_matrix}" for name in ("barcodes", "features")]
    matrix, other = (f"geo/{gsm}_matrix.mtx{of_matrix}" for gsm in ("GSM1", "GSM2"))
    fragments = [f"geo/{gsm}_fragments.tsv{packed}" for gsm in ("GSM1", "GSM2")]
    plant(tmp_path, *lists, matrix, other, *fragments)
    assert files(tmp_path, path=matrix) == sorted([*lists, matrix, fragments[0]])
    # The fragments of their own library, not another's.
    (tmp_path / fragments[0]).unlink()
    assert files(tmp_path, path=matrix) == sorted([*lists, matrix])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_tools_files_are_found_and_no_others(layout, tmp_path):
    names, path, unspliced = LAYOUTS[layout]
    plant(tmp_path, *names, *(unspliced or []), "cloupe.cloupe", "._barcodes.tsv.gz", ".DS_Store")
    plant(tmp_path, "atac_fragments.tsv.gz.tbi", "raw_feature_bc_matrix.h5")
    assert files(tmp_path, path=path) == sorted(names)
    # Before another rule makes them, the answer is the same.
    planned = [str(tmp_path / "elsewhere" / name) for name in names]
    sheet_row = row(path=tmp_path / "elsewhere" / path)
    assert list_input_files(sheet_row, planned) == sorted(planned)


def test_spliced_and_unspliced_counts_are_read_if_the_sheet_names_them(tmp_path):
    names, _, unspliced = LAYOUTS["kallisto bustools, lamanno"]
    plant(tmp_path, *names, *unspliced)
    assert files(tmp_path, promoter_layer="unspliced") == sorted([*names, *unspliced])
    gene = [f"Solo.out/Gene/filtered/{n}" for n in ("matrix.mtx", "barcodes.tsv", "features.tsv")]
    velocyto = [
        f"Solo.out/Velocyto/filtered/{name}"
        for name in ("spliced.mtx", "unspliced.mtx", "barcodes.tsv", "features.tsv")
    ]
    plant(tmp_path / "star", *gene, *velocyto)
    for path in ("", "Solo.out", "Solo.out/Gene/filtered"):
        found = locate(
            LibraryFiles("10x", str(tmp_path / "star" / path), promoter_layer="unspliced")
        )
        assert found.unspliced.counts[0].endswith("Velocyto/filtered/unspliced.mtx")
        assert found.rna.counts[0].endswith("Velocyto/filtered/spliced.mtx")
    plant(tmp_path / "plain", H5)
    with pytest.raises(InputError, match="no matrix of the layer 'unspliced'"):
        locate(LibraryFiles("10x", str(tmp_path / "plain"), promoter_layer="unspliced"))


def test_what_the_sheet_names_beats_what_is_guessed(tmp_path):
    plant(tmp_path, H5, "atac_fragments.tsv.gz", "mine.tsv", "peaks.h5ad", "rna.h5ad")
    plant(tmp_path / "atac", "filtered_peak_bc_matrix.h5")
    mine, peaks = str(tmp_path / "mine.tsv"), str(tmp_path / "peaks.h5ad")
    assert files(tmp_path, fragments=mine) == [H5, "mine.tsv"]
    assert files(tmp_path, atac_path=peaks) == [H5, "peaks.h5ad"]
    assert files(tmp_path, atac_path=tmp_path / "atac")[0] == "atac/filtered_peak_bc_matrix.h5"
    assert files(tmp_path, atac_path="none") == [H5]
    plant(tmp_path / "atac", "fragments.tsv.gz")
    assert files(tmp_path, atac_path=tmp_path / "atac") == ["atac/fragments.tsv.gz", H5]
    rna = LibraryFiles("h5ad", str(tmp_path / "rna.h5ad"), sample="s")
    both = ["spliced", "unspliced"]
    assert choose_promoter_source(locate(rna), both, False) == ("promoter layer", "unspliced")
    assert choose_promoter_source(locate(rna), both, True) == ("peaks", None)
    assert choose_promoter_source(locate(rna), [*both, "promoter"], True) == (
        "promoter layer",
        "promoter",
    )
    named = LibraryFiles("h5ad", rna.path, atac_path=peaks)
    assert choose_promoter_source(locate(named), both, False) == ("peaks", None)
    layer = LibraryFiles("h5ad", rna.path, atac_path=peaks, promoter_layer="unspliced")
    assert choose_promoter_source(locate(layer), both, True) == ("promoter layer", "unspliced")
    assert locate(layer).files == [rna.path]
    with pytest.raises(InputError, match="no promoter accessibility found"):
        choose_promoter_source(locate(rna), ["counts"], False)


def test_what_is_not_there_is_not_listed_and_what_is_not_understood_is(tmp_path):
    strange = tmp_path / "counts.docx"
    strange.touch()
    fragments = str(tmp_path / "f.tsv.gz")
    assert list_input_files(row(path="nowhere", fragments=fragments)) == []
    Path(fragments).touch()
    assert list_input_files(row(path="nowhere", fragments=fragments)) == [fragments]
    assert (
        list_input_files(row(path=tmp_path / "x_*")) == list_input_files(row(path=tmp_path)) == []
    )
    assert list_input_files(row(path=strange, atac_path="none")) == [str(strange)]


@pytest.mark.parametrize("name", ["matrix.mtx.gz", "barcodes.tsv.gz", "atac_fragments.tsv.gz"])
def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path, name):
    plant(tmp_path, *MTX, "atac_fragments.tsv.gz")
    library = LibraryFiles("10x", str(tmp_path))
    locate(library)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/nowhere")
    with pytest.raises(InputError, match=f"{name}: broken link to /nowhere"):
        locate(library)
    assert str(tmp_path / name) in locate(library, [str(tmp_path / name)]).files


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("matrix.mtx", "contains both matrix.mtx.gz and matrix.mtx"),
        ("barcodes.tsv", "contains both barcodes.tsv.gz and barcodes.tsv"),
        ("genes.tsv.gz", "contains both features.tsv.gz and genes.tsv.gz"),
        ("fragments.tsv.gz", "contains both atac_fragments.tsv.gz and fragments.tsv.gz"),
    ],
)
def test_two_files_of_one_kind_are_refused_but_a_link_is_none(tmp_path, name, words):
    plant(tmp_path, *MTX, "atac_fragments.tsv.gz", "peaks.bed.gz")
    library = LibraryFiles("10x", str(tmp_path))
    found = locate(library).files
    assert str(tmp_path / "features.tsv.gz") in found
    plant(tmp_path, name)
    with pytest.raises(InputError, match=words):
        locate(library)
    (tmp_path / name).unlink()
    other = words.split()[2]
    (tmp_path / name).symlink_to(tmp_path / other)
    assert locate(library).files == found


def test_a_layer_plain_and_packed_is_refused(tmp_path):
    plant(tmp_path, "spliced.mtx", "spliced.mtx.gz", "spliced.barcodes.txt", "spliced.genes.txt")
    library = LibraryFiles("10x", str(tmp_path), atac_path="none", rna_layer="spliced")
    with pytest.raises(InputError, match=r"contains 2 matrices \(spliced.mtx, spliced.mtx.gz\)"):
        locate(library)


def test_several_libraries_of_one_sample_and_of_a_planned_study(tmp_path):
    plant(tmp_path, f"a/{H5}", f"b/{H5}")
    assert files(tmp_path, path="[ab]") == [f"a/{H5}", f"b/{H5}"]
    planned = ["results/lane_1/" + H5, "results/lane_2/" + H5, "results/other/" + H5]
    assert list_input_files(row(path="results/lane_*"), planned) == planned[:2]
    assert len(find_libraries(row(path="results/lane_?"), planned)) == 2


def test_samples_that_share_a_matrix_are_refused(tmp_path):
    plant(tmp_path, "a.h5", "b.h5")
    (tmp_path / "link.h5").symlink_to(tmp_path / "a.h5")
    a, b, link = (str(tmp_path / f"{name}.h5") for name in ("a", "b", "link"))
    require_distinct({"s": [a], "t": [b], "u": []})
    with pytest.raises(InputError, match="samples s and u have the same matrix"):
        require_distinct({"s": [a], "t": [b], "u": [link]})


def test_libraries_stand_in_one_order_whatever_their_names():
    names = {"lane10", "lane2", "lane02", "Lane2", "lane"}
    assert sorted(sorted(names), key=natural_key) == sorted(
        reversed(sorted(names)), key=natural_key
    )
    assert sorted(names, key=natural_key)[-1] == "lane10"


def test_the_vocabulary_of_a_panel_follows_from_the_rna_alone(tmp_path):
    plant(tmp_path, H5, "atac_fragments.tsv.gz")
    assert list_input_files(row(path=tmp_path), only_rna=True) == [str(tmp_path / H5)]


@pytest.mark.parametrize(
    ("names", "path", "words"),
    [
        (["x.loom"], "x.loom", r"loom is not supported; convert it to \.h5ad"),
        (["x.rds"], "x.rds", "R objects are not supported"),
        (["x.tar.gz"], "x.tar.gz", "is an archive; unpack it"),
        (["x.h5ad"], "x.h5ad", "set kind to h5ad in the sample sheet"),
        (["matrix.mtx", "barcodes.tsv"], "", "features.tsv or genes.tsv or peaks.bed is missing"),
        (["matrix.mtx", "genes.tsv"], "", "barcodes.tsv is missing"),
        (["a_" + H5, "b_" + H5], "", "contains 2 matrices .*name one of them as path"),
        (["outs/raw_feature_bc_matrix.h5"], "", "there is raw_feature_bc_matrix.h5: name it"),
        (["raw_feature_bc_matrix.h5"], "", "there is raw_feature_bc_matrix.h5: name it to use all"),
        (
            ["Solo.out/Gene/raw/matrix.mtx", "Solo.out/Gene/raw/barcodes.tsv"], "",
            "there is Solo.out/Gene/raw: name it to use all",
        ),
        (["outs/multi/count/raw_feature_bc_matrix.h5"], "", "no count matrix found"),
        (
            [f"outs/per_sample_outs/{name}/count/{H5}" for name in "AB"], "outs",
            r"itself \(per_sample_outs has A, B: name one\)",
        ),
        (
            [f"{name}_Solo.out/Gene/filtered/matrix.mtx" for name in "AB"], "",
            r"contains 2 matrices \(A_Solo.out, B_Solo.out\)",
        ),
        ([], "nowhere", "no such file or folder"),
    ],
)  # fmt: skip
def test_what_is_no_matrix_is_called_what_it_is(names, path, words, tmp_path):
    plant(tmp_path, *names)
    with pytest.raises(InputError, match=words):
        find_matrix(tmp_path / path if path else tmp_path)
