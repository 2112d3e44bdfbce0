from pathlib import Path

from scdyn import barcodes, preflight, reference
from scdyn.artefacts import read_table
from scdyn.files import atomic, write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    params = snakemake.params
    genes = reference.read_vocabulary(snakemake.input.genes)
    windows = reference.promoter_windows(genes, params.upstream, params.downstream)
    tables = [barcodes.read_translation(path) for path in snakemake.input.translation]
    # No param: another catalogue does not make an examined sample another.
    home = Path(snakemake.scriptdir).resolve().parents[1]
    catalogue = read_table(home / "resources/catalogue.tsv")
    thresholds = preflight.Thresholds(**params.thresholds)
    findings = preflight.examine_machine(snakemake.input.files, snakemake.output.table)
    for row in params.rows:
        findings += preflight.examine_sample(
            row, genes, windows, thresholds, *tables or [None], catalogue
        )
    table = preflight.report(findings)
    for finding in table.itertuples():
        logger.info("%s, %s: %s", finding.subject, finding.check, finding.found)
    preflight.require(table, snakemake.log[0])
    write_table(snakemake.output.table, table)
    with atomic(snakemake.output.page) as temporary:
        temporary.write_text(preflight.page(table))
