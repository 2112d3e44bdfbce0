from pathlib import Path

from scdyn.log import logged
from scdyn_simulate.parameters import Simulation
from scdyn_simulate.study import simulate_study

with logged(snakemake.log[0]):
    simulate_study(Simulation(**snakemake.params.simulation), Path(snakemake.params.folder))
