# Regulon-aware vocabulary and binned values, the input of the model.


rule write_tokens:
    input:
        corpus=rules.join_corpus.output[0],
        genes=rules.build_vocabulary.output[0],
        regulons=rules.make_regulons.output.regulons,
    output:
        directory(f"{RESULTS}/tokens/{{corpus}}"),
    log:
        f"{LOGS}/write_tokens/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        n_bins=CONFIG.tokens.n_bins,
    script:
        "../scripts/write_tokens.py"
