import scdyn.training.openmp  # noqa: F401 - before torch
from scdyn.data.corpus import Corpus
from scdyn.data.tokens import TokenStore
from scdyn.explain.edits import list_edits
from scdyn.explain.gene_sets import regulon_members
from scdyn.explain.in_silico import perturb_task
from scdyn.io.artefacts import read_table
from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.pp.metadata import read_cells_table
from scdyn.settings import InSilicoSettings

with logged(snakemake.log[0]):
    files, settings = snakemake.input, InSilicoSettings(**snakemake.params.task)
    store = TokenStore(files.tokens, Corpus(files.corpus))
    edits = list_edits(
        settings.in_silico,
        read_table(files.rankings),
        store.vocabulary,
        regulon_members(read_table(files.regulons)),
    )
    perturbed = perturb_task(
        store,
        read_cells_table(files.cells) if files.cells else store.corpus.obs,
        edits,
        files.folds,
        snakemake.params.model,
        settings,
    )
    for name, table in perturbed.items():
        write_table(snakemake.output[name], table)
