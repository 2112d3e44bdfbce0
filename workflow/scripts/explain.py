import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.explain import runs
from scdyn.io.files import write_json, write_table
from scdyn.log import logged
from scdyn.settings import ExplanationSettings, TaskSettings

with logged(snakemake.log[0]):
    block = TaskSettings(**snakemake.config["tasks"][snakemake.wildcards.task])
    settings = ExplanationSettings(**snakemake.params.task).with_hardware(block)
    store = TokenStore(snakemake.input.tokens, Corpus(snakemake.input.corpus))
    table, checks = runs.explain_task(
        store,
        store.vocabulary,
        snakemake.input.folds,
        snakemake.params.model,
        settings,
    )
    write_table(snakemake.output.attributions, table)
    write_json(snakemake.output.runs, checks)
