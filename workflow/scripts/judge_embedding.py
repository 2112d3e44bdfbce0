import anndata as ad

from scdyn import corpus, evaluation, figures
from scdyn.files import write_json
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    cells = ad.read_h5ad(snakemake.input.embedding)
    seed = snakemake.params.seed
    components = corpus.principal_components(ad.read_h5ad(snakemake.input.corpus), seed)
    spaces = {"": cells.obsm["X_scdyn"], "pca_": components}
    labels = [name for name in snakemake.params.labels if name in cells.obs]
    scores = {}
    for label in labels:
        known = cells.obs[label].notna().to_numpy()
        names = cells.obs.loc[known, label].astype(str).to_numpy()
        for space, values in spaces.items():
            accuracy = evaluation.neighbour_accuracy(values[known], names)
            scores[f"{label}.{space}neighbour_accuracy"] = accuracy
    logger.info("%s", scores)
    write_json(snakemake.output.scores, scores)
    layout = corpus.neighbour_map(cells.obsm["X_scdyn"], seed)
    figures.save(figures.embedding(layout, cells.obs, ["sample", *labels]), snakemake.output.figure)
