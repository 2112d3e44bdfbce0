import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.explain import checks
from scdyn.io.artefacts import read_json, read_table
from scdyn.io.files import write_json, write_table
from scdyn.log import logged
from scdyn.settings import CheckSettings, TaskSettings
from scdyn.tasks import splits

with logged(snakemake.log[0]):
    block = TaskSettings(**snakemake.config["tasks"][snakemake.wildcards.task])
    settings = CheckSettings(**snakemake.params.task).with_hardware(block)
    files = snakemake.input
    store = TokenStore(files.tokens, Corpus(files.corpus))
    checks, curves = checks.check_task(
        store,
        store.vocabulary,
        splits.read_splits(files.splits),
        read_table(files.rankings),
        files.folds,
        snakemake.params.model,
        settings,
    )
    write_json(snakemake.output.checks, read_json(files.runs) | checks)
    write_table(snakemake.output.curves, curves)
