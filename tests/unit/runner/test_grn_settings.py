"""What the config's block grn means."""

import pytest

from scdyn.grn import settings as grn_settings


def test_a_run_a_seed_and_one_that_lacks_cells():
    grn = {"seeds": [3, 4], "left_out_share": 0.01}
    assert grn_settings.seeds_of_runs(grn) == {"3": 3, "4": 4, "left_out": 3}
    assert grn_settings.seeds_of_runs({**grn, "left_out_share": 0}) == {"3": 3, "4": 4}


@pytest.mark.parametrize(("min_runs", "n_seeds", "needed"), [(None, 5, 4), (None, 1, 1), (2, 5, 2)])
def test_four_of_five_runs_must_agree_unless_told_otherwise(min_runs, n_seeds, needed):
    grn = {"min_runs": min_runs, "seeds": list(range(n_seeds))}
    assert grn_settings.runs_needed(grn) == needed


@pytest.mark.parametrize(
    ("how", "rankings", "prune"),
    [("auto", [], True), ("auto", ["db"], False), ("prune", ["db"], True), ("report", [], False)],
)
def test_promoters_prune_where_there_are_no_motifs(how, rankings, prune):
    grn = {"promoter_evidence": how, "rankings": rankings}
    assert grn_settings.promoters_prune(grn) == prune


def test_the_ridge_takes_all_genes_at_once():
    assert grn_settings.number_of_parts({"method": "fast", "parts": 8}) == 1
    assert grn_settings.number_of_parts({"method": "genie3", "parts": 8}) == 8
