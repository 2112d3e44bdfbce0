import pandas as pd

from scdyn import figures_grn, grn, regulons
from scdyn.figures import save
from scdyn.files import write_table
from scdyn.log import logged, logger


def edges_of(name):
    """Edges of a run, with sign and evidence."""
    table = pd.read_csv(path_of[name], sep="\t").rename(columns={"TF": "tf"})
    return table.merge(described, on=["tf", "target"], how="left")


with logged(snakemake.log[0]):
    params, files = snakemake.params, snakemake.input
    merged = pd.read_csv(files.adjacencies, sep="\t")
    described = merged.drop(columns=["importance", "n_runs"])
    path_of = dict(zip(params.runs, files.runs, strict=True))
    if files.motifs:
        runs = dict(zip(params.runs, map(regulons.read_ctx, files.motifs), strict=True))
    else:
        logger.info("no motif database: regulons are each TF's strongest targets")
        runs = {
            name: regulons.modules(edges_of(name), params.n_targets, params.repressing)
            for name in params.runs
        }
    if params.promoter_p is not None:
        runs = {
            name: regulons.supported(run, described, params.promoter_p)
            for name, run in runs.items()
        }
    seeds = {name: run for name, run in runs.items() if name != params.left_out}
    needed = regulons.runs_needed(params.min_runs, len(seeds))
    kept = regulons.consensus(seeds, needed, params.min_targets)
    kept = kept.merge(merged.drop(columns=["importance", "n_runs"]), on=["tf", "target"])
    n_edges = grn.TOP_EDGES_PER_GENE * merged["target"].nunique()
    top = {
        name: grn.strongest(pd.read_csv(path, sep="\t"), n_edges) for name, path in path_of.items()
    }
    stability = pd.concat(
        [grn.agreement(top, "strongest edges"), regulons.stability(runs, kept)], ignore_index=True
    )
    write_table(snakemake.output.regulons, kept)
    regulons.write_gmt(kept, snakemake.output.gmt)
    write_table(snakemake.output.stability, stability)
    save(
        figures_grn.stability(stability, params.left_out, params.left_out_share),
        snakemake.output.figure,
    )
    save(figures_grn.network(kept), snakemake.output.network)
