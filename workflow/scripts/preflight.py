from scdyn import barcodes, preflight, reference
from scdyn.files import atomic, write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    params = snakemake.params
    genes = reference.read_vocabulary(snakemake.input.genes)
    windows = reference.promoter_windows(genes, params.upstream, params.downstream)
    tables = [barcodes.read_translation(path) for path in snakemake.input.translation]
    thresholds = preflight.Thresholds(**params.thresholds)
    findings = preflight.examine_machine(snakemake.input.files, snakemake.output.table)
    for row in params.rows:
        findings += preflight.examine_sample(row, genes, windows, thresholds, *tables)
    if all(finding.passed for finding in findings):
        cells = {row["sample"]: preflight.count_cells(row) for row in params.rows}
        n_cells = {
            corpus: sum(cells[sample] for sample in samples)
            for corpus, samples in params.corpora.items()
        }
        findings += preflight.examine_models(params.models, params.tasks, n_cells, genes)
    table = preflight.report(findings)
    for finding in table.itertuples():
        logger.info("%s, %s: %s", finding.subject, finding.check, finding.found)
    preflight.require(table, snakemake.log[0])
    write_table(snakemake.output.table, table)
    with atomic(snakemake.output.page) as temporary:
        temporary.write_text(preflight.page(table))
