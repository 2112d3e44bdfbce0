# Which genes made the model call a class: Integrated Gradients, and how far to trust them.


rule explain:
    input:
        splits=rules.split_cells.output[0],
        tokens=follow(rules.write_tokens.output[0]),
        model=follow(rules.pretrain.output.weights),
        folds=main_runs(rules.finetune.output[0]),
    output:
        attributions=f"{RESULTS}/explain/{{task}}/attributions.tsv",
        checks=f"{RESULTS}/explain/{{task}}/checks.json",
    log:
        f"{LOGS}/explain/{{task}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 480 * attempt,
    params:
        task=settings_of("tasks", "task"),
    script:
        "../scripts/explain.py"


rule plot_drivers:
    input:
        attributions=rules.explain.output.attributions,
        checks=rules.explain.output.checks,
    output:
        figure=report(
            f"{RESULTS}/explain/{{task}}/drivers.svg",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "drivers"},
            caption="../report/drivers.rst",
        ),
        table=report(
            f"{RESULTS}/explain/{{task}}/drivers.tsv",
            category="4. Tasks",
            subcategory="{task}",
            labels={"task": "{task}", "what": "drivers, table"},
            caption="../report/drivers.rst",
        ),
    log:
        f"{LOGS}/plot_drivers/{{task}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    script:
        "../scripts/plot_drivers.py"
