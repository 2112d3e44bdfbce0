from scdyn import barcodes, reference
from scdyn.files import atomic, write_table
from scdyn.ingest import ingest
from scdyn.log import logged
from scdyn.qc import QualityBounds, filter_cells

with logged(snakemake.log[0]):
    params = snakemake.params
    genes = reference.read_vocabulary(snakemake.input.genes)
    windows = reference.promoter_windows(genes, params.upstream, params.downstream)
    overlaps = params.ingest["min_gene_overlap"], params.ingest["min_barcode_overlap"]
    tables = [barcodes.read_translation(path) for path in snakemake.input.translation]
    cells = ingest(params.row, genes, windows, *overlaps, *tables)
    bounds = QualityBounds(**params.ingest["qc"])
    is_mt = genes["is_mt"].to_numpy()
    kept, table = filter_cells(cells, is_mt, bounds, params.seed, snakemake.wildcards.sample)
    write_table(snakemake.output.qc, table.rename_axis("cell"), index=True)
    with atomic(snakemake.output.cells) as temporary:
        kept.write_h5ad(temporary, compression="lzf")
