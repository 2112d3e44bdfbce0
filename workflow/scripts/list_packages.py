from scdyn.files import atomic
from scdyn.log import logged
from scdyn.packages import installed_packages

with logged(snakemake.log[0]), atomic(snakemake.output[0]) as temporary:
    temporary.write_text(installed_packages())
