# Fine-tuned models per fold and seed, baselines on the same splits, and their evaluation.

TASK = f"{RESULTS}/finetune/{{task}}"
RUN = f"{TASK}/{{variant}}/seed{{seed}}_fold{{fold}}"


# All methods read the same file of splits.
rule split_cells:
    input:
        cells=follow(rules.join_cells.output[0]),
        corpus=follow(rules.make_corpus.output.manifest),
    output:
        splits=ensure(f"{TASK}/splits.tsv", non_empty=True),
        left_out=report(
            f"{TASK}/classes_left_out.tsv",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "rare classes that are left out, table"},
            caption="../report/classes_left_out.rst",
        ),
    log:
        f"{LOGS}/split_cells/{{task}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=scale_by_cells(2000, 1500),
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        settings=select_task_settings(TaskSettings.split),
    script:
        "../scripts/split_cells.py"


# Once for all folds and seeds, if the encoder is not trained.
rule encode_cells:
    input:
        splits=rules.split_cells.output[0],
        tokens=follow(rules.write_tokens.output[0]),
        corpus=follow(rules.make_corpus.output.manifest),
        model=follow(rules.pretrain.output.weights),
    output:
        directory(f"{TASK}/encoded/{{variant}}.zarr"),
    log:
        f"{LOGS}/encode_cells/{{task}}_{{variant}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: choose_threads
    resources:
        gpu=1,
        mem_mb=scale_by_cells(8000, 500),
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        settings=select_encoding_settings,
        model=follow(PRETRAINED),
        # Not an output, because Snakemake would remove it before a killed job continues.
        unfinished=f"{TASK}/encoded/{{variant}}.parts",
    script:
        "../scripts/encode_cells.py"


rule finetune:
    input:
        splits=rules.split_cells.output[0],
        tokens=follow(rules.write_tokens.output[0]),
        corpus=follow(rules.make_corpus.output.manifest),
        model=follow(rules.pretrain.output.weights),
        encoded=expand_encoded(rules.encode_cells.output[0]),
    output:
        directory(f"{RUN}/model"),
    log:
        f"{LOGS}/finetune/{{task}}_{{variant}}_{{seed}}_{{fold}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: lambda wildcards: 1 if trains_head_only(wildcards) else choose_threads(wildcards)
    resources:
        gpu=lambda wildcards: 0 if trains_head_only(wildcards) else 1,
        mem_mb=scale_by_cells(10000, 5000),
        runtime=lambda wildcards, attempt: (120 if trains_head_only(wildcards) else 480) * attempt,
    params:
        settings=select_variant_settings,
        model=follow(PRETRAINED),
        checkpoints=f"{RUN}/checkpoints",
    script:
        "../scripts/finetune.py"


rule fit_baselines:
    input:
        splits=rules.split_cells.output[0],
        corpus=follow(rules.make_corpus.output.manifest),
        pca=follow(rules.compute_pca.output[0]),
    output:
        predictions=ensure(f"{TASK}/baselines/{{fold}}.parquet", non_empty=True),
        costs=f"{TASK}/baselines/{{fold}}.costs.tsv",
    log:
        f"{LOGS}/fit_baselines/{{task}}_{{fold}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 4
    resources:
        mem_mb=scale_by_cells(5000, 3000),
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        task=select_task_settings(lambda task: task.part(BaselineSettings)),
    script:
        "../scripts/fit_baselines.py"


# Apart from fit_baselines, so that adding a baseline does not remake the explanations, which
# compare drivers with the weights.
rule fit_weights:
    input:
        splits=rules.split_cells.output[0],
        corpus=follow(rules.make_corpus.output.manifest),
    output:
        ensure(f"{TASK}/baselines/{{fold}}.weights.tsv", non_empty=True),
    log:
        f"{LOGS}/fit_weights/{{task}}_{{fold}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=scale_by_cells(5000, 1000),
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        task=select_weight_settings,
    script:
        "../scripts/fit_weights.py"


# Runs only if the config has peers.
rule fit_scanvi:
    input:
        splits=rules.split_cells.output[0],
        corpus=follow(rules.make_corpus.output.manifest),
    output:
        predictions=f"{TASK}/scanvi/{{fold}}.parquet",
        costs=f"{TASK}/scanvi/{{fold}}.costs.tsv",
    log:
        f"{LOGS}/fit_scanvi/{{task}}_{{fold}}.log",
    conda:
        "../../envs/scvi.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=scale_by_cells(8000, 1000),
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        peers=CONFIG.peers and CONFIG.peers.model_dump(),
        seed=lambda wildcards: TASKS[wildcards.task].seed,
    script:
        "../scripts/fit_scanvi.py"


rule evaluate_task:
    input:
        splits=rules.split_cells.output[0],
        left_out=rules.split_cells.output.left_out,
        models=expand_all_runs(rules.finetune.output[0]),
        baselines=expand_baselines(rules.fit_baselines.output.predictions),
        scanvi=expand_folds(rules.fit_scanvi.output.predictions) if CONFIG.peers else [],
        costs=expand_baselines(rules.fit_baselines.output.costs),
        scanvi_costs=expand_folds(rules.fit_scanvi.output.costs) if CONFIG.peers else [],
    output:
        predictions=ensure(f"{TASK}/predictions.parquet", non_empty=True),
        runs=f"{TASK}/runs.parquet",
        metrics=f"{TASK}/metrics.json",
        scores=f"{TASK}/scores.tsv",
        classes=f"{TASK}/class_scores.tsv",
        efficiency=f"{TASK}/label_efficiency.tsv",
        novelty=f"{TASK}/novelty.tsv",
        summary=report(
            f"{TASK}/summary.tsv",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "scores of all methods, table"},
            caption="../report/task.rst",
        ),
        figure=report(
            f"{TASK}/task.svg",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "scores of all methods"},
            caption="../report/task.rst",
        ),
        png=f"{TASK}/task.png",
    log:
        f"{LOGS}/evaluate_task/{{task}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        # One run is in memory at a time, with the sums of one method's runs, cells x classes in
        # double precision; how many runs and methods there are does not matter.
        mem_mb=size_memory(3000, 10),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        task=select_task_settings(lambda task: task.part(EvaluationSettings)),
    script:
        "../scripts/evaluate_task.py"
