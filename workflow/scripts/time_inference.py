from scdyn.grn.inference import run_pilot
from scdyn.io.files import write_json
from scdyn.log import logged

with logged(snakemake.log[0]):
    settings = snakemake.params.settings
    found = run_pilot(
        snakemake.input[0],
        settings["method"],
        settings["seed"],
        settings["n_runs"],
        settings["n_parts"],
    )
    write_json(snakemake.output[0], found)
