# The studies: each a figure and a table that a biologist would show.


def task_output(rule_output):
    """The output of a rule on tasks, for the task of the wildcard `study`."""
    return lambda wildcards: rule_output.format(task=STUDIES[wildcards.study]["task"])


def corpus_of_study(wildcards):
    task = STUDIES[wildcards.study]["task"]
    return rules.join_corpus.output[0].format(corpus=corpus_of(task))


def embedding_of_study(wildcards):
    task = STUDIES[wildcards.study]["task"]
    return rules.embed.output[0].format(model=model_of(task), corpus=corpus_of(task))


rule make_study:
    input:
        corpus=corpus_of_study,
        embedding=embedding_of_study,
        predictions=task_output(rules.evaluate_task.output.predictions),
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
        label=lambda wildcards: TASKS[STUDIES[wildcards.study]["task"]]["label"],
        seed=1,
    script:
        "../scripts/make_study.py"
