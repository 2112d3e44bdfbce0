import pandas as pd

from scdyn import reference, tenx
from scdyn.features import GENES, read_features
from scdyn.files import write_table
from scdyn.log import logged, logger

with logged(snakemake.log[0]):
    path = snakemake.input.annotation
    if path.removesuffix(".gz").endswith(".gtf"):
        genes = reference.read_gtf(path, snakemake.params.biotypes)
    else:
        genes = reference.read_bed(path)
    measured = None
    if snakemake.input.samples:
        files = [tenx.locate(sample).matrix for sample in snakemake.input.samples]
        features = pd.concat(map(read_features, files))
        measured = features[features["kind"] == GENES]
        measured = {*reference.strip_version(measured["id"]), *measured["name"]}
    table = reference.build_vocabulary(genes, reference.read_tfs(snakemake.input.tfs), measured)
    logger.info("%d genes, of which %d TFs", len(table), table["is_tf"].sum())
    write_table(snakemake.output[0], table)
