# Gene regulatory networks by pySCENIC: edges over several seeds, regulons, their activity.

GRN = f"{RESULTS}/grn/{{corpus}}"


scattergather:
    grn=config["grn"]["parts"],


rule write_expression:
    input:
        rules.join_corpus.output[0],
    output:
        matrix=f"{GRN}/expression.tsv",
        tfs=f"{GRN}/tfs.txt",
    log:
        f"{LOGS}/write_expression/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        max_cells=config["grn"]["max_cells"],
        min_cells_share=config["grn"]["min_cells_share"],
        seed=config["grn"]["seeds"][0],
    script:
        "../scripts/write_expression.py"


# A part of the genes and a seed a job: they run side by side, and one that is killed is all that
# is lost. Arboreto's Dask runner, which hangs or dies with current Dask, is not used.
rule infer_adjacencies:
    input:
        matrix=rules.write_expression.output.matrix,
        tfs=rules.write_expression.output.tfs,
    output:
        ensure(f"{GRN}/runs/{{seed}}/{{scatteritem}}.tsv", non_empty=True),
    log:
        f"{LOGS}/infer_adjacencies/{{corpus}}_{{seed}}_{{scatteritem}}.log",
    conda:
        "../../envs/grn.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 720 * attempt,
    params:
        method=config["grn"]["method"],
    script:
        "../scripts/infer_adjacencies.py"


rule merge_adjacencies:
    input:
        matrix=rules.write_expression.output.matrix,
        runs=expand(
            gather.grn(rules.infer_adjacencies.output[0], allow_missing=True),
            seed=config["grn"]["seeds"],
            allow_missing=True,
        ),
    output:
        adjacencies=f"{GRN}/adjacencies.tsv",
        for_ctx=temp(f"{GRN}/adjacencies.ctx.tsv"),
        stability=report(
            f"{GRN}/stability.tsv",
            category="2. Regulons",
            labels={"corpus": "{corpus}", "what": "stability over seeds"},
            caption="../report/stability.rst",
        ),
    log:
        f"{LOGS}/merge_adjacencies/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        seeds=config["grn"]["seeds"],
    script:
        "../scripts/merge_adjacencies.py"


rule find_motifs:
    input:
        adjacencies=rules.merge_adjacencies.output.for_ctx,
        matrix=rules.write_expression.output.matrix,
        rankings=config["grn"]["rankings"],
        annotations=config["grn"]["annotations"] or [],
    output:
        f"{GRN}/motifs.csv",
    log:
        f"{LOGS}/find_motifs/{{corpus}}.log",
    conda:
        "../../envs/grn.yaml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        rank_threshold=config["grn"]["rank_threshold"],
        auc_threshold=config["grn"]["auc_threshold"],
        nes_threshold=config["grn"]["nes_threshold"],
        min_targets=config["grn"]["min_targets"],
    shell:
        "OMP_NUM_THREADS=1 pyscenic ctx {input.adjacencies:q} {input.rankings:q}"
        " --annotations_fname {input.annotations:q}"
        " --expression_mtx_fname {input.matrix:q} --mode custom_multiprocessing"
        " --rank_threshold {params.rank_threshold} --auc_threshold {params.auc_threshold}"
        " --nes_threshold {params.nes_threshold} --min_genes {params.min_targets}"
        " --num_workers {threads} --output {output:q} > {log:q} 2>&1"


rule make_regulons:
    input:
        adjacencies=rules.merge_adjacencies.output.adjacencies,
        # Without a motif database a regulon is its TF's strongest targets.
        motifs=rules.find_motifs.output[0] if config["grn"]["rankings"] else [],
    output:
        regulons=report(
            f"{GRN}/regulons.tsv",
            category="2. Regulons",
            labels={"corpus": "{corpus}", "what": "regulons"},
            caption="../report/regulons_table.rst",
        ),
        gmt=f"{GRN}/regulons.gmt",
    log:
        f"{LOGS}/make_regulons/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        min_targets=config["grn"]["min_targets"],
        n_targets=config["grn"]["n_targets"],
    script:
        "../scripts/make_regulons.py"


rule score_regulons:
    input:
        matrix=rules.write_expression.output.matrix,
        gmt=rules.make_regulons.output.gmt,
    output:
        temp(f"{GRN}/auc.csv"),
    log:
        f"{LOGS}/score_regulons/{{corpus}}.log",
    conda:
        "../../envs/grn.yaml"
    threads: 4
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        seed=config["grn"]["seeds"][0],
    shell:
        "OMP_NUM_THREADS=1 pyscenic aucell {input.matrix:q} {input.gmt:q} --seed {params.seed}"
        " --num_workers {threads} --output {output:q} > {log:q} 2>&1"


rule collect_activity:
    input:
        auc=rules.score_regulons.output[0],
        regulons=rules.make_regulons.output.regulons,
        corpus=rules.join_corpus.output[0],
    output:
        cells=f"{GRN}/auc.h5ad",
        figure=report(
            f"{GRN}/regulons.svg",
            category="2. Regulons",
            labels={"corpus": "{corpus}", "what": "activity"},
            caption="../report/regulons.rst",
        ),
    log:
        f"{LOGS}/collect_activity/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        labels=sorted({task["label"] for task in TASKS.values()}),
    script:
        "../scripts/collect_activity.py"
