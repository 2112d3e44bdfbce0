from scdyn.log import logged
from scdyn.resources import Resource, fetch

with logged(snakemake.log[0]):
    resource = Resource(snakemake.params.url, snakemake.params.sha256)
    fetch(resource, snakemake.output.file)
