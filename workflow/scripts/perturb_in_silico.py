import anndata as ad
import pandas as pd

from scdyn import in_silico, reference, tokens
from scdyn.files import write_table
from scdyn.log import logged
from scdyn.regulon_attribution import regulon_members

with logged(snakemake.log[0]):
    files, task = snakemake.input, snakemake.params.task
    edits = in_silico.edits_of(
        task["in_silico"],
        pd.read_csv(files.rankings, sep="\t"),
        reference.read_vocabulary(f"{files.tokens}/vocabulary.tsv"),
        regulon_members(pd.read_csv(files.regulons, sep="\t")),
    )
    effects, cells, measured = in_silico.perturb_task(
        tokens.TokenStore(files.tokens),
        ad.read_h5ad(files.corpus, backed="r").obs,
        edits,
        files.folds,
        files.model.rsplit("/", 1)[0],
        task,
    )
    write_table(snakemake.output.effects, effects)
    write_table(snakemake.output.cells, cells)
    write_table(snakemake.output.measured, measured)
