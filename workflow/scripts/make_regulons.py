from scdyn.grn.edges import Edges, MergedEdges
from scdyn.grn.regulons import find_regulons, write_gmt
from scdyn.io.artefacts import read_table
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.plotting import grn as figures
from scdyn.plotting.style import save

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    settings = params.settings
    edges = dict(zip(params.runs, map(Edges.read, files.runs), strict=True))
    motifs = None
    if files.motifs:
        motifs = dict(zip(params.runs, map(read_table, files.motifs), strict=True))
    keys = ("n_targets", "repressing", "promoter_p", "min_runs", "min_targets")
    regulons, stability = find_regulons(
        edges, MergedEdges.read(files.adjacencies), motifs, **{key: settings[key] for key in keys}
    )
    write_table(snakemake.output.regulons, regulons)
    write_gmt(regulons, snakemake.output.gmt)
    write_table(snakemake.output.stability, stability)
    save(figures.plot_stability(stability, settings["left_out_share"]), snakemake.output.figure)
    save(figures.plot_network(regulons), snakemake.output.network)
