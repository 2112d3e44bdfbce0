"""What the config's block grn means."""

import pytest

from scdyn.settings import GrnSettings


def test_a_run_a_seed_and_one_that_lacks_cells():
    grn = GrnSettings(seeds=[3, 4], left_out_share=0.01)
    assert grn.seed_of_runs() == {"3": 3, "4": 4, "left_out": 3}
    assert GrnSettings(seeds=[3, 4], left_out_share=0).seed_of_runs() == {"3": 3, "4": 4}


@pytest.mark.parametrize(("min_runs", "n_seeds", "needed"), [(None, 5, 4), (None, 1, 1), (2, 5, 2)])
def test_four_of_five_runs_must_agree_unless_told_otherwise(min_runs, n_seeds, needed):
    assert GrnSettings(min_runs=min_runs, seeds=list(range(n_seeds))).runs_needed == needed


@pytest.mark.parametrize(
    ("how", "rankings", "prune"),
    [("auto", [], True), ("auto", ["db"], False), ("prune", ["db"], True), ("report", [], False)],
)
def test_promoters_prune_where_there_are_no_motifs(how, rankings, prune):
    grn = GrnSettings(promoter_evidence=how, rankings=rankings, annotations="motifs.tbl")
    assert grn.promoters_prune == prune


def test_the_ridge_takes_all_genes_at_once():
    assert GrnSettings(method="fast", parts=8).n_parts == 1
    assert GrnSettings(method="genie3", parts=8).n_parts == 8
