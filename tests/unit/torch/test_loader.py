"""The order of an epoch, dense batches, and a thread that reads ahead and always ends."""

import gc
import threading
import time

import numpy as np
import pytest
import torch
from scipy import sparse
from small_corpus import make_genes, make_sample, write_corpus

from scdyn.data import loader, tokens

N_CELLS, N_GENES = 50, 31


@pytest.fixture
def store(tmp_path):
    """Cells of two samples, of which the second has no promoters."""
    genes = make_genes(N_GENES)
    samples = [make_sample("a", 30, genes), make_sample("b", 20, genes, measured=False)]
    return write_corpus(tmp_path / "corpus", samples).store


@pytest.fixture
def dense(store):
    """RNA and promoter counts, (cells, genes) each, as the samples have them."""
    cells = store.corpus.to_memory()
    rna, promoter = (
        part.toarray().astype(np.int16) for part in (cells.X, cells.layers["promoter"])
    )
    promoter[30:] = loader.NOT_MEASURED
    return rna, promoter


def no_thread_is_left():
    ours = ("loader", "reader")
    return not [thread for thread in threading.enumerate() if thread.name.startswith(ours)]


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
        assert tensor.dtype == torch.int16
        np.testing.assert_array_equal(tensor.numpy(), bins[rows])


def test_promoters_that_were_not_measured_are_told_from_closed_ones(dense):
    measured = np.arange(N_CELLS) % 3 > 0
    counts = (sparse.csr_matrix(np.maximum(part, 0)) for part in dense)
    memory = loader.MemoryStore(*counts, measured)
    rows = np.array([3, 1, 0, 2])
    rna, promoter = loader.densify(memory, rows)
    np.testing.assert_array_equal(rna, dense[0][rows])
    assert (promoter[[0, 2]] == loader.NOT_MEASURED).all()
    np.testing.assert_array_equal(promoter[[1, 3]], np.maximum(dense[1][rows], 0)[[1, 3]])


def test_counts_of_every_type_are_read_up_to_the_largest(tmp_path):
    genes = make_genes(N_GENES)
    samples = []
    for i, largest in enumerate((3, 300, 70_000)):
        sample = make_sample(f"s{i}", 10, genes)
        sample.X.data[-1] = largest
        samples.append(sample)
    store = write_corpus(tmp_path / "corpus", samples).store
    rna, _ = loader.densify(store, np.arange(30))
    expected = np.minimum(store.corpus.to_memory().X.toarray(), loader.LARGEST)
    np.testing.assert_array_equal(rna, expected)
    assert rna.max() == loader.LARGEST
    assert {counts.counts["rna"].data.dtype.name for counts in store.corpus.shards} == {
        "uint16", "uint32",
    }  # fmt: skip


def test_batches_come_in_order_and_whole(store, dense):
    order = np.random.default_rng(2).permutation(N_CELLS)
    rows = loader.cut_rows(order, 8)
    assert [len(batch) for batch in rows] == [8] * 6 + [2]
    batches = loader.Loader(store, rows)
    assert len(batches) == 7
    # Held until the end: a batch is not written over by a later one.
    for expected, (rna, promoter) in zip(rows, list(batches), strict=True):
        np.testing.assert_array_equal(rna, dense[0][expected])
        np.testing.assert_array_equal(promoter, dense[1][expected])
    assert no_thread_is_left()


def test_memory_is_used_again_by_the_next_epoch_but_not_shared_by_loaders(store, dense):
    batches = [np.arange(0, 50, 2), np.arange(1, 50, 2)]
    one, other = (iter(loader.Loader(store, order)) for order in (batches, batches[::-1]))
    for rows, others in zip(batches, batches[::-1], strict=True):
        np.testing.assert_array_equal(next(one)[0].numpy(), dense[0][rows])
        np.testing.assert_array_equal(next(other)[0].numpy(), dense[0][others])
    assert not [*one, *other]
    kept = set(map(id, store.buffers))
    list(loader.Loader(store, batches))
    assert set(map(id, store.buffers)) == kept


def test_counts_in_memory_are_read_like_those_of_a_store(store, dense):
    memory = loader.MemoryStore.from_dense(*(torch.from_numpy(bins) for bins in dense))
    rows = loader.cut_rows(np.random.default_rng(2).permutation(N_CELLS), 8)
    for one, other in zip(loader.Loader(memory, rows), loader.Loader(store, rows), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_nothing_read_ahead_is_refused(store):
    with pytest.raises(ValueError, match="at least"):
        loader.Loader(store, [np.arange(8)], depth=0)


def test_no_thread_is_left_after_a_break(store):
    for _ in loader.Loader(store, loader.cut_rows(np.arange(N_CELLS), 2)):
        assert not no_thread_is_left()
        break
    gc.collect()
    assert no_thread_is_left()


def test_no_thread_is_left_after_an_exception(store):
    def consume():
        for _ in loader.Loader(store, loader.cut_rows(np.arange(N_CELLS), 2)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        consume()
    # Although the exception still holds the frame of the loop.
    assert error.traceback[-1].name == "consume"
    assert no_thread_is_left()


def test_what_the_thread_raises_is_raised_in_the_loop(store, monkeypatch):
    monkeypatch.setattr(loader, "CELLS_PER_READ", 16)
    order = np.arange(N_CELLS)
    order[40] = N_CELLS
    seen = []
    with pytest.raises(IndexError):
        for rna, _ in loader.Loader(store, loader.cut_rows(order, 8)):
            seen.append(rna)
    assert len(seen) == 4
    assert no_thread_is_left()


def test_cells_are_read_in_groups_and_never_one_by_one(store, dense, monkeypatch):
    """Two groups are read for seven batches, each in the order of the disk."""
    read, read_cells = [], store.read_cells

    def noted(rows, buffers):
        assert threading.current_thread().name.startswith("reader")
        read.append(rows)
        return read_cells(rows, buffers)

    monkeypatch.setattr(store, "read_cells", noted)
    monkeypatch.setattr(loader, "CELLS_PER_READ", 30)
    order = np.random.default_rng(2).permutation(N_CELLS)
    batches = loader.cut_rows(order, 8)
    for rows, bins in zip(batches, loader.Loader(store, batches), strict=True):
        np.testing.assert_array_equal(bins[0], dense[0][rows])
    assert [len(rows) for rows in read] == [32, 18]
    assert all((np.diff(rows) > 0).all() for rows in read)


def test_batches_are_prepared_ahead_of_use_but_not_far(store, monkeypatch):
    prepared, take = [], tokens.SparseCells.take

    def counted(cells, rows):
        assert threading.current_thread() is not threading.main_thread()
        prepared.append(rows)
        return take(cells, rows)

    monkeypatch.setattr(tokens.SparseCells, "take", counted)
    for i, _ in enumerate(loader.Loader(store, loader.cut_rows(np.arange(N_CELLS), 2))):
        ahead = min(25, i + 4)
        deadline = time.monotonic() + 10
        while len(prepared) < ahead and time.monotonic() < deadline:
            time.sleep(0.001)
        # Time enough for a thread that does not stop there.
        time.sleep(0.01)
        assert len(prepared) == ahead


def slow_down(monkeypatch, wait):
    """Call a function before each batch is prepared."""
    take = tokens.SparseCells.take

    def slow(cells, rows):
        wait()
        return take(cells, rows)

    monkeypatch.setattr(tokens.SparseCells, "take", slow)


def test_waiting_is_counted_and_preparing_ahead_is_not(store, monkeypatch):
    prepared, clock = [], [0.0]

    def wait():
        clock[0] += 1.0  # time goes by while the thread works, and never else
        prepared.append(None)

    slow_down(monkeypatch, wait)
    monkeypatch.setattr(loader.time, "monotonic", lambda: clock[0])
    batches = loader.Loader(store, loader.cut_rows(np.arange(20), 2), depth=10)
    for i, _ in enumerate(batches):
        if i == 0:
            first = batches.waited_seconds
            while len(prepared) < 10:
                time.sleep(0.001)
    assert batches.waited_seconds == first


def test_the_first_batch_is_waited_for(store, monkeypatch):
    slow_down(monkeypatch, lambda: time.sleep(0.05))
    batches = loader.Loader(store, loader.cut_rows(np.arange(2), 2))
    assert len(list(batches)) == 1
    assert batches.waited_seconds > 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_counts_of_a_gpu_are_those_of_the_cpu(store):
    rows = loader.cut_rows(np.arange(N_CELLS), 8)
    plain, moved = loader.Loader(store, rows), loader.Loader(store, rows, "cuda")
    for tensors, others in zip(plain, moved, strict=True):
        for tensor, other in zip(tensors, others, strict=True):
            assert other.is_cuda
            assert torch.equal(tensor, other.cpu())


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


def test_counts_that_were_dense_are_the_same_in_a_store(dense):
    rna, promoter = (torch.from_numpy(part) for part in dense)
    promoter[3] = loader.NOT_MEASURED
    held = loader.MemoryStore.from_dense(rna, promoter)
    for one, other in zip((rna, promoter), loader.densify(held, np.arange(N_CELLS)), strict=True):
        assert torch.equal(one, other)
