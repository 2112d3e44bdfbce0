import pandas as pd

from scdyn.grn import consensus, regulons
from scdyn.io.artefacts import read_table
from scdyn.io.files import write_table
from scdyn.log import logged, logger
from scdyn.plotting import grn as figures_grn
from scdyn.plotting.style import save
from scdyn.settings import LEFT_OUT

with logged(snakemake.log[0]):
    params, files = snakemake.params, snakemake.input
    settings = params.settings
    evidence = read_table(files.adjacencies).drop(columns=["importance", "n_runs"])
    edges = {
        name: read_table(path).rename(columns={"TF": "tf"})
        for name, path in zip(params.runs, files.runs, strict=True)
    }
    if files.motifs:
        runs = {
            name: regulons.of_motifs(read_table(path), edges[name])
            for name, path in zip(params.runs, files.motifs, strict=True)
        }
    else:
        logger.info("no motif database: regulons are each TF's strongest targets")
        runs = {
            name: regulons.modules(
                run.merge(evidence, on=["tf", "target"]),
                settings["n_targets"],
                settings["repressing"],
            )
            for name, run in edges.items()
        }
    if settings["promoter_p"] is not None:
        runs = {
            name: regulons.supported(run, evidence, settings["promoter_p"])
            for name, run in runs.items()
        }
    seeded = {name: run for name, run in runs.items() if name != LEFT_OUT}
    kept = regulons.consensus(seeded, settings["min_runs"], settings["min_targets"])
    kept = kept.merge(evidence, on=["tf", "target"], how="left")
    n_edges = consensus.TOP_EDGES_PER_GENE * evidence["target"].nunique()
    top = {name: consensus.strongest(run, n_edges) for name, run in edges.items()}
    stability = pd.concat(
        [consensus.agreement(top, "strongest edges"), regulons.stability(runs, kept)],
        ignore_index=True,
    )
    write_table(snakemake.output.regulons, kept)
    regulons.write_gmt(kept, snakemake.output.gmt)
    write_table(snakemake.output.stability, stability)
    save(figures_grn.stability(stability, settings["left_out_share"]), snakemake.output.figure)
    save(figures_grn.network(kept), snakemake.output.network)
