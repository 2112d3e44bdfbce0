"""Settings of the gene regulatory network."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from scdyn.settings.base import Count, PathText, Seeds, Settings, Share, refuse

# The run that leaves some cells out, to see how much depends on them.
LEFT_OUT = "left_out"
# Share of the runs in which a regulon must be found, unless the config says in how many.
SHARE_OF_RUNS = 0.8


class GrnSettings(Settings):
    """Gene regulatory network and its regulons (docs/grn.md)."""

    seeds: Seeds = [1, 2, 3, 4, 5]
    """A run of the inference each; what enough of them agree upon is kept."""
    min_runs: Count | None = None
    """Runs in which a regulon, and a target of it, must be found. null - four of five."""
    left_out_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of the cells that one further run leaves out, to see what hangs on them; 0 - no such
    run."""
    method: Literal["fast", "grnboost2", "genie3"] = "fast"
    """Regression of each gene on the TFs. fast - ridge on ranks, all genes at once; the others as
    pySCENIC has them, by arboreto."""
    parts: Count = 8
    """Jobs that share a run's genes (grnboost2, genie3); a cluster runs them side by side."""
    cells: Literal["drawn", "metacells"] = "drawn"
    """drawn - from each sample and coarse cluster in proportion; metacells - sums of like cells of
    a sample."""
    max_cells: Annotated[int, Field(ge=10)] = 5000
    """Most cells or metacells that are used."""
    min_cells_share: Share = 0.01
    """Genes detected in a smaller share of the cells are left out."""
    rankings: list[PathText] = []
    """cisTarget ranking databases (.feather). Without one, regulons are TFs' strongest targets."""
    annotations: PathText | None = None
    """Motif annotation table of the databases (.tbl)."""
    motifs: Literal["fast", "pyscenic"] = "fast"
    """Which program finds the motifs of TFs' modules. fast - cisTarget's scores by our own code,
    all modules of a run at once; pyscenic - pyscenic ctx itself."""
    min_database_overlap: Share = 0.5
    """Smallest share of the vocabulary's genes that a ranking database must rank."""
    rank_threshold: Count = 5000
    """Ranks of a database that are looked at, as --rank_threshold of pyscenic ctx."""
    auc_threshold: Share = 0.05
    """Share of the ranks over which a motif's recovery is summed, as --auc_threshold of pyscenic
    ctx."""
    nes_threshold: float = 3.0
    """Normalised enrichment a motif must reach, as --nes_threshold of pyscenic ctx."""
    mask_dropouts: bool = False
    """Correlate TF and target over the cells alone in which both are detected, as --mask_dropouts
    of pyscenic ctx."""
    repressing: bool = False
    """Make regulons of repressed targets, too, apart from the activated ones."""
    promoter_evidence: Literal["auto", "prune", "report", "none"] = "auto"
    """Accessibility of the target's promoter where the TF is expressed. prune - edges without are
    dropped; report - a column; auto - prune without a motif database, else report; none."""
    promoter_p: Share = 0.05
    """Largest permutation p-value of an edge that the chromatin supports."""
    min_targets: Count = 10
    """Regulons with fewer targets are left out."""
    n_targets: Count = 50
    """Most targets of a TF's regulon where there is no motif database."""
    aucell_threshold: Annotated[float, Field(gt=0, le=1)] = 0.05
    """Share of a cell's genes, the best expressed, among which targets are looked for (AUCell)."""
    loom: bool = False
    """Write regulons.loom, too, for SCope, by pySCENIC."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rankings and not self.annotations:
            raise refuse("grn.rankings need grn.annotations, the table of motifs and TFs.")
        if (self.min_runs or 0) > len(self.seeds):
            n_runs = len(self.seeds)
            raise refuse(
                f"grn.min_runs is {self.min_runs}, but there are {n_runs} runs (grn.seeds)."
            )
        return self

    def seed_of_runs(self) -> dict[str, int]:
        """Name the runs with their seeds: one a seed, and one without some cells, if asked for."""
        runs = {str(seed): seed for seed in self.seeds}
        return runs | ({LEFT_OUT: self.seeds[0]} if self.left_out_share else {})

    @property
    def n_parts(self) -> int:
        """Jobs that share a run's genes; the ridge takes all of them at once."""
        return 1 if self.method == "fast" else self.parts

    @property
    def runs_needed(self) -> int:
        """Runs in which a regulon must be found: as ``min_runs`` says, or four of five."""
        return self.min_runs or ceil(SHARE_OF_RUNS * len(self.seeds))

    @property
    def promoters_prune(self) -> bool:
        """Whether edges that the chromatin does not support are dropped."""
        how = self.promoter_evidence
        return how == "prune" or (how == "auto" and not self.rankings)
