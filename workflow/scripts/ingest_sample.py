from scdyn.io import barcodes
from scdyn.io.files import write_table
from scdyn.io.shards import write_shard
from scdyn.log import logged
from scdyn.pp import preflight, preflight_findings, reference
from scdyn.pp.counts import describe_sizes
from scdyn.pp.ingestion import ingest
from scdyn.pp.qc import filter_cells
from scdyn.settings import InputThresholds, QualitySettings

with logged(snakemake.log[0]):
    params = snakemake.params
    files = snakemake.input
    preflight_findings.require_passed(files.preflight)
    preflight.require_room(files.files, snakemake.output.cells)
    genes = reference.read_vocabulary(files.genes)
    windows = reference.make_promoter_windows(genes, **params.windows)
    tables = [barcodes.read_translation(path) for path in files.translation]
    least = InputThresholds(**params.thresholds)
    cells = ingest(
        params.row, genes, windows, least.min_gene_overlap, least.min_barcode_overlap, *tables
    )
    bounds = QualitySettings(**params.qc)
    kept, table = filter_cells(cells, bounds, params.seed)
    write_table(snakemake.output.qc, table.rename_axis("cell"), index=True)
    write_shard(snakemake.output.cells, describe_sizes(kept))
