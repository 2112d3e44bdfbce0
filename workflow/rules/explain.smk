# Genes that decide the model's predictions (Integrated Gradients), and checks of the attributions.

EXPLANATION = f"{RESULTS}/explain/{{task}}"


rule explain:
    input:
        splits=rules.split_cells.output[0],
        tokens=follow(rules.write_tokens.output[0]),
        corpus=follow(rules.make_corpus.output.manifest),
        model=follow(rules.pretrain.output.weights),
        folds=expand_main_runs(rules.finetune.output[0]),
    output:
        attributions=ensure(f"{EXPLANATION}/attributions.tsv", non_empty=True),
        runs=f"{EXPLANATION}/runs.json",
    log:
        f"{LOGS}/explain/{{task}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: choose_threads
    resources:
        gpu=1,
        mem_mb=scale_by_cells(10000, 2000),
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        task=select_task_settings(TaskSettings.explanation),
        model=follow(PRETRAINED),
    script:
        "../scripts/explain.py"


rule rank_drivers:
    input:
        attributions=rules.explain.output.attributions,
        splits=rules.split_cells.output[0],
        corpus=follow(rules.make_corpus.output.manifest),
        regulons=follow(rules.make_regulons.output.regulons),
        weights=expand_folds(rules.fit_weights.output[0]),
        gene_sets=lambda wildcards: TASKS[wildcards.task].gene_sets or [],
    output:
        rankings=f"{EXPLANATION}/rankings.tsv",
        drivers=report(
            f"{EXPLANATION}/drivers.tsv",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "drivers, table"},
            caption="../report/drivers.rst",
        ),
        regulons=report(
            f"{EXPLANATION}/regulons.tsv",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "regulons' attribution, table"},
            caption="../report/regulon_attribution.rst",
        ),
        gene_sets=f"{EXPLANATION}/gene_sets.tsv",
    log:
        f"{LOGS}/rank_drivers/{{task}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=scale_by_cells(5000, 1000),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        sizes=lambda wildcards: measure_sizes(NAMED.get(f"tasks.{wildcards.task}.gene_sets", [])),
        seed=CONFIG.seed,
    script:
        "../scripts/rank_drivers.py"


rule check_explanation:
    input:
        runs=rules.explain.output.runs,
        rankings=rules.rank_drivers.output.rankings,
        splits=rules.split_cells.output[0],
        tokens=follow(rules.write_tokens.output[0]),
        corpus=follow(rules.make_corpus.output.manifest),
        model=follow(rules.pretrain.output.weights),
        folds=expand_main_runs(rules.finetune.output[0]),
    output:
        checks=f"{EXPLANATION}/checks.json",
        curves=f"{EXPLANATION}/deletion.tsv",
    log:
        f"{LOGS}/check_explanation/{{task}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: choose_threads
    resources:
        gpu=1,
        mem_mb=scale_by_cells(10000, 2000),
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        task=select_task_settings(TaskSettings.checks),
        model=follow(PRETRAINED),
    script:
        "../scripts/check_explanation.py"


rule perturb_in_silico:
    input:
        rankings=rules.rank_drivers.output.rankings,
        regulons=follow(rules.make_regulons.output.regulons),
        corpus=follow(rules.make_corpus.output.manifest),
        cells=find_measured_cells,
        tokens=follow(rules.write_tokens.output[0]),
        model=follow(rules.pretrain.output.weights),
        folds=expand_main_runs(rules.finetune.output[0]),
    output:
        effects=report(
            f"{EXPLANATION}/in_silico.tsv",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "in-silico perturbation, table"},
            caption="../report/in_silico.rst",
        ),
        cells=f"{EXPLANATION}/in_silico_cells.tsv",
        measured=f"{EXPLANATION}/in_silico_measured.tsv",
        expression=report(
            f"{EXPLANATION}/in_silico_expression.tsv",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "expression after in-silico perturbation, table"},
            caption="../report/in_silico_expression.rst",
        ),
        knockout=f"{EXPLANATION}/in_silico_knockout.tsv",
    log:
        f"{LOGS}/perturb_in_silico/{{task}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: choose_threads
    resources:
        gpu=1,
        mem_mb=scale_by_cells(10000, 2000),
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        task=select_task_settings(TaskSettings.perturbations),
        model=follow(PRETRAINED),
    script:
        "../scripts/perturb_in_silico.py"


rule plot_explanation:
    input:
        drivers=rules.rank_drivers.output.drivers,
        regulons=rules.rank_drivers.output.regulons,
        checks=rules.check_explanation.output.checks,
        curves=rules.check_explanation.output.curves,
        effects=rules.perturb_in_silico.output.effects,
        measured=rules.perturb_in_silico.output.measured,
        knockout=rules.perturb_in_silico.output.knockout,
    output:
        drivers=report(
            f"{EXPLANATION}/drivers.svg",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "drivers"},
            caption="../report/drivers.rst",
        ),
        regulons=report(
            f"{EXPLANATION}/regulons.svg",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "regulons' attribution"},
            caption="../report/regulon_attribution.rst",
        ),
        checks=report(
            f"{EXPLANATION}/checks.svg",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "checks of the explanation"},
            caption="../report/explanation_checks.rst",
        ),
        in_silico=report(
            f"{EXPLANATION}/in_silico.svg",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "in-silico perturbation"},
            caption="../report/in_silico.rst",
        ),
        drivers_png=f"{EXPLANATION}/drivers.png",
        regulons_png=f"{EXPLANATION}/regulons.png",
        checks_png=f"{EXPLANATION}/checks.png",
        in_silico_png=f"{EXPLANATION}/in_silico.png",
    log:
        f"{LOGS}/plot_explanation/{{task}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    script:
        "../scripts/plot_explanation.py"
