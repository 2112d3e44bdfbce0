import h5py
import loompy
import numpy as np

from scdyn.grn.expression import read_expression
from scdyn.io.files import atomic
from scdyn.log import logged

with logged(snakemake.log[0]):
    expression = read_expression(snakemake.input[0])
    with h5py.File(snakemake.input[0]) as file:
        cells = file["obs"][file["obs"].attrs["_index"]].asstr()[:]
    attributes = {"Gene": np.array(expression.genes)}, {"CellID": cells.astype(str)}
    with atomic(snakemake.output[0]) as temporary:
        loompy.create(str(temporary), expression.values.T.tocoo(), *attributes)
