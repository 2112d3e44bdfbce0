"""Enriched motifs of a TF's modules, and the targets that each of them supports."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather
from scipy import sparse

from scdyn.errors import InputError
from scdyn.grn import motifs
from scdyn.grn.edges import Edges
from scdyn.grn.expression import Expression

N_GENES, N_MOTIFS = 400, 60
GENES = [f"g{i}" for i in range(N_GENES)]
TARGETS = GENES[1:21]
SETTINGS = {
    "rank_threshold": 100, "auc_threshold": 0.05, "nes_threshold": 3.0, "min_genes": 10,
    "mask_dropouts": False, "repressing": False,
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """A TF g0 whose 20 targets its motif m7 ranks first, another TF's motif m3 half of them."""
    rng = np.random.default_rng(0)
    ranks = np.stack([rng.permutation(N_GENES) for _ in range(N_MOTIFS)])
    for motif, first in ((7, 20), (3, 12)):
        order = np.r_[np.arange(1, first + 1), 0, np.arange(first + 1, N_GENES)]
        ranks[motif, order] = np.arange(N_GENES)
    names = [f"m{i}" for i in range(N_MOTIFS)]
    database = tmp_path / "db.genes_vs_motifs.rankings.feather"
    columns = {gene: pa.array(ranks[:, i], pa.int16()) for i, gene in enumerate(GENES)}
    feather.write_feather(pa.table({**columns, "motifs": names}), database)
    annotations = tmp_path / "motifs.tbl"
    table = pd.DataFrame({"#motif_id": ["m3", "m7", "m7"], "gene_name": ["g399", "g0", "g0"]})
    table["motif_similarity_qvalue"], table["orthologous_identity"] = [0, 1e-4, 0], [1, 0.9, 1]
    table["description"] = "gene is annotated"
    table.to_csv(annotations, sep="\t", index=False)
    values = rng.random((50, N_GENES))
    values[:, 1:21] += 5 * values[:, :1]
    expression = Expression(GENES, np.arange(N_GENES) == 0, sparse.csc_matrix(values))
    importance = np.zeros((1, N_GENES), dtype=np.float32)
    importance[0, 1:21] = np.arange(20, 0, -1)
    edges = Edges(np.array(["g0"]), np.array(GENES), importance)
    return edges, expression, [database], annotations


def test_a_motif_supports_its_own_targets_and_not_those_of_another_enriched_one(study):
    found = motifs.find_motifs(*study, **SETTINGS)
    # m3 is enriched, too, and stands first; it is another TF's.
    assert set(found["motif"]) == {"m7"} and set(found["regulon"]) == {"g0(+)"}
    assert set(found["database"]) == {"db.genes_vs_motifs.rankings"}
    whole = found.set_index("module").loc["top50"]
    assert whole["targets"].split(",") == [*TARGETS, "g0"]
    assert whole["rank_at_max"] == 20
    # 21 members rank 0 to 20; those before the cutoff of 20 ranks gain 19, 18, ... 0.
    assert whole["auc"] == sum(range(20)) / (20 * 21)
    assert (whole["motif_similarity_qvalue"], whole["orthologous_identity"]) == (0, 1)


def test_modules_hold_the_strongest_targets_of_one_sign_and_the_tf(study):
    edges, expression, *_ = study
    found = motifs.make_modules(edges, expression, 5, False, True)
    keys = found.table[["regulon", "module"]].itertuples(index=False, name=None)
    sizes = dict(zip(keys, found.members.sum(1).A1, strict=True))
    assert sizes == {
        ("g0(+)", "weight>75%"): 6, ("g0(+)", "top50"): 21, ("g0(+)", "top5perTarget"): 21,
        ("g0(+)", "top10perTarget"): 21, ("g0(+)", "top50perTarget"): 21,
    }  # fmt: skip
    assert found.table["module"].iloc[0] == "weight>75%"
    assert set(found.genes[found.members[0].indices]) == {"g0", *TARGETS[:5]}


def test_modules_are_kept_apart_by_sign_and_count_regulators_per_target():
    """Of six TFs each has an edge to the gene g; it activates if its number is even."""
    rng = np.random.default_rng(0)
    tfs = rng.random((300, 6))
    target = tfs @ [1.0, -1, 1, -1, 1, -1]
    names = [f"t{i}" for i in range(6)] + ["g"]
    values = sparse.csc_matrix(np.c_[tfs, target - target.min()])
    expression = Expression(names, np.arange(7) < 6, values)
    importance = np.zeros((6, 7), dtype=np.float32)
    importance[:, 6] = [6, 5, 4, 3, 2, 1]
    edges = Edges(np.array(names[:6]), np.array(names), importance)
    found = motifs.make_modules(edges, expression, 2, False, True)
    regulons = found.table[found.table["module"] == "top5perTarget"]["regulon"]
    assert set(regulons) == {"t0(+)", "t2(+)", "t4(+)", "t1(-)", "t3(-)", "t5(-)"}
    # The quantiles are of all edges: 4.75 and 5.5.
    strong = found.table[found.table["module"] == "weight>75%"]["regulon"]
    assert set(strong) == {"t0(+)", "t1(-)"}
    only = motifs.make_modules(edges, expression, 2, False, False)
    assert set(only.table["regulon"]) == {"t0(+)", "t2(+)", "t4(+)"}
    assert (only.members.sum(1) == 2).all() and only.genes.tolist() == names


def test_edges_of_other_genes_are_refused(study):
    edges, *others = study
    other = Edges(edges.tfs, edges.targets[::-1], edges.importance)
    with pytest.raises(InputError, match="its TFs or targets are not those"):
        motifs.find_motifs(other, *others, **SETTINGS)


@pytest.mark.parametrize("n_missing, n_found", [(4, 4), (5, 0)])
def test_a_module_of_which_a_fifth_is_not_ranked_is_left_out(study, n_missing, n_found):
    database = study[2][0]
    known = feather.read_table(database)
    feather.write_feather(known.drop_columns(TARGETS[:n_missing]), database)
    found = motifs.find_motifs(*study, **SETTINGS)  # in modules of 21
    assert len(found) == n_found


def test_thresholds_that_do_not_fit_the_database_are_refused(study):
    for key, value in (("rank_threshold", N_GENES), ("auc_threshold", 0.5), ("auc_threshold", 0)):
        with pytest.raises(InputError, match="grn.rank_threshold .* 400 genes"):
            motifs.find_motifs(*study, **SETTINGS | {key: value})


def test_no_enriched_motif_is_an_empty_table(study):
    found = motifs.find_motifs(*study, **SETTINGS | {"nes_threshold": 50.0})
    assert found.empty and list(found) == list(motifs.FOUND_COLUMNS)


def test_no_module_that_is_large_enough_is_an_empty_table(study):
    found = motifs.find_motifs(*study, **SETTINGS | {"min_genes": 100})
    assert found.empty and list(found) == list(motifs.FOUND_COLUMNS)


def test_a_database_that_ranks_none_of_the_genes_leaves_all_modules_out(study):
    database = study[2][0]
    known = feather.read_table(database)
    feather.write_feather(known.drop_columns(["g0", *TARGETS]), database)
    assert motifs.find_motifs(*study, **SETTINGS).empty


def test_gains_are_the_same_whatever_is_in_memory_at_once(monkeypatch):
    ranks = np.stack([np.random.default_rng(0).permutation(50) for _ in range(7)])
    whole = motifs.compute_recovery_gains(ranks, 20).toarray()
    assert (whole == np.maximum(19 - ranks.T, 0)).all()
    monkeypatch.setattr(motifs, "GENES_AT_ONCE", 3)
    assert (motifs.compute_recovery_gains(ranks, 20).toarray() == whole).all()
