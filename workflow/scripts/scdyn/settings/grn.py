"""Settings of the gene regulatory network."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scdyn.settings.base import Count, PathText, Seeds, Settings, Share, refuse

# Name of the run without some cells, which measures robustness.
LEFT_OUT = "left_out"
# Share of the runs in which a regulon must be found, if min_runs is not given.
SHARE_OF_RUNS = 0.8


class GrnSettings(Settings):
    """Gene regulatory network and its regulons (docs/grn.md)."""

    seeds: Seeds = [1, 2, 3, 4, 5]
    """Seeds of the inference runs; regulons found in enough runs are kept."""
    min_runs: Count | None = None
    """Number of runs in which a regulon and a target must be found. null - 80% of the runs."""
    left_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of the cells left out in one further run, to measure robustness. 0 - no such run."""
    method: Literal["fast", "grnboost2", "genie3"] = "fast"
    """Regression of each gene on the TFs. fast - ridge regression on ranks, all genes at once;
    grnboost2 and genie3 - by arboreto, as in pySCENIC."""
    parts: Count = 8
    """Number of jobs per run that share the genes (grnboost2, genie3); a cluster runs them in
    parallel."""
    cells: Literal["drawn", "metacells"] = "drawn"
    """Cells for the inference. drawn - a sample of the cells, stratified by sample and coarse
    cluster; metacells - sums of similar cells of a sample."""
    max_cells: Annotated[int, Field(ge=10)] = 5000
    """Largest number of cells or metacells."""
    min_cells_share: Share = 0.01
    """Genes detected in a smaller share of the cells are left out."""
    rankings: list[PathText] = []
    """cisTarget ranking databases (.feather). Without one, regulons are the strongest targets
    per TF."""
    annotations: PathText | None = None
    """Motif annotation table of the databases (.tbl)."""
    motifs: Literal["fast", "pyscenic"] = "fast"
    """Program for motif enrichment. fast - our implementation of cisTarget's scores, for all
    modules of a run at once; pyscenic - pyscenic ctx."""
    min_database_overlap: Share = 0.5
    """Smallest share of the vocabulary's genes that a ranking database must rank."""
    rank_threshold: Count = 5000
    """Number of ranks of a database in which targets are searched, as --rank_threshold of pyscenic
    ctx."""
    auc_threshold: Share = 0.05
    """Share of the ranks over which the area under a motif's recovery curve is computed, as
    --auc_threshold of pyscenic ctx."""
    nes_threshold: float = 3.0
    """Smallest normalised enrichment score of a motif, as --nes_threshold of pyscenic ctx."""
    mask_dropouts: bool = False
    """Correlate TF and target only over the cells in which both are detected, as --mask_dropouts
    of pyscenic ctx."""
    repressing: bool = False
    """Also make regulons of repressed targets."""
    promoter_evidence: Literal["auto", "prune", "report", "none"] = "auto"
    """Use of the accessibility of the target's promoter in cells that express the TF. prune - drop
    edges without support; report - add columns; auto - prune without a motif database, else
    report; none."""
    promoter_p: Share = 0.05
    """Largest permutation p-value of an edge supported by promoter accessibility."""
    min_targets: Count = 10
    """Regulons with fewer targets are left out."""
    n_targets: Count = 50
    """Most targets per regulon without a motif database."""
    aucell_threshold: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of the genes per cell, the highest expressed, that are searched for targets
    (AUCell)."""
    loom: bool = False
    """Also write regulons.loom for SCope, by pySCENIC."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rankings and not self.annotations:
            raise refuse("grn.rankings needs grn.annotations, the table of motifs and TFs.")
        if (self.min_runs or 0) > len(self.seeds):
            n_runs = len(self.seeds)
            raise refuse(
                f"grn.min_runs is {self.min_runs}, but there are {n_runs} runs (grn.seeds)."
            )
        return self

    def seed_of_runs(self) -> dict[str, int]:
        """Return the seed of each run by name: one run per seed, and one without some cells."""
        runs = {str(seed): seed for seed in self.seeds}
        return runs | ({LEFT_OUT: self.seeds[0]} if self.left_out_share else {})

    @property
    def n_parts(self) -> int:
        """Number of jobs per run; one for the ridge, which infers all genes at once."""
        return 1 if self.method == "fast" else self.parts

    @property
    def runs_needed(self) -> int:
        """Number of runs in which a regulon must be found: ``min_runs``, or 80% of the runs."""
        return self.min_runs or ceil(SHARE_OF_RUNS * len(self.seeds))

    @property
    def promoters_prune(self) -> bool:
        """Whether edges without support by promoter accessibility are dropped."""
        how = self.promoter_evidence
        return how == "prune" or (how == "auto" and not self.rankings)
