from scdyn import barcodes, preflight, reference
from scdyn.artefacts import read_table, write_h5ad
from scdyn.files import write_table
from scdyn.ingest import ingest
from scdyn.log import logged
from scdyn.qc import QualityBounds, filter_cells

with logged(snakemake.log[0]):
    params = snakemake.params
    preflight.require(read_table(snakemake.input.preflight), snakemake.input.preflight)
    genes = reference.read_vocabulary(snakemake.input.genes)
    windows = reference.promoter_windows(genes, params.upstream, params.downstream)
    tables = [barcodes.read_translation(path) for path in snakemake.input.translation]
    cells = ingest(params.row, genes, windows, *params.overlaps, *tables)
    bounds = QualityBounds(**params.qc)
    is_mt = genes["is_mt"].to_numpy()
    kept, table = filter_cells(cells, is_mt, bounds, params.seed, snakemake.wildcards.sample)
    write_table(snakemake.output.qc, table.rename_axis("cell"), index=True)
    write_h5ad(snakemake.output.cells, kept)
