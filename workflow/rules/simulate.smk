# The embedded study: what a sequencing core would hand over, with its truth.

SIMULATION = f"{RESULTS}/simulation"
TRUTH_TABLES = ["edges", "drivers", "cells"]
TRUTH = [f"{SIMULATION}/truth/{name}.tsv" for name in TRUTH_TABLES]
# They count as there before they are made, so that what follows from them is planned the same.
SIMULATED = [
    f"{SIMULATION}/{name}"
    for sample in (SAMPLES.index if CONFIG.simulation else [])
    for name in files_of_simulated(sample)
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
