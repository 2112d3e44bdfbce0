"""Cells unlike anything seen are told; those like the seen ones seldom are."""

import numpy as np

from scdyn import familiarity


def test_p_values_are_valid_and_the_unlike_are_told():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(8, 8))

    def draw(n):
        labels = rng.integers(0, 3, n)
        return labels, 4.0 * np.eye(8)[labels] + rng.normal(size=(n, 8)) @ spread * 0.3

    labels, learned = draw(600)
    _, validation = draw(400)
    description = familiarity.fit_familiarity(learned, labels, validation)
    same = familiarity.familiarity(description, draw(2000)[1])
    assert 0 < same.min() and same.max() <= 1
    assert (same < 0.05).mean() < 0.08 and (same < 0.5).mean() > 0.4
    unlike = familiarity.familiarity(description, 4.0 * np.eye(8)[[5] * 50])
    assert (unlike < 0.01).all()


def test_few_distances_are_kept_of_many_cells():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5000, 3))
    description = familiarity.fit_familiarity(values, np.repeat(["a", "b"], 2500), values)
    assert len(description["distances"]) == familiarity.MOST_KEPT
    assert (np.diff(description["distances"]) >= 0).all()
