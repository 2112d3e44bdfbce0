# Fine-tuning with LoRA in folds, logistic regression on the same folds, and their scores.

TASK = f"{RESULTS}/finetune/{{task}}"


# The split is a file, made before anything is fitted.
rule split_cells:
    input:
        follow(rules.join_corpus.output[0]),
    output:
        f"{TASK}/splits.tsv",
    log:
        f"{LOGS}/split_cells/{{task}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        task=settings_of("tasks", "task"),
    script:
        "../scripts/split_cells.py"


rule finetune:
    input:
        splits=rules.split_cells.output[0],
        tokens=follow(rules.write_tokens.output[0]),
        model=follow(rules.pretrain.output.weights),
    output:
        directory(f"{TASK}/{{fold}}/model"),
    log:
        f"{LOGS}/finetune/{{task}}_{{fold}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        task=settings_of("tasks", "task"),
        checkpoints=f"{TASK}/{{fold}}/checkpoints",
    script:
        "../scripts/finetune.py"


rule fit_logistic_regression:
    input:
        splits=rules.split_cells.output[0],
        corpus=follow(rules.join_corpus.output[0]),
    output:
        predictions=f"{TASK}/{{fold}}/logistic_regression.tsv",
        weights=f"{TASK}/{{fold}}/logistic_regression_weights.tsv",
    log:
        f"{LOGS}/fit_logistic_regression/{{task}}_{{fold}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
    script:
        "../scripts/fit_logistic_regression.py"


rule evaluate_task:
    input:
        models=all_folds(rules.finetune.output[0]),
        baselines=all_folds(rules.fit_logistic_regression.output.predictions),
    output:
        predictions=f"{TASK}/predictions.tsv",
        metrics=f"{TASK}/metrics.json",
        figure=report(
            f"{TASK}/calls.svg",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "calls and scores"},
            caption="../report/calls.rst",
        ),
    log:
        f"{LOGS}/evaluate_task/{{task}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 15 * attempt,
    script:
        "../scripts/evaluate_task.py"


# Asked for only where the config has peers.
rule fit_scanvi:
    input:
        splits=rules.split_cells.output[0],
        corpus=follow(rules.join_corpus.output[0]),
    output:
        f"{TASK}/scanvi/{{fold}}.tsv",
    log:
        f"{LOGS}/fit_scanvi/{{task}}_{{fold}}.log",
    conda:
        "../../envs/scvi.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        peers=config["peers"],
        seed=config["seed"],
    script:
        "../scripts/fit_scanvi.py"
