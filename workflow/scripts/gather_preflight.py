import pandas as pd

from scdyn.io.artefacts import read_table
from scdyn.io.files import atomic, write_table
from scdyn.log import logged, logger
from scdyn.plotting.pages import findings_page
from scdyn.pp import findings as checked
from scdyn.pp import preflight, reference
from scdyn.settings import EvaluationSettings, ModelSettings
from scdyn.tasks.cost import examine_models

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    n_cells = {row["sample"]: len(preflight.barcodes_of(row)) for row in params.rows}
    of_corpus = {name: sum(n_cells[s] for s in samples) for name, samples in params.corpora.items()}
    genes = reference.read_vocabulary(files.genes)
    models = {name: ModelSettings(**model) for name, model in params.models.items()}
    tasks = {name: EvaluationSettings(**task) for name, task in params.tasks.items()}
    machine = checked.report(
        preflight.examine_machine(files.files, snakemake.output.table)
        + examine_models(models, tasks, of_corpus, genes)
    )
    checked.tell(machine)
    paths = [*files.samples, *files.metadata]
    parts = [read_table(path, dtype=str, keep_default_na=False) for path in paths]
    found = pd.concat(parts).drop_duplicates()  # a sample's table of cells, of each corpus it is in
    table = checked.sort(pd.concat([machine, found.assign(passed=found["passed"] == "True")]))
    n_refused = int((~table["passed"]).sum())
    logger.info("%d checks, of which %d do not pass", len(table), n_refused)
    write_table(snakemake.output.table, table)
    with atomic(snakemake.output.page) as temporary:
        temporary.write_text(findings_page(table))
