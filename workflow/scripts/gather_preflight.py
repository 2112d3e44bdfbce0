import pandas as pd

from scdyn.io.artefacts import read_table
from scdyn.io.files import atomic, write_table
from scdyn.log import logged, logger
from scdyn.plotting.pages import findings_page
from scdyn.pp import preflight, preflight_findings, reference
from scdyn.tasks.cost import examine_models

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    n_cells = {row["sample"]: len(preflight.list_barcodes(row)) for row in params.rows}
    of_corpus = {name: sum(n_cells[s] for s in samples) for name, samples in params.corpora.items()}
    genes = reference.read_vocabulary(files.genes)
    machine = preflight_findings.make_table(
        preflight.examine_machine(files.files, snakemake.output.table)
        + examine_models(params.models, params.tasks, of_corpus, genes)
    )
    preflight_findings.log_findings(machine)
    paths = [*files.samples, *files.metadata]
    parts = [read_table(path, dtype=str, keep_default_na=False) for path in paths]
    found = pd.concat(parts).drop_duplicates()  # a sample's table of cells, of each corpus it is in
    table = preflight_findings.sort_table(
        pd.concat([machine, found.assign(passed=found["passed"] == "True")])
    )
    n_refused = int((~table["passed"]).sum())
    logger.info("%d checks, of which %d do not pass", len(table), n_refused)
    write_table(snakemake.output.table, table)
    with atomic(snakemake.output.page) as temporary:
        temporary.write_text(findings_page(table))
