from pathlib import Path

from scdyn.io import barcodes
from scdyn.io.artefacts import read_table
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.pp import preflight, preflight_findings, reference
from scdyn.settings import InputThresholds

with logged(snakemake.log[0]):
    params = snakemake.params
    genes = reference.read_vocabulary(snakemake.input.genes)
    windows = reference.make_promoter_windows(genes, **params.windows)
    tables = [barcodes.read_translation(path) for path in snakemake.input.translation]
    # Not a param, because samples need not be examined again when the catalogue changes.
    catalogue = read_table(
        Path(snakemake.scriptdir).resolve().parents[1] / "resources/catalogue.tsv"
    )
    thresholds = InputThresholds(**params.thresholds)
    found = preflight.examine_sample(
        params.row, genes, windows, thresholds, *tables or [None], catalogue
    )
    table = preflight_findings.make_table(found)
    preflight_findings.log_findings(table)
    write_table(snakemake.output[0], table)
