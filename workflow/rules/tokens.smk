# Regulon-aware vocabulary, with which the model reads the counts.


rule write_tokens:
    input:
        genes=rules.build_vocabulary.output[0],
        regulons=rules.make_regulons.output.regulons,
    output:
        directory(f"{RESULTS}/tokens/{{corpus}}"),
    log:
        f"{LOGS}/write_tokens/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    script:
        "../scripts/write_tokens.py"
