# Scores of all parts, comparison with the truth if it is known, and provenance.


# One table of weights per explained task and fold.
WEIGHTS = [(task, fold) for task in EXPLAINED for fold in list_folds(task)]
# What is compared with the truth of a simulation; other studies would read much for nothing.
COMPARED = {
    "truth": TRUTH,
    "adjacencies": expand(rules.merge_adjacencies.output.table, corpus=CORPORA),
    "regulons": expand(rules.make_regulons.output.regulons, corpus=CORPORA),
    "corpora": expand(rules.make_corpus.output.manifest, corpus=CORPORA),
    "predictions": expand(rules.evaluate_task.output.predictions, task=TASKS),
    "runs": expand(rules.evaluate_task.output.runs, task=TASKS),
    "attributions": expand(rules.explain.output.attributions, task=EXPLAINED),
    "weights": [rules.fit_weights.output[0].format(task=task, fold=fold) for task, fold in WEIGHTS],
}


rule score:
    input:
        **(COMPARED if CONFIG.simulation else dict.fromkeys(COMPARED, [])),
        metrics=expand(rules.evaluate_task.output.metrics, task=TASKS),
        pretraining=expand(rules.pretrain.output.scores, model=MODELS),
        embeddings=[
            rules.judge_embedding.output.scores.format(model=model, corpus=content.corpus)
            for model, content in MODELS.items()
        ],
        stability=expand(rules.make_regulons.output.stability, corpus=CORPORA),
        checks=expand(rules.check_explanation.output.checks, task=EXPLAINED),
    output:
        scores=ensure(f"{RESULTS}/scores.json", non_empty=True),
        table=report(
            f"{RESULTS}/scores.html",
            category="0. Summary",
            labels={"what": "scores"},
            caption="../report/scores.rst",
        ),
    log:
        f"{LOGS}/score.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=size_memory(4000, 10),
        runtime=lambda wildcards, attempt: 15 * attempt,
    params:
        tasks=list(TASKS),
        explained=EXPLAINED,
        models=list(MODELS),
        corpora=list(CORPORA),
        # Tasks and names of the inputs `weights` and `truth`, in their order.
        weights=[task for task, _ in WEIGHTS],
        truth=TRUTH_TABLES,
        seed=CONFIG.seed,
    script:
        "../scripts/score.py"


# Lists the installed packages of an environment, which may differ from its definition in envs/.
rule list_packages:
    input:
        BASE / "envs/{environment}.yaml",
    output:
        f"{RESULTS}/provenance/{{environment}}.txt",
    log:
        f"{LOGS}/list_packages/{{environment}}.log",
    localrule: True
    conda:
        "../../envs/{environment}.yaml"
    script:
        "../scripts/list_packages.py"


# Outputs that store the version of the code that wrote them, by rule.
STAMPED = {
    "ingest_sample": expand(rules.ingest_sample.output.cells, sample=SAMPLES.index),
    "make_corpus": expand(rules.make_corpus.output.manifest, corpus=CORPORA),
    "choose_cells": expand(rules.choose_cells.output.expression, corpus=CORPORA),
    "score_regulons": expand(rules.score_regulons.output[0], corpus=CORPORA),
    "write_tokens": expand(rules.write_tokens.output[0], corpus=CORPORA),
    "pretrain": expand(rules.pretrain.output.config, model=MODELS),
    "embed": [
        rules.embed.output[0].format(model=model, corpus=content.corpus)
        for model, content in MODELS.items()
    ],
    "encode_cells": [
        rules.encode_cells.output[0].format(task=task, variant=variant)
        for task in TASKS
        for variant in TASKS[task].all_variants()
        if find_encoded(task, variant) == variant
    ],
    "finetune": [
        folder
        for task in TASKS
        for folder in expand_runs(rules.finetune.output[0], task, TASKS[task].all_variants())
    ],
    "fit_baselines": [
        path
        for task in TASKS
        if TASKS[task].baselines
        for path in expand(rules.fit_baselines.output.predictions, task=task, fold=list_folds(task))
    ],
    "evaluate_task": expand(rules.evaluate_task.output.predictions, task=TASKS),
}


rule write_provenance:
    input:
        scores=rules.score.output.scores,
        sheet=CONFIG.samples,
        environments=expand(rules.list_packages.output[0], environment=ENVIRONMENTS),
        models=expand(rules.pretrain.output.config, model=MODELS),
        stamped=[path for paths in STAMPED.values() for path in paths],
        hashed=[
            rules.build_vocabulary.output[0],
            *expand(rules.make_corpus.output.manifest, corpus=CORPORA),
            *expand(rules.write_tokens.output[0], corpus=CORPORA),
            *expand(rules.make_regulons.output.regulons, corpus=CORPORA),
            *expand(rules.pretrain.output.weights, model=MODELS),
            *expand(rules.split_cells.output[0], task=TASKS),
            *expand(rules.evaluate_task.output.predictions, task=TASKS),
        ],
    output:
        provenance=f"{RESULTS}/provenance.json",
        page=report(
            f"{RESULTS}/provenance.html",
            category="0. Summary",
            labels={"what": "provenance"},
            caption="../report/provenance.rst",
        ),
    log:
        f"{LOGS}/write_provenance.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        config=config,
        repository=lambda wildcards: str(BASE),
        snakemake=snakemake_version,
        stamped=STAMPED,
    script:
        "../scripts/write_provenance.py"
