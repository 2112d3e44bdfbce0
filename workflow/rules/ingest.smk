# Raw files to counts over the vocabulary, quality control, and the samples joined.

WINDOWS = {key: getattr(CONFIG.reference, key) for key in ("upstream", "downstream")}
# What a sample must reach to be ingested.
THRESHOLDS_OF_INPUT = CONFIG.ingest.part(InputThresholds).model_dump()
# Looked at before anything is computed, and before the other jobs that are ready.
FIRST = 10


# One sample's files. What is wrong is written down, so that the others' are looked at too; the
# sample's ingestion then refuses.
rule examine_sample:
    input:
        files=lambda wildcards: files_of(wildcards.sample),
        genes=rules.build_vocabulary.output[0],
        translation=TRANSLATION,
    output:
        ensure(f"{RESULTS}/ingest/{{sample}}.preflight.tsv", non_empty=True),
    log:
        f"{LOGS}/examine_sample/{{sample}}.log",
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sizes=lambda wildcards: sizes([*files_of(wildcards.sample), *TRANSLATION]),
        row=lambda wildcards: row_of(wildcards.sample),
        windows=WINDOWS,
        thresholds=THRESHOLDS_OF_INPUT,
    script:
        "../scripts/examine_sample.py"


# A corpus' tables of cells beside all its samples' barcodes, so that exchanged tables are named.
# What is wrong is written down here, too; join_cells then refuses.
rule examine_metadata:
    input:
        matrices=lambda wildcards: matrices_of(samples_of(wildcards.corpus)),
        metadata=lambda wildcards: metadata_of(samples_of(wildcards.corpus)),
    output:
        ensure(f"{RESULTS}/corpus/{{corpus}}.metadata.tsv", non_empty=True),
    log:
        f"{LOGS}/examine_metadata/{{corpus}}.log",
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sizes=lambda wildcards: sizes(
            [
                *matrices_of(samples_of(wildcards.corpus)),
                *metadata_of(samples_of(wildcards.corpus)),
            ]
        ),
        rows=lambda wildcards: [row_of(sample) for sample in samples_of(wildcards.corpus)],
        metadata=lambda wildcards: SAMPLES.loc[samples_of(wildcards.corpus), "metadata"].to_dict(),
        min_overlap=CONFIG.ingest.min_metadata_overlap,
    script:
        "../scripts/examine_metadata.py"


ALL_FILES = sorted({file for sample in SAMPLES.index for file in files_of(sample)})


# All that was found out, also where something is wrong.
rule gather_preflight:
    input:
        samples=expand(rules.examine_sample.output[0], sample=SAMPLES.index),
        metadata=[path for corpus in CORPORA for path in examined_metadata(corpus)],
        files=ALL_FILES,
        genes=rules.build_vocabulary.output[0],
    output:
        table=f"{RESULTS}/preflight.tsv",
        page=report(
            f"{RESULTS}/preflight.html",
            category="0. Summary",
            labels={"what": "input"},
            caption="../report/preflight.rst",
        ),
    log:
        f"{LOGS}/gather_preflight.log",
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        rows=[row_of(sample) for sample in SAMPLES.index],
        corpora={corpus: samples_of(corpus) for corpus in CORPORA},
        # Which cells a model is pretrained on changes nothing about what it costs at most.
        models={
            name: model.model_copy(update={"cells": {}}).without_hardware()
            for name, model in MODELS.items()
        },
        tasks={
            name: task.part(EvaluationSettings).without_hardware() for name, task in TASKS.items()
        },
    script:
        "../scripts/gather_preflight.py"


# A target: look at the input, and stop where it is wrong.
rule preflight:
    input:
        gathered=rules.gather_preflight.output.table,
        files=ALL_FILES,
    log:
        f"{LOGS}/preflight.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    script:
        "../scripts/preflight.py"


rule ingest_sample:
    input:
        files=lambda wildcards: files_of(wildcards.sample),
        preflight=rules.examine_sample.output[0],
        genes=rules.build_vocabulary.output[0],
        translation=TRANSLATION,
    output:
        cells=ensure(f"{RESULTS}/ingest/{{sample}}.h5ad", non_empty=True),
        qc=report(
            f"{RESULTS}/ingest/{{sample}}.qc.tsv",
            category="1. Data",
            subcategory="Quality control",
            labels={"sample": "{sample}", "what": "table"},
            caption="../report/qc_table.rst",
        ),
    log:
        f"{LOGS}/ingest_sample/{{sample}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        sizes=lambda wildcards: sizes([*files_of(wildcards.sample), *TRANSLATION]),
        row=lambda wildcards: row_of(wildcards.sample),
        windows=WINDOWS,
        thresholds=THRESHOLDS_OF_INPUT,
        qc=CONFIG.ingest.qc.model_dump(),
        seed=CONFIG.seed,
    script:
        "../scripts/ingest_sample.py"


rule plot_qc:
    input:
        rules.ingest_sample.output.qc,
    output:
        report(
            f"{RESULTS}/ingest/{{sample}}.qc.svg",
            category="1. Data",
            subcategory="Quality control",
            labels={"sample": "{sample}", "what": "figure"},
            caption="../report/qc.rst",
        ),
    log:
        f"{LOGS}/plot_qc/{{sample}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        qc=CONFIG.ingest.qc.model_dump(),
    script:
        "../scripts/plot_qc.py"


rule join_corpus:
    input:
        lambda wildcards: expand(
            rules.ingest_sample.output.cells, sample=samples_of(wildcards.corpus)
        ),
    output:
        ensure(f"{RESULTS}/corpus/{{corpus}}.h5ad", non_empty=True),
    log:
        f"{LOGS}/join_corpus/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 16000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    script:
        "../scripts/join_corpus.py"


# Labels, covariates and positions join the cells here: correcting one remakes what reads this table,
# and neither counts, regulons nor the pretrained model.
rule join_cells:
    input:
        samples=lambda wildcards: expand(
            rules.ingest_sample.output.cells, sample=samples_of(wildcards.corpus)
        ),
        qc=lambda wildcards: expand(
            rules.ingest_sample.output.qc, sample=samples_of(wildcards.corpus)
        ),
        metadata=lambda wildcards: metadata_of(samples_of(wildcards.corpus)),
        examined=lambda wildcards: examined_metadata(wildcards.corpus),
    output:
        ensure(CELLS, non_empty=True),
    log:
        f"{LOGS}/join_cells/{{corpus}}.log",
    # A table that is refused is refused before regulons are inferred.
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sizes=lambda wildcards: sizes(metadata_of(samples_of(wildcards.corpus))),
        covariates=lambda wildcards: (
            SAMPLES.loc[samples_of(wildcards.corpus), COVARIATES].to_dict("index")
        ),
        metadata=lambda wildcards: (SAMPLES.loc[samples_of(wildcards.corpus), "metadata"].to_dict()),
        min_overlap=CONFIG.ingest.min_metadata_overlap,
    script:
        "../scripts/join_cells.py"
