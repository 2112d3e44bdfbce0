"""Edges of a few genes for tests."""

import numpy as np

from scdyn.grn.edges import Edges


def make_edges(tfs, targets, importance):
    """Make edges of the letters of two words, from rows of importances per TF."""
    return Edges(np.array(list(tfs)), np.array(list(targets)), np.array(importance, np.float32))
