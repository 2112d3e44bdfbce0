# Gene regulatory network: edges of several runs, consensus regulons, and their activity.

GRN = f"{RESULTS}/grn/{{corpus}}"
SEED_OF_RUN = CONFIG.grn.seed_of_runs()
SEEDED = [run for run in SEED_OF_RUN if run != LEFT_OUT]
N_PARTS = CONFIG.grn.n_parts
MODULES = {
    "min_genes": CONFIG.grn.min_targets,
    "mask_dropouts": CONFIG.grn.mask_dropouts,
    "repressing": CONFIG.grn.repressing,
}
THRESHOLDS = {
    key: getattr(CONFIG.grn, key) for key in ("rank_threshold", "auc_threshold", "nes_threshold")
}

# Edges of one run. If a run has several parts, gather_run joins them.
RUN_EDGES = f"{GRN}/runs/{{run}}/adjacencies.npz"
PART = "" if N_PARTS == 1 else "{scatteritem}"


scattergather:
    grn=N_PARTS,


rule check_databases:
    input:
        genes=rules.build_vocabulary.output[0],
        rankings=CONFIG.grn.rankings,
        annotations=CONFIG.grn.annotations or [],
    output:
        report(
            f"{RESULTS}/grn/databases.tsv",
            category="2. Regulons",
            labels={"corpus": "all", "what": "motif databases"},
            caption="../report/databases.rst",
        ),
    log:
        f"{LOGS}/check_databases.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=size_memory(2000, 2),
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        sizes=measure_sizes([*NAMED["grn.rankings"], *NAMED["grn.annotations"]]),
        min_overlap=CONFIG.grn.min_database_overlap,
    script:
        "../scripts/check_databases.py"


rule choose_cells:
    input:
        corpus=rules.make_corpus.output.manifest,
        pca=rules.compute_pca.output[0],
        # Unsuitable databases are refused before the inference.
        databases=rules.check_databases.output[0] if CONFIG.grn.rankings else [],
    output:
        expression=ensure(f"{GRN}/expression.h5ad", non_empty=True),
        cells=f"{GRN}/cells.tsv",
    log:
        f"{LOGS}/choose_cells/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        # 24 bytes per value of a metacell of 22,000 genes.
        mem_mb=scale_by_cells(2500 + 0.5 * CONFIG.grn.max_cells, 1500),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        settings=select_grn_settings("cells", "max_cells", "min_cells_share"),
    script:
        "../scripts/choose_cells.py"


# Estimates the time and memory of the inference before it starts.
rule time_inference:
    input:
        rules.choose_cells.output.expression,
    output:
        f"{GRN}/pilot.json",
    log:
        f"{LOGS}/time_inference/{{corpus}}.log",
    conda:
        "../../envs/grn.yaml"
    resources:
        mem_mb=size_memory(2000, 4),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        settings=select_grn_settings("method") | {"n_runs": len(SEED_OF_RUN), "n_parts": N_PARTS},
    script:
        "../scripts/time_inference.py"


# One job per run and part of the genes: jobs run in parallel, and one that is killed or runs out of
# memory is repeated alone. Arboreto's Dask runner hangs or crashes with current Dask.
rule infer_adjacencies:
    input:
        expression=rules.choose_cells.output.expression,
        pilot=rules.time_inference.output[0],
    output:
        ensure(f"{GRN}/runs/{{run}}/{PART}.npz" if PART else RUN_EDGES, non_empty=True),
    log:
        f"{LOGS}/infer_adjacencies/{{corpus}}_{{run}}{PART and f'_{PART}'}.log",
    # A Slurm job is itself a run of Snakemake, and its retries would have no more memory.
    retries: 2 if workflow.is_main_process else 0
    conda:
        "../../envs/grn.yaml"
    resources:
        mem_mb=lambda wildcards, input, attempt: scale_by_pilot(
            "job_memory_mb", 700, 1.5, attempt, input.pilot
        ),
        runtime=lambda wildcards, input, attempt: scale_by_pilot(
            "job_minutes", 5, 3, attempt, input.pilot
        ),
    params:
        settings=select_run_settings,
    script:
        "../scripts/infer_adjacencies.py"


if PART:

    rule gather_run:
        input:
            gather.grn(rules.infer_adjacencies.output[0], allow_missing=True),
        output:
            ensure(RUN_EDGES, non_empty=True),
        log:
            f"{LOGS}/gather_run/{{corpus}}_{{run}}.log",
        conda:
            "../../envs/analysis.yaml"
        resources:
            mem_mb=size_memory(1000, 4),
            runtime=lambda wildcards, attempt: 15 * attempt,
        script:
            "../scripts/gather_run.py"


rule merge_adjacencies:
    input:
        expression=rules.choose_cells.output.expression,
        runs=expand(RUN_EDGES, run=SEEDED, allow_missing=True),
    output:
        arrays=ensure(f"{GRN}/adjacencies.npz", non_empty=True),
        table=ensure(f"{GRN}/adjacencies.tsv", non_empty=True),
    log:
        f"{LOGS}/merge_adjacencies/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=size_memory(2000, 4),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        runs=SEEDED,
        settings=select_grn_settings("mask_dropouts")
        | {"promoters": CONFIG.grn.promoter_evidence != "none"},
    script:
        "../scripts/merge_adjacencies.py"


# Input of pySCENIC in export_loom.
rule write_matrix:
    input:
        rules.choose_cells.output.expression,
    output:
        temp(f"{GRN}/expression.loom"),
    log:
        f"{LOGS}/write_matrix/{{corpus}}.log",
    conda:
        "../../envs/grn.yaml"
    resources:
        mem_mb=size_memory(2000, 4),
        runtime=lambda wildcards, attempt: 30 * attempt,
    script:
        "../scripts/write_matrix.py"


MOTIFS = f"{GRN}/runs/{{run}}/motifs.tsv"

if CONFIG.grn.motifs == "fast":

    rule find_motifs:
        input:
            adjacencies=RUN_EDGES,
            expression=rules.choose_cells.output.expression,
            rankings=CONFIG.grn.rankings,
            annotations=CONFIG.grn.annotations or [],
        output:
            ensure(MOTIFS, non_empty=True),
        log:
            f"{LOGS}/find_motifs/{{corpus}}_{{run}}.log",
        conda:
            "../../envs/analysis.yaml"
        resources:
            mem_mb=size_memory(2000, 3),
            runtime=lambda wildcards, attempt: 120 * attempt,
        params:
            sizes=measure_sizes([*NAMED["grn.rankings"], *NAMED["grn.annotations"]]),
            settings=MODULES | THRESHOLDS,
        script:
            "../scripts/find_motifs.py"

else:

    # One job for all runs, because starting pySCENIC and reading the databases takes longer than a
    # small run. Each process of pySCENIC holds a database in memory.
    rule find_motifs_by_pyscenic:
        input:
            adjacencies=expand(RUN_EDGES, run=SEED_OF_RUN, allow_missing=True),
            expression=rules.choose_cells.output.expression,
            rankings=CONFIG.grn.rankings,
            annotations=CONFIG.grn.annotations or [],
        output:
            ensure(expand(MOTIFS, run=SEED_OF_RUN, allow_missing=True), non_empty=True),
        log:
            f"{LOGS}/find_motifs_by_pyscenic/{{corpus}}.log",
        conda:
            "../../envs/grn.yaml"
        threads: 8
        resources:
            # Each of the 8 processes holds one database, 3 times its file while it reads.
            mem_mb=size_memory(
                4000, 4, rankings=24 / len(NAMED["grn.rankings"] or [""]), annotations=24
            ),
            runtime=lambda wildcards, attempt: 720 * attempt,
        params:
            sizes=measure_sizes([*NAMED["grn.rankings"], *NAMED["grn.annotations"]]),
            runs=list(SEED_OF_RUN),
            modules=MODULES,
            thresholds=THRESHOLDS,
        script:
            "../scripts/find_motifs_by_pyscenic.py"


rule make_regulons:
    input:
        adjacencies=rules.merge_adjacencies.output.arrays,
        runs=expand(RUN_EDGES, run=SEED_OF_RUN, allow_missing=True),
        # Without a motif database, regulons are the strongest targets of each TF.
        motifs=(expand(MOTIFS, run=SEED_OF_RUN, allow_missing=True) if CONFIG.grn.rankings else []),
    output:
        regulons=report(
            f"{GRN}/regulons.tsv",
            category="2. Regulons",
            labels={"corpus": "{corpus}", "what": "regulons"},
            caption="../report/regulons_table.rst",
        ),
        gmt=f"{GRN}/regulons.gmt",
        stability=f"{GRN}/stability.tsv",
        figure=report(
            f"{GRN}/stability.svg",
            category="2. Regulons",
            labels={"corpus": "{corpus}", "what": "stability"},
            caption="../report/stability.rst",
        ),
        network=report(
            f"{GRN}/network.svg",
            category="2. Regulons",
            labels={"corpus": "{corpus}", "what": "network"},
            caption="../report/network.rst",
        ),
    log:
        f"{LOGS}/make_regulons/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=size_memory(2000, 2),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        runs=list(SEED_OF_RUN),
        settings=select_grn_settings("left_out_share", "min_targets", "n_targets", "repressing")
        | {
            "min_runs": CONFIG.grn.runs_needed,
            "promoter_p": CONFIG.grn.promoter_p if CONFIG.grn.promoters_prune else None,
        },
    script:
        "../scripts/make_regulons.py"


rule score_regulons:
    input:
        corpus=rules.make_corpus.output.manifest,
        expression=rules.choose_cells.output.expression,
        regulons=rules.make_regulons.output.regulons,
    output:
        directory(f"{GRN}/auc.zarr"),
    log:
        f"{LOGS}/score_regulons/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=scale_by_cells(4000, 500),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        settings=select_grn_settings("aucell_threshold"),
    script:
        "../scripts/score_regulons.py"


rule compare_regulons:
    input:
        activity=rules.score_regulons.output[0],
        cells=rules.join_cells.output[0],
        corpus=rules.make_corpus.output.manifest,
    output:
        specificity=report(
            f"{GRN}/specificity.tsv",
            category="2. Regulons",
            labels={"corpus": "{corpus}", "what": "specificity"},
            caption="../report/specificity.rst",
        ),
        figure=report(
            f"{GRN}/regulons.svg",
            category="2. Regulons",
            labels={"corpus": "{corpus}", "what": "activity"},
            caption="../report/regulons.rst",
        ),
    log:
        f"{LOGS}/compare_regulons/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=scale_by_cells(4000, 1000),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        labels=sorted({task.label for task in TASKS.values()}),
        seed=CONFIG.seed,
    script:
        "../scripts/compare_regulons.py"


# A loom file for SCope by pySCENIC's exporter: the cells of the inference and their activities.
rule export_loom:
    input:
        matrix=rules.write_matrix.output[0],
        gmt=rules.make_regulons.output.gmt,
        pilot=rules.time_inference.output[0],
    output:
        ensure(f"{GRN}/regulons.loom", non_empty=True),
    log:
        f"{LOGS}/export_loom/{{corpus}}.log",
    conda:
        "../../envs/grn.yaml"
    threads: 4
    resources:
        # pySCENIC ranks a dense matrix of the chosen cells: it was seen to take 20 bytes per value.
        mem_mb=lambda wildcards, input, attempt: size_dense(30, attempt, input.pilot),
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        settings=select_grn_settings("aucell_threshold"),
    script:
        "../scripts/export_loom.py"
