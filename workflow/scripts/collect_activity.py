import anndata as ad
import pandas as pd

from scdyn import figures, grn
from scdyn.files import atomic
from scdyn.log import logged

with logged(snakemake.log[0]):
    regulons = pd.read_csv(snakemake.input.regulons, sep="\t")
    cells = grn.activity(pd.read_csv(snakemake.input.auc, index_col=0), regulons)
    obs = ad.read_h5ad(snakemake.input.corpus, backed="r").obs.loc[cells.obs_names]
    labels = [name for name in snakemake.params.labels if name in obs]
    cells.obs = obs[["sample", *labels]]
    by = labels[0] if labels else "sample"
    figures.save(figures.regulon_activity(cells, by), snakemake.output.figure)
    with atomic(snakemake.output.cells) as temporary:
        cells.write_h5ad(temporary)
