# The studies: each a figure and a table that a biologist would show.


rule make_study:
    input:
        corpus=follow(rules.join_corpus.output[0]),
        predictions=follow(rules.evaluate_task.output.predictions),
    output:
        table=report(
            f"{RESULTS}/studies/{{study}}/{{kind}}.tsv",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "table"},
            caption="../report/study.rst",
        ),
        figure=report(
            f"{RESULTS}/studies/{{study}}/{{kind}}.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "figure"},
            caption="../report/study.rst",
        ),
        png=f"{RESULTS}/studies/{{study}}/{{kind}}.png",
    log:
        f"{LOGS}/make_study/{{study}}_{{kind}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        study=settings_of("studies", "study"),
        label=lambda wildcards: TASKS[names_from(wildcards)["task"]]["label"],
        seed=config["seed"],
    script:
        "../scripts/make_study.py"
