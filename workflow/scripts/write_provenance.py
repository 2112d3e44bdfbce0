from scdyn.io.files import atomic, write_json
from scdyn.log import logged
from scdyn.plotting import provenance
from scdyn.settings import Config

with logged(snakemake.log[0]):
    record = provenance.collect_provenance(
        Config(**snakemake.params.config),
        snakemake.input.sheet,
        snakemake.input.environments,
        snakemake.input.models,
        snakemake.params.repository,
        snakemake.params.snakemake,
        snakemake.params.stamped,
        snakemake.input.hashed,
    )
    write_json(snakemake.output.provenance, record)
    with atomic(snakemake.output.page) as temporary:
        temporary.write_text(provenance.render_provenance(record))
