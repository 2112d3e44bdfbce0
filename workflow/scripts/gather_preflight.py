from scdyn.io.artefacts import read_table
from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting.pages import render_findings
from scdyn.pp import preflight, preflight_findings, reference
from scdyn.settings import EvaluationSettings, ModelSettings
from scdyn.tasks.cost import examine_models

with logged(snakemake.log[0]):
    files, params, output = snakemake.input, snakemake.params, snakemake.output
    n_cells = preflight.count_cells(params.rows, params.corpora)
    genes = reference.read_vocabulary(files.genes)
    models = {name: ModelSettings(**model) for name, model in params.models.items()}
    tasks = {name: EvaluationSettings(**task) for name, task in params.tasks.items()}
    machine = preflight_findings.make_table(
        preflight.examine_machine(files.files, output.table)
        + examine_models(models, tasks, n_cells, genes)
    )
    preflight_findings.log_findings(machine)
    paths = [*files.samples, *files.metadata]
    others = [read_table(path, dtype=str, keep_default_na=False) for path in paths]
    table = preflight_findings.gather_findings(machine, others)
    write_table(output.table, table)
    with atomic(output.page) as temporary:
        temporary.write_text(render_findings(table))
