"""A sample's counts on disk: read as they were written, by any client, and refused if damaged."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse
from small_corpus import make_genes, make_sample

from scdyn.errors import InputError
from scdyn.io import shards
from scdyn.io.files import sha256

MATRICES = {"rna": lambda cells: cells.X, "promoter": lambda cells: cells.layers["promoter"]}


def read(path, rows, modality):
    shard = shards.Shard(path)
    cells = shards.read_rows([shard], np.zeros(len(rows), int), np.asarray(rows), modality)
    return cells.to_csr(shard.shape[1])


@pytest.fixture(params=[(shards.CHUNK, shards.PER_FILE), (5, 20)])
def written(request, tmp_path, monkeypatch):
    """A sample in one file per array, and in several of several chunks."""
    chunk, per_file = request.param
    monkeypatch.setattr(shards, "CHUNK", chunk)
    monkeypatch.setattr(shards, "PER_FILE", per_file)
    monkeypatch.setattr(shards, "CELLS_AT_ONCE", 7)
    cells = make_sample()
    shards.write_shard(tmp_path / "s1.zarr", cells)
    return tmp_path / "s1.zarr", cells


@pytest.mark.parametrize(
    "rows",
    [
        range(40),
        [3, 4, 5, 20],
        [39, 0, 12, 11, 12, 12, 8, 7],
        [],
        [0],
        np.random.default_rng(0).permutation(40),
    ],
)
@pytest.mark.parametrize(("gap", "per_read"), [(shards.GAP, shards.PER_READ), (0, 30), (3, 12)])
def test_rows_are_those_of_the_matrix(written, monkeypatch, rows, gap, per_read):
    monkeypatch.setattr(shards, "GAP", gap)
    monkeypatch.setattr(shards, "PER_READ", per_read)
    path, cells = written
    rows = np.asarray(list(rows), dtype=int)
    for modality, get in MATRICES.items():
        np.testing.assert_array_equal(
            read(path, rows, modality).toarray(), get(cells)[rows].toarray()
        )


def test_rows_are_copied_from_cells_in_memory_like_from_disk(written):
    path, cells = written
    everything = shards.read_rows([shards.Shard(path)], np.zeros(40, int), np.arange(40), "rna")
    rows = np.array([39, 1, 1, 20])
    np.testing.assert_array_equal(
        everything.take(rows).to_csr(cells.n_vars).toarray(), cells.X[rows].toarray()
    )


def test_memory_that_is_used_again_holds_the_last_cells(written):
    path, cells = written
    shard, buffers = shards.Shard(path), shards.Buffers()
    for rows in (np.arange(30), np.arange(35, 40), np.arange(40)):
        which = np.zeros(len(rows), int)
        found = shards.read_rows([shard], which, rows, "rna", buffers).to_csr(cells.n_vars)
        np.testing.assert_array_equal(found.toarray(), cells.X[rows].toarray())


def test_anndata_reads_the_sample(written):
    path, cells = written
    found = ad.read_zarr(path)
    np.testing.assert_array_equal(found.X.toarray(), cells.X.toarray())
    np.testing.assert_array_equal(
        found.layers["promoter"].toarray(), cells.layers["promoter"].toarray()
    )
    assert list(found.obs_names) == list(cells.obs_names)
    assert found.obs["barcode"].tolist() == cells.obs["barcode"].tolist()
    assert found.var["symbol"].tolist() == cells.var["symbol"].tolist()


def test_any_zarr_client_reads_a_few_numbers(written):
    path, cells = written
    expected = cells.X.copy()
    expected.sort_indices()
    group = zarr.open_group(str(path), mode="r")["X"]
    np.testing.assert_array_equal(group["data"][11:33], expected.data[11:33])
    np.testing.assert_array_equal(group["indices"][:], expected.indices)


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, "uint8"), (256, "uint16"), (65_535, "uint16"), (65_536, "uint32")]
)
def test_counts_have_the_smallest_type_that_holds_them(tmp_path, largest, dtype):
    cells = make_sample()
    cells.X = sparse.csr_matrix(np.eye(*cells.shape, dtype=np.int64) * largest)
    shards.write_shard(tmp_path / "s.zarr", cells)
    assert zarr.open_group(str(tmp_path / "s.zarr"))["X/data"].dtype == dtype
    assert read(tmp_path / "s.zarr", [3], "rna").max() == largest


@pytest.mark.parametrize(("n_genes", "dtype"), [(65_535, "uint16"), (65_536, "uint32")])
def test_indices_are_as_small_as_the_vocabulary_lets_them(tmp_path, n_genes, dtype):
    values = sparse.csr_matrix(([1, 2], ([0, 1], [0, n_genes - 1])), shape=(2, n_genes))
    var = pd.DataFrame({"is_tf": False}, index=[str(i) for i in range(n_genes)])
    cells = ad.AnnData(values, obs=pd.DataFrame(index=["a", "b"]), var=var)
    cells.layers["promoter"] = values
    shards.write_shard(tmp_path / "s.zarr", cells)
    assert zarr.open_group(str(tmp_path / "s.zarr"))["X/indices"].dtype == dtype
    assert (read(tmp_path / "s.zarr", [0, 1], "rna") != values).nnz == 0


def test_stored_zeros_are_left_out_and_genes_sorted(tmp_path):
    cells = make_sample(n_cells=2)
    cells.X = sparse.csr_matrix(
        (np.array([4, 0, 2]), np.array([9, 3, 1]), np.array([0, 3, 3])), shape=cells.shape
    )
    shards.write_shard(tmp_path / "s.zarr", cells)
    found = read(tmp_path / "s.zarr", [0, 1], "rna")
    assert found.indices.tolist() == [1, 9] and found.data.tolist() == [2, 4]


def test_several_entries_of_one_gene_are_summed(tmp_path):
    cells = make_sample(n_cells=2)
    entries = np.array([200, 100, 2]), np.array([9, 9, 1]), np.array([0, 3, 3])
    cells.X = sparse.csr_matrix(entries, shape=cells.shape)
    shards.write_shard(tmp_path / "s.zarr", cells)
    found = read(tmp_path / "s.zarr", [0, 1], "rna")
    assert found.indices.tolist() == [1, 9] and found.data.tolist() == [2, 300]
    assert cells.X.nnz == 3


@pytest.mark.parametrize("column", ["var/length", "var/symbol", "obs/sample"])
def test_a_lost_chunk_is_not_read_as_zeros(tmp_path, column):
    shards.write_shard(tmp_path / "s.zarr", make_sample())
    name = column.split("/")[0]
    shards.Shard(tmp_path / "s.zarr").read_table(name)
    for chunk in (tmp_path / "s.zarr" / column).rglob("c/0"):
        chunk.unlink()
    with pytest.raises(InputError, match=r"s\.zarr: the counts cannot be read.*chunks are missing"):
        shards.Shard(tmp_path / "s.zarr").read_table(name)


def test_a_sample_without_counts(tmp_path):
    cells = make_sample()
    cells.X = sparse.csr_matrix(cells.shape, dtype=np.int32)
    shards.write_shard(tmp_path / "s.zarr", cells)
    assert read(tmp_path / "s.zarr", [3, 1], "rna").nnz == 0


def test_the_id_is_of_names_and_counts(tmp_path, monkeypatch):
    def write(cells):
        shards.write_shard(tmp_path / "s.zarr", cells)
        return shards.Shard(tmp_path / "s.zarr").id

    first, cells = write(make_sample()), make_sample()
    monkeypatch.setattr(shards, "CELLS_AT_ONCE", 3)
    assert write(make_sample()) == first
    cells.X.data[5] += 1
    assert write(cells) != first
    cells = make_sample()
    cells.obs_names = [f"x{name}" for name in cells.obs_names]
    assert write(cells) != first


def test_the_same_sample_is_the_same_bytes(tmp_path):
    for name in ("x", "y"):
        shards.write_shard(tmp_path / name / "s.zarr", make_sample())
    assert sha256(tmp_path / "x" / "s.zarr") == sha256(tmp_path / "y" / "s.zarr")


def test_vocabulary_hash_tells_order_and_tfs():
    genes = make_genes()
    same = shards.hash_vocabulary(genes.copy())
    assert shards.hash_vocabulary(genes) == same
    assert shards.hash_vocabulary(genes[::-1]) != same
    assert shards.hash_vocabulary(genes.assign(is_tf=False)) != same


def file_of(store, array, i=0):
    return store / array / "c" / str(i)


def cut_short(store):
    os.truncate(file_of(store, "X/data"), 2)


def cut_one_byte(store):
    path = file_of(store, "layers/promoter/indices")
    os.truncate(path, path.stat().st_size - 1)


def lose_a_file(store):
    file_of(store, "layers/promoter/indices").unlink()


def lose_the_pointers(store):
    shutil.rmtree(store / "X" / "indptr" / "c")


def garble_the_layout(store):
    (store / "X" / "indptr" / "zarr.json").write_text("{")


def garble_the_index(store):
    path = file_of(store, "X/data")
    content = bytearray(path.read_bytes())
    content[-20:-4] = b"\1" * 16
    path.write_bytes(content)


def disagree(store):
    pointers = np.fromfile(file_of(store, "X/indptr"), "<i8")
    (pointers + 1).tofile(file_of(store, "X/indptr"))


def begin_late(store):
    pointers = np.fromfile(file_of(store, "X/indptr"), "<i8")
    np.append(1, pointers[1:]).tofile(file_of(store, "X/indptr"))


def go_back(store):
    pointers = np.fromfile(file_of(store, "X/indptr"), "<i8")
    pointers[[3, 4]] = pointers[[4, 3]]
    pointers.tofile(file_of(store, "X/indptr"))


def flip_a_byte(store):
    with file_of(store, "X/indices").open("r+b") as file:
        file.write(b"\x17")


def compress(store):
    group = zarr.open_group(str(store), mode="r+")
    group["X"].create_array("data", data=group["X"]["data"][:], overwrite=True)


def change_the_type(store):
    group = zarr.open_group(str(store), mode="r+")
    values = group["X"]["data"][:].astype(float)
    group["X"].create_array("data", data=values, compressors=None, overwrite=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut_short, "data/c/0: has 2 bytes, not"),
        (cut_one_byte, "indices/c/0: has"),
        (lose_a_file, "promoter/indices"),
        (lose_the_pointers, "indptr"),
        (garble_the_layout, "line 1"),
        (garble_the_index, "not in order"),
        (disagree, "different lengths"),
        (begin_late, "X: the bounds of its cells are not in order"),
        (go_back, "X: the bounds of its cells are not in order"),
        (flip_a_byte, "X: names gene 23 of 23"),
        (compress, "data is compressed"),
        (change_the_type, "other types"),
    ],
)
def test_a_damaged_sample_is_refused_in_one_sentence(tmp_path, damage, reason):
    path = tmp_path / "s1.zarr"
    shards.write_shard(path, make_sample())
    damage(path)
    with pytest.raises(InputError, match=reason) as error:
        read(path, [0, 1], "rna"), read(path, [0, 1], "promoter")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("run the workflow again. [SCD-CORPUS]")


@pytest.mark.parametrize("rows", [[0, 1], [2, 1], [1, 30]])
@pytest.mark.parametrize("per_read", [shards.PER_READ, 3])
def test_a_gene_that_does_not_exist_is_refused_in_any_order(tmp_path, monkeypatch, rows, per_read):
    """Those that are read into place, and those that are copied."""
    monkeypatch.setattr(shards, "PER_READ", per_read)
    shards.write_shard(tmp_path / "s1.zarr", make_sample())
    flip_a_byte(tmp_path / "s1.zarr")
    with pytest.raises(InputError, match=r"s1\.zarr: .*names gene 23 of 23"):
        read(tmp_path / "s1.zarr", rows, "rna")
    read(tmp_path / "s1.zarr", rows, "promoter")


def test_files_are_closed_also_if_they_are_damaged(written):
    path, _ = written
    before = len(os.listdir("/dev/fd"))
    read(path, [0, 39], "rna")
    flip_a_byte(path)
    with pytest.raises(InputError):
        read(path, [0, 1], "rna")
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("content", ["{}", "{", '{"attributes": {"scdyn": {"format": 2}}}'])
def test_a_folder_that_is_no_sample_is_refused(tmp_path, content):
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "zarr.json").write_text(content)
    with pytest.raises(InputError, match=r"s\.zarr"):
        shards.Shard(tmp_path / "s.zarr")
    with pytest.raises(InputError, match=r"t\.zarr: is missing"):
        shards.Shard(tmp_path / "t.zarr")


def test_more_numbers_than_32_bits_count(tmp_path):
    """Pointers beyond 2^31, to files of which only the last numbers exist."""
    path = tmp_path / "s.zarr"
    shards.write_shard(path, make_sample(n_cells=9)[1:4])
    n_before = 2**31 + 5
    per_file = 2**28
    for name in ("data", "indices"):
        folder = path / "X" / name
        layout = json.loads((folder / "zarr.json").read_text())
        layout["shape"] = [n_before + 4]
        layout["data_type"] = "uint8"
        layout["chunk_grid"]["configuration"]["chunk_shape"] = [per_file]
        layout["codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}]
        (folder / "zarr.json").write_text(json.dumps(layout))
        (folder / "c" / "0").unlink()
        for i in range(9):
            with (folder / "c" / str(i)).open("wb") as file:  # a hole takes no room on the disk
                file.truncate(per_file)
                if i == 8:
                    file.seek(5)
                    file.write(bytes([1, 2, 3, 4]))
    np.array([0, n_before, n_before, n_before + 4]).tofile(path / "X" / "indptr" / "c" / "0")
    found = read(path, [2, 1], "rna")
    assert found.indptr.tolist() == [0, 4, 4]
    assert found.indices.tolist() == [1, 2, 3, 4] == found.data.tolist()


def test_pointers_of_many_cells_are_summed_in_64_bits():
    """The lengths of the rows of one read add up to more than 32 bits count."""
    lengths = np.full(3, 2**30, dtype=np.int32)

    class Opened:
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        data = indices = np.empty(0, np.uint8)

    class Many:
        counts = {"rna": Opened}

        def copy_rows(self, modality, rows, targets, data, indices):
            assert targets.tolist() == [0, 2**30, 2**31]

    class Endless(shards.Buffers):
        def take(self, name, length, dtype):
            assert length == 3 * 2**30
            return np.empty(0, dtype)

    cells = shards.read_rows([Many()], np.zeros(3, int), np.arange(3), "rna", Endless())
    assert cells.indptr[-1] == 3 * 2**30


def test_bounds_beyond_32_bits_are_written(tmp_path, monkeypatch):
    """Blocks of cells, each of more counts than fit into memory."""
    monkeypatch.setattr(shards, "CELLS_AT_ONCE", 1)

    class Many:
        shape, data = (3, 9), np.zeros(0, np.uint8)

        def __getitem__(self, rows):
            part = sparse.csr_matrix((1, 9), dtype=np.uint8)
            part.indptr = np.array([0, 2**30], dtype=np.int32)
            part.eliminate_zeros = part.sort_indices = lambda: None
            return part

    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="w")
    shards.write_counts(group, Many(), hashlib.sha256())
    assert group["indptr"][:].tolist() == [0, 2**30, 2**31, 3 * 2**30]


def test_cells_behind_more_numbers_than_32_bits_count_are_copied(tmp_path):
    """The numbers of the first cell are a hole in a file, which takes no room."""
    n_before = 2**31 + 5
    numbers = np.memmap(tmp_path / "numbers", np.uint8, "w+", shape=n_before + 4)
    numbers[n_before:] = [1, 2, 3, 4]
    cells = shards.Cells(numbers, numbers, np.array([0, n_before, n_before + 1, n_before + 4]))
    taken = cells.take(np.array([2, 1]))
    assert taken.indices.tolist() == [2, 3, 4, 1] and taken.indptr.tolist() == [0, 3, 4]


KILLED = """
import os, signal, sys
import zarr
from small_corpus import make_sample
from scdyn.io import shards
shards.CHUNK, shards.PER_FILE, shards.CELLS_AT_ONCE = 5, 20, 7
left, write = int(sys.argv[2]), zarr.Array.__setitem__
def die_late(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(*arguments)
zarr.Array.__setitem__ = die_late
shards.write_shard(sys.argv[1], make_sample())
"""


@pytest.mark.parametrize("n_writes", [0, 1, 3, 8])
def test_a_kill_in_the_middle_leaves_nothing_half_written(tmp_path, n_writes):
    path = tmp_path / "s1.zarr"
    here, library = Path(__file__).parents[1], Path(shards.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{library}:{here}"}
    command = [sys.executable, "-c", KILLED, str(path), str(n_writes)]
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert not path.exists()
    shards.write_shard(path, make_sample())
    assert [file.name for file in tmp_path.iterdir()] == ["s1.zarr"]  # no leftovers


READ_ALL = """
import sys
import numpy as np
from scdyn.io import shards
def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
before, shard = memory("VmRSS"), shards.Shard(sys.argv[1])
shard.counts
opened = memory("VmHWM") - before
for start in range(0, 500_000, 1000):
    rows = np.arange(start, start + 1000)
    cells = shards.read_rows([shard], np.zeros(1000, int), rows, "rna")
    assert cells.indptr[-1] == 200_000
print(opened, memory("VmHWM") - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads Linux's accounts")
def test_a_big_sample_is_opened_and_read_in_little_memory(tmp_path):
    n_cells, n_genes, per_cell = 500_000, 22_000, 200
    path = tmp_path / "s.zarr"
    genes = make_genes(n_genes)
    shards.write_shard(path, make_sample(n_cells=8, genes=genes))
    group = zarr.open_group(str(path), mode="r+")
    group.attrs["scdyn"] = group.attrs["scdyn"] | {"n_cells": n_cells}
    for place in shards.PLACES.values():
        for name, dtype, length in (
            ("data", "uint8", n_cells * per_cell),
            ("indices", "uint16", n_cells * per_cell),
            ("indptr", "int64", n_cells + 1),
        ):
            group[place].create_array(
                name, shape=(length,), chunks=(length,), dtype=dtype, compressors=None,
                overwrite=True,
            )  # fmt: skip
            file = file_of(path, f"{place}/{name}")
            file.parent.mkdir(exist_ok=True)
            with file.open("wb") as handle:  # a hole: zeros that take no room on the disk
                handle.truncate(length * np.dtype(dtype).itemsize)
        np.arange(0, n_cells * per_cell + 1, per_cell).tofile(file)
    printed = subprocess.run(
        [sys.executable, "-c", READ_ALL, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(shards.__file__).parents[2])},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    opened, read_all = (float(megabytes) for megabytes in printed.split())
    # The files are 600 MB, of which only the pointers (8 MB) are kept.
    assert opened < 40
    assert read_all < 100
