# Public files, and the vocabulary: every gene with its TSSs, length, and whether it is a TF.


rule resources:
    input:
        list_resources(),


# A local rule, because compute nodes rarely have network access.
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


PANEL = (
    [select_row(sample) for sample in SAMPLES.index] if CONFIG.reference.genes == "measured" else []
)
PANEL_FILES = [path for row in PANEL for path in list_input_files(row, SIMULATED, only_rna=True)]


rule build_vocabulary:
    input:
        annotation=CONFIG.reference.annotation,
        tfs=CONFIG.reference.tfs,
        # The vocabulary of a gene panel consists of the genes in the matrices.
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
        sizes=measure_sizes([*NAMED["reference.annotation"], *NAMED["reference.tfs"], *PANEL_FILES]),
        biotypes=CONFIG.reference.biotypes,
        rows=PANEL,
    script:
        "../scripts/build_vocabulary.py"
