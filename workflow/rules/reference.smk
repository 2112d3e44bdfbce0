# Public files, and the vocabulary: every gene with its TSSs, its length and whether it is a TF.


rule resources:
    input:
        resources_asked_for(),


# Compute nodes seldom reach the network, so the machine that runs snakemake does this itself.
rule fetch_resource:
    output:
        file=ensure(f"{DOWNLOADS}/{{resource}}", non_empty=True),
        hash=f"{DOWNLOADS}/{{resource}}.sha256",
    log:
        f"{LOGS}/fetch_resource/{{resource}}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        url=lambda wildcards: CATALOGUE[wildcards.resource].url,
        sha256=lambda wildcards: CATALOGUE[wildcards.resource].sha256,
    script:
        "../scripts/fetch_resource.py"


PANEL = [row_of(sample) for sample in SAMPLES.index] if CONFIG.reference.genes == "measured" else []
PANEL_FILES = [path for row in PANEL for path in list_input_files(row, SIMULATED, only_rna=True)]


rule build_vocabulary:
    input:
        annotation=CONFIG.reference.annotation,
        tfs=CONFIG.reference.tfs,
        # A panel's vocabulary is made of the genes that the matrices name.
        samples=PANEL_FILES,
    output:
        ensure(f"{RESULTS}/reference/genes.tsv", non_empty=True),
    log:
        f"{LOGS}/build_vocabulary.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 6000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        sizes=sizes([*NAMED["reference.annotation"], *NAMED["reference.tfs"], *PANEL_FILES]),
        biotypes=CONFIG.reference.biotypes,
        rows=PANEL,
    script:
        "../scripts/build_vocabulary.py"
