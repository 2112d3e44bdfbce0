"""Cells unlike anything seen are told; those like the seen ones seldom are."""

import numpy as np

from scdyn.tasks import familiarity


def test_p_values_are_valid_and_the_unlike_are_told():
    rng = np.random.default_rng(0)
    known = familiarity.fit_familiarity(rng.normal(size=400))
    same = familiarity.compute_familiarity(known, rng.normal(size=4000))
    assert 0 < same.min() and same.max() <= 1
    for level in (0.05, 0.2, 0.5):
        assert abs((same < level).mean() - level) < 0.05
    assert (familiarity.compute_familiarity(known, np.full(5, 9.0)) < 0.01).all()
    assert (familiarity.compute_familiarity(known, np.full(5, -9.0)) == 1).all()


def test_few_energies_are_kept_of_many_cells():
    known = familiarity.fit_familiarity(np.random.default_rng(0).normal(size=5000))
    assert len(known) == familiarity.MAX_ENERGIES and (np.diff(known) >= 0).all()
