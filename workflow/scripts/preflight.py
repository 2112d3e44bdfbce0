from scdyn import preflight
from scdyn.log import logged

with logged(snakemake.log[0]):
    files, params = snakemake.input, snakemake.params
    preflight.require(files.gathered, params.samples, of_metadata=False)
    for corpus, samples in params.corpora.items():
        for examined in params.metadata[corpus]:
            preflight.require(files.gathered, dict.fromkeys(samples, examined), of_metadata=True)
    preflight.require_room(files.files, files.gathered)
