from scdyn.io.download import Resource, fetch
from scdyn.log import logged

with logged(snakemake.log[0]):
    resource = Resource(snakemake.params.url, snakemake.params.sha256)
    fetch(resource, snakemake.output.file)
