from scdyn.io.files import atomic
from scdyn.io.packages import installed_packages
from scdyn.log import logged

with logged(snakemake.log[0]), atomic(snakemake.output[0]) as temporary:
    temporary.write_text(installed_packages())
