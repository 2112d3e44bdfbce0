import pandas as pd

from scdyn.explain import drivers, gene_sets
from scdyn.io.artefacts import read_cells, read_table
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.tasks.splits import PREDICTED, read_splits, require_cells

with logged(snakemake.log[0]):
    files = snakemake.input
    attributions, regulons = read_table(files.attributions), read_table(files.regulons)
    cells = read_cells(files.corpus)
    split = read_splits(files.splits)
    require_cells(split, cells.obs_names)
    label = split[split["fold"] != PREDICTED].set_index("cell")["label"]
    label = label[label.isin(attributions["class"])]
    weights = pd.concat(map(read_table, files.weights))
    rankings = drivers.rankings_table(attributions, weights, cells, label)
    of_regulons = gene_sets.regulon_attribution(
        attributions,
        gene_sets.regulon_members(regulons),
        drivers.mean_expression(cells, label.index),
        seed=snakemake.params.seed,
    )
    sets = {}
    if files.gene_sets:
        sets = gene_sets.read_gmt(files.gene_sets)
    write_table(snakemake.output.rankings, rankings)
    write_table(snakemake.output.regulons, of_regulons)
    write_table(snakemake.output.gene_sets, gene_sets.gene_set_enrichment(attributions, sets))
    write_table(
        snakemake.output.drivers,
        drivers.drivers_table(attributions, rankings, regulons, of_regulons),
    )
