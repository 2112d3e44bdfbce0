import pandas as pd

from scdyn import preflight
from scdyn.artefacts import read_table
from scdyn.files import atomic, write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    files = snakemake.input
    machine = preflight.examine_machine(files.files, snakemake.output.table)
    parts = [preflight.report(machine), *map(read_table, [*files.samples, *files.metadata])]
    table = preflight.sort(pd.concat(parts))
    preflight.tell(table)
    write_table(snakemake.output.table, table)
    with atomic(snakemake.output.page) as temporary:
        temporary.write_text(preflight.page(table))
