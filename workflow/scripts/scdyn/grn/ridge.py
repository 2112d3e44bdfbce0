"""GRN inference by ridge regression of ranks on the ranks of all TFs, with a Wald score per TF.

Our method; docs/grn.md compares it with others. Ranks are robust to dropouts and outliers. The
ridge handles correlated TFs and scores each given all others. One eigendecomposition of the TFs'
correlations serves all genes, so the time hardly depends on their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scdyn.errors import InputError

GENES_AT_ONCE = 512
PENALTIES = 10.0 ** np.arange(-4, 2.01, 0.25)
# Share of the penalty with the best prediction: that penalty spreads a target over correlated TFs;
# a third of it separates them better, with many or few cells (make bench-grn compares shares).
PENALTY_SHARE = 1 / 3


@dataclass(frozen=True)
class Ridge:
    """TFs' ranks and the eigendecomposition of their correlations."""

    regulators: np.ndarray
    """Standardised ranks, (cells, TFs)."""
    eigenvalues: np.ndarray
    """Eigenvalues of their correlation matrix, (TFs,)."""
    eigenvectors: np.ndarray
    """Eigenvectors, (TFs, TFs), in columns."""

    @classmethod
    def decompose(cls, regulators: np.ndarray) -> Ridge:
        """Decompose the correlations of the regulators' ranks."""
        correlation = (regulators.T @ regulators).astype(np.float64) / len(regulators)
        values, vectors = np.linalg.eigh(correlation)
        return cls(regulators, values.clip(min=0), vectors)

    def covariances(self, targets: np.ndarray) -> np.ndarray:
        """Correlate regulators with targets, both standardised: (TFs, targets)."""
        return (self.regulators.T @ targets).astype(np.float64) / len(self.regulators)

    def choose_penalty(self, covariances: np.ndarray, varies: np.ndarray) -> float:
        """Choose one penalty for all targets, by generalised cross-validation (Golub et al. 1979).

        Parameters
        ----------
        covariances
            (TFs, targets).
        varies
            (targets,) bool: the targets to use, neither constant nor among the regulators.

        Raises
        ------
        InputError
            If there is no target to use.
        """
        if not varies.any():
            raise InputError(
                "REGULONS",
                "no gene other than TFs varies between the cells; use more cells or genes "
                "(grn.max_cells, grn.min_cells_share).",
            )
        n_cells = len(self.regulators)
        squares = ((self.eigenvectors.T @ covariances[:, varies]) ** 2).mean(1)
        scores = []
        for penalty in PENALTIES:
            shrunk = self.eigenvalues + penalty
            left = 1 - (squares * (2 / shrunk - self.eigenvalues / shrunk**2)).sum()
            freedom = (self.eigenvalues / shrunk).sum()
            scores.append(left / max(1 - freedom / n_cells, 1e-3) ** 2)
        return float(PENALTIES[np.argmin(scores)])

    def scores(self, covariances: np.ndarray, own: np.ndarray, penalty: float) -> np.ndarray:
        """Score each TF as a regulator of each target, given all other TFs.

        A TF is no regulator of itself: for a target that is a TF, the regression without this TF
        follows from the full one by block elimination.

        Parameters
        ----------
        covariances
            (TFs, targets), of standardised targets; zero where a target is constant.
        own
            (targets,) the row of the target if it is a regulator, else -1.
        penalty
            Ridge penalty, on the scale of the correlation matrix.

        Returns
        -------
        ndarray, (TFs, targets)
            Signed square roots of Wald statistics: coefficient / standard error, the latter from
            the ridge's posterior variance (as for smooths: Wood 2006).
        """
        n_cells, n_tfs = self.regulators.shape
        shrunk = self.eigenvalues + penalty
        inverse = (self.eigenvectors / shrunk) @ self.eigenvectors.T
        variances = np.diag(inverse)
        coefficients = inverse @ covariances
        freedom = np.full(len(own), (self.eigenvalues / shrunk).sum())
        spread = np.repeat(variances[:, None], len(own), axis=1)
        itself = np.flatnonzero(own >= 0)
        tf = own[itself]
        ratio = inverse[:, tf] / variances[tf]
        coefficients[:, itself] -= ratio * coefficients[tf, itself]
        spread[:, itself] -= ratio * inverse[:, tf]
        squared = ((self.eigenvectors / shrunk) ** 2).sum(1)  # diagonal of inverse @ inverse
        trace = variances.sum() - squared[tf] / variances[tf]
        freedom[itself] = n_tfs - 1 - penalty * trace
        coefficients[tf, itself], spread[tf, itself] = 0.0, 1.0
        correlation = (self.eigenvectors * self.eigenvalues) @ self.eigenvectors.T
        fitted = (coefficients * (2 * covariances - correlation @ coefficients)).sum(0)
        noise = (1 - fitted).clip(min=1e-9) / (1 - freedom / n_cells).clip(min=1e-3)
        return coefficients * np.sqrt(n_cells / (spread.clip(min=1e-12) * noise))
