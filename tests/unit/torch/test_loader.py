"""The order of an epoch, dense batches, and a thread that reads ahead and always ends."""

import gc
import json
import threading
import time

import numpy as np
import pytest
import torch
import zarr
from scipy import sparse

from scdyn.data import loader, tokens

N_CELLS, N_GENES = 50, 31


@pytest.fixture
def dense():
    """RNA and promoter bins, (cells, genes) each."""
    rng = np.random.default_rng(0)
    shape = (2, N_CELLS, N_GENES)
    return (rng.integers(1, 15, shape) * (rng.random(shape) < 0.3)).astype(np.uint8)


@pytest.fixture
def store(tmp_path, dense):
    group = zarr.open_group(str(tmp_path / "tokens.zarr"), mode="w")
    names = np.array([str(i) for i in range(N_CELLS)], dtype=np.dtypes.StringDType())
    tokens.write_cell_arrays(group, names, np.ones(N_CELLS, dtype=np.uint8))
    for modality, bins in zip(tokens.MODALITIES, dense, strict=True):
        tokens.write_bins(group.create_group(modality), sparse.csr_matrix(bins), 14)
    meta = {"n_cells": N_CELLS, "n_genes": N_GENES}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    return tokens.TokenStore(tmp_path)


def no_thread_is_left():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize(("block", "buffer_blocks"), [(1, 1), (7, 3), (64, 4), (1000, 1)])
def test_an_epoch_visits_every_row_once(block, buffer_blocks):
    rows = np.random.default_rng(1).choice(5000, 333, replace=False)
    order = loader.block_shuffle(rows, block, buffer_blocks, 0)
    np.testing.assert_array_equal(np.sort(order), np.sort(rows))


def test_the_order_hangs_on_the_seed_alone():
    rows = np.arange(1000)
    order = loader.block_shuffle(rows, 16, 4, [3, 0])
    np.testing.assert_array_equal(order, loader.block_shuffle(rows[::-1], 16, 4, [3, 0]))
    assert (order != loader.block_shuffle(rows, 16, 4, [3, 1])).mean() > 0.9


def test_a_buffer_holds_whole_blocks_in_another_order():
    order = loader.block_shuffle(np.arange(1024), 16, 4, 0)
    for buffer in order.reshape(-1, 64):
        blocks, counts = np.unique(buffer // 16, return_counts=True)
        assert len(blocks) == 4
        assert set(counts) == {16}
        assert (np.diff(buffer) != 1).mean() > 0.8
    # Neither do the blocks of a buffer stand together, nor do the buffers follow one another.
    firsts = np.sort(order.reshape(-1, 64) // 16, axis=1)
    assert (firsts[:, -1] - firsts[:, 0] > 8).mean() > 0.8
    assert abs(np.corrcoef(np.arange(1024), order)[0, 1]) < 0.5


def test_an_epoch_of_nothing_is_empty_and_a_block_of_nothing_refused():
    assert len(loader.block_shuffle(np.array([], dtype=int), 4, 4, 0)) == 0
    with pytest.raises(ValueError, match="block"):
        loader.block_shuffle(np.arange(4), 0, 4, 0)


def test_dense_tensors_are_the_cells_in_the_order_asked_for(store, dense):
    rows = np.array([49, 3, 3, 0, 17])
    for tensor, bins in zip(loader.densify(store, rows), dense, strict=True):
        assert tensor.dtype == torch.uint8
        np.testing.assert_array_equal(tensor.numpy(), bins[rows])


def test_promoters_that_were_not_measured_are_told_from_closed_ones(dense):
    measured = np.arange(N_CELLS) % 3 > 0
    memory = loader.MemoryStore(*(sparse.csr_matrix(bins) for bins in dense), measured)
    rows = np.array([3, 1, 0, 2])
    rna, promoter = loader.densify(memory, rows)
    np.testing.assert_array_equal(rna, dense[0][rows])
    assert (promoter[[0, 2]] == tokens.NOT_MEASURED).all()
    np.testing.assert_array_equal(promoter[[1, 3]], dense[1][rows][[1, 3]])


def test_batches_come_in_order_and_whole(store, dense):
    order = np.random.default_rng(2).permutation(N_CELLS)
    rows = loader.split_batches(order, 8)
    assert [len(batch) for batch in rows] == [8] * 6 + [2]
    batches = loader.Loader(store, rows)
    assert len(batches) == 7
    # Held until the end: a batch is not written over by a later one.
    for expected, (rna, promoter) in zip(rows, list(batches), strict=True):
        np.testing.assert_array_equal(rna, dense[0][expected])
        np.testing.assert_array_equal(promoter, dense[1][expected])
    assert no_thread_is_left()


def test_bins_in_memory_are_read_like_those_of_a_store(store, dense):
    memory = loader.MemoryStore(*(sparse.csr_matrix(bins) for bins in dense))
    rows = loader.split_batches(np.random.default_rng(2).permutation(N_CELLS), 8)
    for one, other in zip(loader.Loader(memory, rows), loader.Loader(store, rows), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_nothing_read_ahead_is_refused(store):
    with pytest.raises(ValueError, match="at least"):
        loader.Loader(store, [np.arange(8)], depth=0)


def test_no_thread_is_left_after_a_break(store):
    for _ in loader.Loader(store, loader.split_batches(np.arange(N_CELLS), 2)):
        assert not no_thread_is_left()
        break
    gc.collect()
    assert no_thread_is_left()


def test_no_thread_is_left_after_an_exception(store):
    def consume():
        for _ in loader.Loader(store, loader.split_batches(np.arange(N_CELLS), 2)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        consume()
    # Although the exception still holds the frame of the loop.
    assert error.traceback[-1].name == "consume"
    assert no_thread_is_left()


def test_what_the_thread_raises_is_raised_in_the_loop(store):
    order = np.arange(N_CELLS)
    order[20] = N_CELLS
    seen = []
    with pytest.raises(IndexError):
        for rna, _ in loader.Loader(store, loader.split_batches(order, 8)):
            seen.append(rna)
    assert len(seen) == 2
    assert no_thread_is_left()


def test_reading_is_ahead_of_use_but_not_far(store, monkeypatch):
    read = []
    densify = loader.densify

    def counted(store, rows, pin):
        assert threading.current_thread() is not threading.main_thread()
        read.append(rows)
        return densify(store, rows, pin)

    monkeypatch.setattr(loader, "densify", counted)
    for i, _ in enumerate(loader.Loader(store, loader.split_batches(np.arange(N_CELLS), 2))):
        ahead = min(25, i + 4)
        deadline = time.monotonic() + 10
        while len(read) < ahead and time.monotonic() < deadline:
            time.sleep(0.001)
        # Time enough for a thread that does not stop there.
        time.sleep(0.01)
        assert len(read) == ahead


def test_waiting_is_counted_and_reading_ahead_is_not(store, monkeypatch):
    densify, read, clock = loader.densify, [], [0.0]

    def slow(store, rows, pin):
        clock[0] += 1.0  # time goes by while the thread reads, and never else
        read.append(rows)
        return densify(store, rows, pin)

    monkeypatch.setattr(loader, "densify", slow)
    monkeypatch.setattr(loader.time, "monotonic", lambda: clock[0])
    batches = loader.Loader(store, loader.split_batches(np.arange(20), 2), depth=10)
    for i, _ in enumerate(batches):
        if i == 0:
            first = batches.waited_seconds
            while len(read) < 10:
                time.sleep(0.001)
    assert batches.waited_seconds == first


def test_all_of_the_waiting_is_counted(store, monkeypatch):
    """Each batch takes a second to read, all of it while the loop waits for that batch."""
    densify, waits, clock = loader.densify, threading.Semaphore(0), [0.0]

    def slow(store, rows, pin):
        waits.acquire()  # until the loop looks at the clock to wait for this batch
        clock[0] += 1.0
        return densify(store, rows, pin)

    looks = []

    def monotonic():
        looks.append(clock[0])
        if len(looks) % 2:
            waits.release()
        return looks[-1]

    monkeypatch.setattr(loader, "densify", slow)
    monkeypatch.setattr(loader.time, "monotonic", monotonic)
    batches = loader.Loader(store, loader.split_batches(np.arange(20), 2))
    assert [batches.waited_seconds for _ in batches] == list(range(1, 11))


def test_the_first_batch_is_waited_for(store, monkeypatch):
    densify = loader.densify
    slow = lambda *arguments: (time.sleep(0.05), densify(*arguments))[1]  # noqa: E731
    monkeypatch.setattr(loader, "densify", slow)
    batches = loader.Loader(store, loader.split_batches(np.arange(2), 2))
    assert len(list(batches)) == 1
    assert batches.waited_seconds > 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="pinned memory needs CUDA")
def test_pinned_batches_are_pinned_and_the_same(store):
    rows = loader.split_batches(np.arange(N_CELLS), 8)
    plain, pinned = loader.Loader(store, rows), loader.Loader(store, rows, "cuda")
    for tensors, others in zip(plain, pinned, strict=True):
        for tensor, other in zip(tensors, others, strict=True):
            assert other.is_pinned()
            assert torch.equal(tensor, other)


def test_batches_that_do_not_fit_are_halved_and_nothing_is_read_twice(store, dense, caplog):
    def double(rna, promoter):
        if len(rna) > 7:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return rna.numpy() * 2

    rows = np.arange(N_CELLS)[::-1]
    found = list(loader.run_batches(double, store, rows, torch.device("cpu"), 32))
    assert [len(part) for part in found] == [4] * 12 + [2]
    np.testing.assert_array_equal(np.concatenate(found), 2 * dense[0][rows])
    assert "out of memory with 8 cells at once; retrying with 4" in caplog.text
    assert no_thread_is_left()


def test_bins_that_were_dense_are_the_same_in_a_store(dense):
    rna, promoter = (torch.from_numpy(part) for part in dense)
    promoter[3] = tokens.NOT_MEASURED
    held = loader.MemoryStore.from_bins(rna, promoter)
    for one, other in zip((rna, promoter), loader.densify(held, np.arange(N_CELLS)), strict=True):
        assert torch.equal(one, other)
