from scdyn import explain, reference, tokens
from scdyn.files import write_json, write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    table, checks = explain.explain_task(
        tokens.TokenStore(snakemake.input.tokens),
        reference.read_vocabulary(f"{snakemake.input.tokens}/vocabulary.tsv"),
        snakemake.input.folds,
        snakemake.input.model.rsplit("/", 1)[0],
        snakemake.params.task,
    )
    write_table(snakemake.output.attributions, table)
    write_json(snakemake.output.runs, checks)
