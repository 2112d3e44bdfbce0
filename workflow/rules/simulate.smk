# The embedded study: simulated files as a sequencing facility delivers them, and the truth.

SIMULATION = f"{RESULTS}/simulation"
TRUTH_TABLES = ["edges", "drivers", "cells"]
TRUTH = [f"{SIMULATION}/truth/{name}.tsv" for name in TRUTH_TABLES]
# Rules treat these files as existing inputs before the simulation has run.
SIMULATED = [
    f"{SIMULATION}/{name}"
    for sample in (SAMPLES.index if CONFIG.simulation else [])
    for name in list_simulated_files(sample)
]

if CONFIG.simulation:

    rule simulate_study:
        output:
            samples=SIMULATED,
            files=[f"{SIMULATION}/{name}" for name in STUDY_FILES],
            truth=TRUTH,
        log:
            f"{LOGS}/simulate_study.log",
        conda:
            "../../envs/analysis.yaml"
        resources:
            mem_mb=lambda wildcards, attempt: 6000 * attempt,
            runtime=lambda wildcards, attempt: 20 * attempt,
        params:
            simulation=CONFIG.simulation.model_dump(),
            folder=lambda wildcards: SIMULATION,
        script:
            "../scripts/simulate_study.py"
