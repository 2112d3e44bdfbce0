from scdyn.io.environment import list_packages
from scdyn.io.files import atomic
from scdyn.log import logged

with logged(snakemake.log[0]), atomic(snakemake.output[0]) as temporary:
    temporary.write_text(list_packages())
