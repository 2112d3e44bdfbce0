# The embedded study: what a sequencing core would hand over, with its truth.

SIMULATION = f"{RESULTS}/simulation"
TRUTH = [f"{SIMULATION}/truth/{name}.tsv" for name in ("edges", "drivers", "cells")]

if "simulation" in config:

    rule simulate_study:
        output:
            samples=[directory(f"{SIMULATION}/{sample}") for sample in SAMPLES.index],
            files=[
                f"{SIMULATION}/{name}"
                for name in (
                    "genes.gtf.gz",
                    "tfs.txt",
                    "motifs.genes_vs_motifs.rankings.feather",
                    "motifs.annotation.tbl",
                    "cell_metadata.tsv",
                    "truth/parameters.json",
                )
            ],
            truth=TRUTH,
        log:
            f"{LOGS}/simulate_study.log",
        conda:
            "../../envs/analysis.yaml"
        resources:
            mem_mb=lambda wildcards, attempt: 6000 * attempt,
            runtime=lambda wildcards, attempt: 20 * attempt,
        params:
            simulation=config["simulation"],
        script:
            "../scripts/simulate_study.py"
