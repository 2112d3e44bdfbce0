# The vocabulary: every gene with its TSSs, its length and whether it is a TF.


rule build_vocabulary:
    input:
        annotation=config["reference"]["annotation"],
        tfs=config["reference"]["tfs"],
        # A panel's vocabulary is made of the genes that the matrices name.
        samples=(
            [library.path for libraries in LIBRARIES.values() for library in libraries]
            if config["reference"]["genes"] == "measured"
            else []
        ),
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
        biotypes=config["reference"]["biotypes"],
    script:
        "../scripts/build_vocabulary.py"
