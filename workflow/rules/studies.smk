# Studies: figures and tables from the predictions of a task.

STUDY = f"{RESULTS}/studies/{{study}}"


rule make_development:
    input:
        corpus=follow(rules.make_corpus.output.manifest),
        pca=follow(rules.compute_pca.output[0]),
        cells=follow(rules.join_cells.output[0]),
        predictions=follow(rules.evaluate_task.output.predictions),
    output:
        maps=report(
            f"{STUDY}/development.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "maps"},
            caption="../report/development_maps.rst",
        ),
        trends_figure=report(
            f"{STUDY}/pseudotime.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "fates along pseudotime"},
            caption="../report/pseudotime.rst",
        ),
        table=report(
            f"{STUDY}/development.tsv",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "cells, table"},
            caption="../report/development_maps.rst",
        ),
        trends=report(
            f"{STUDY}/pseudotime.tsv",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "fates along pseudotime, table"},
            caption="../report/pseudotime.rst",
        ),
        view=report(
            f"{STUDY}/view.html",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "interactive map"},
            caption="../report/view.rst",
        ),
        maps_png=f"{STUDY}/development.png",
        trends_png=f"{STUDY}/pseudotime.png",
    log:
        f"{LOGS}/make_development/{{study}}.log",
    wildcard_constraints:
        study=match_studies("development"),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=size_memory(4000, 30),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        study=select_study_settings,
        label=lambda wildcards: TASKS[resolve_names(wildcards)["task"]].label,
        single_modality=find_single_modality_methods,
        modalities=name_modalities,
        seed=CONFIG.seed,
    script:
        "../scripts/make_development.py"


rule plot_driver_trends:
    input:
        corpus=follow(rules.make_corpus.output.manifest),
        table=rules.make_development.output.table,
        drivers=follow(rules.rank_drivers.output.drivers),
    output:
        figure=report(
            f"{STUDY}/drivers.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "drivers along pseudotime"},
            caption="../report/driver_trends.rst",
        ),
        png=f"{STUDY}/drivers.png",
    log:
        f"{LOGS}/plot_driver_trends/{{study}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=scale_by_cells(4000, 1000),
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        modalities=name_modalities,
    script:
        "../scripts/plot_driver_trends.py"


rule make_spatial:
    input:
        cells=follow(rules.join_cells.output[0]),
        predictions=follow(rules.evaluate_task.output.predictions),
    output:
        maps=report(
            f"{STUDY}/spatial.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "maps"},
            caption="../report/section_maps.rst",
        ),
        coherence=report(
            f"{STUDY}/coherence.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "order on the section"},
            caption="../report/coherence.rst",
        ),
        table=report(
            f"{STUDY}/spatial.tsv",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "order on the section, table"},
            caption="../report/coherence.rst",
        ),
        view=report(
            f"{STUDY}/view.html",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "interactive map"},
            caption="../report/view.rst",
        ),
        maps_png=f"{STUDY}/spatial.png",
        coherence_png=f"{STUDY}/coherence.png",
    log:
        f"{LOGS}/make_spatial/{{study}}.log",
    wildcard_constraints:
        study=match_studies("spatial"),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=size_memory(4000, 30),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        study=select_study_settings,
        label=lambda wildcards: TASKS[resolve_names(wildcards)["task"]].label,
        seed=CONFIG.seed,
    script:
        "../scripts/make_spatial.py"


rule make_perturbation:
    input:
        corpus=follow(rules.make_corpus.output.manifest),
        pca=follow(rules.compute_pca.output[0]),
        cells=follow(rules.join_cells.output[0]),
        predictions=follow(rules.evaluate_task.output.predictions),
        drivers=find_drivers,
    output:
        figure=report(
            f"{STUDY}/perturbation.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "composition"},
            caption="../report/composition.rst",
        ),
        maps=report(
            f"{STUDY}/maps.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "maps"},
            caption="../report/perturbation_maps.rst",
        ),
        genes_figure=report(
            f"{STUDY}/genes.svg",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "genes"},
            caption="../report/changed_genes.rst",
        ),
        table=report(
            f"{STUDY}/perturbation.tsv",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "composition, table"},
            caption="../report/composition.rst",
        ),
        by_sample=report(
            f"{STUDY}/composition.tsv",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "composition by sample, table"},
            caption="../report/composition.rst",
        ),
        genes=report(
            f"{STUDY}/genes.tsv",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "genes, table"},
            caption="../report/changed_genes.rst",
        ),
        view=report(
            f"{STUDY}/view.html",
            category="5. Studies",
            subcategory="{study}",
            labels={"study": "{study}", "what": "interactive map"},
            caption="../report/view.rst",
        ),
        png=f"{STUDY}/perturbation.png",
        maps_png=f"{STUDY}/maps.png",
        genes_png=f"{STUDY}/genes.png",
    log:
        f"{LOGS}/make_perturbation/{{study}}.log",
    wildcard_constraints:
        study=match_studies("perturbation"),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=size_memory(4000, 30),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        study=select_study_settings,
        label=lambda wildcards: TASKS[resolve_names(wildcards)["task"]].label,
        seed=CONFIG.seed,
    script:
        "../scripts/make_perturbation.py"
