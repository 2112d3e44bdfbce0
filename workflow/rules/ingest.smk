# Preflight, counts over the vocabulary, quality control, and the corpus of all samples.

WINDOWS = {key: getattr(CONFIG.reference, key) for key in ("upstream", "downstream")}
# Thresholds that a sample must pass to be ingested.
THRESHOLDS_OF_INPUT = CONFIG.ingest.part(InputThresholds).model_dump()
# Priority of the checks of the input, above that of all other jobs.
FIRST = 10


# Failed checks are written to the table and do not stop the job, so that all samples are checked;
# ingest_sample refuses a sample with a failed check.
rule examine_sample:
    input:
        files=lambda wildcards: list_files(wildcards.sample),
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
        # Only the beginning of large files is read into memory.
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sizes=lambda wildcards: measure_sizes([*list_files(wildcards.sample), *TRANSLATION]),
        row=lambda wildcards: select_row(wildcards.sample),
        windows=WINDOWS,
        thresholds=THRESHOLDS_OF_INPUT,
    script:
        "../scripts/examine_sample.py"


# Compares a corpus' metadata tables with the barcodes of all its samples, to detect exchanged
# tables. Failed checks are written to the table; join_cells refuses them.
rule examine_metadata:
    input:
        matrices=lambda wildcards: list_matrices(list_samples(wildcards.corpus)),
        metadata=lambda wildcards: list_metadata(list_samples(wildcards.corpus)),
    output:
        ensure(f"{RESULTS}/corpus/{{corpus}}.metadata.tsv", non_empty=True),
    log:
        f"{LOGS}/examine_metadata/{{corpus}}.log",
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        # The barcodes of all samples, and the tables as text.
        mem_mb=lambda wildcards, input, attempt: ceil(
            size_memory(3000, metadata=20)(wildcards, input, attempt)
            + attempt * 20 * len(input.matrices)
        ),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sizes=lambda wildcards: measure_sizes(
            [
                *list_matrices(list_samples(wildcards.corpus)),
                *list_metadata(list_samples(wildcards.corpus)),
            ]
        ),
        rows=lambda wildcards: [select_row(sample) for sample in list_samples(wildcards.corpus)],
        metadata=lambda wildcards: SAMPLES.loc[list_samples(wildcards.corpus), "metadata"].to_dict(),
        min_overlap=CONFIG.ingest.min_metadata_overlap,
    script:
        "../scripts/examine_metadata.py"


ALL_FILES = sorted({file for sample in SAMPLES.index for file in list_files(sample)})


# Gathers all findings, also if checks failed.
rule gather_preflight:
    input:
        samples=expand(rules.examine_sample.output[0], sample=SAMPLES.index),
        metadata=[path for corpus in CORPORA for path in list_metadata_findings(corpus)],
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
        rows=[select_row(sample) for sample in SAMPLES.index],
        corpora={corpus: list_samples(corpus) for corpus in CORPORA},
        # The upper bound of a model's cost does not depend on the selected cells.
        models={
            name: model.model_copy(update={"cells": {}}).without_hardware()
            for name, model in MODELS.items()
        },
        tasks={
            name: task.part(EvaluationSettings).without_hardware() for name, task in TASKS.items()
        },
    script:
        "../scripts/gather_preflight.py"


# A target that checks the input and fails if a check failed.
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
        files=lambda wildcards: list_files(wildcards.sample),
        preflight=rules.examine_sample.output[0],
        genes=rules.build_vocabulary.output[0],
        translation=TRANSLATION,
    output:
        cells=directory(f"{RESULTS}/ingest/{{sample}}.zarr"),
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
        mem_mb=size_ingestion,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        sizes=lambda wildcards: measure_sizes([*list_files(wildcards.sample), *TRANSLATION]),
        row=lambda wildcards: select_row(wildcards.sample),
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
        mem_mb=size_memory(2000, 20),
        runtime=10,
    params:
        qc=CONFIG.ingest.qc.model_dump(),
    script:
        "../scripts/plot_qc.py"


# A corpus is a list of samples, whose counts stay where ingestion wrote them.
rule make_corpus:
    input:
        samples=lambda wildcards: expand(
            rules.ingest_sample.output.cells, sample=list_samples(wildcards.corpus)
        ),
    output:
        manifest=ensure(f"{RESULTS}/corpus/{{corpus}}/manifest.json", non_empty=True),
        obs=ensure(f"{RESULTS}/corpus/{{corpus}}/obs.parquet", non_empty=True),
    log:
        f"{LOGS}/make_corpus/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        # Hashes of the cells' names, and the table of one sample.
        mem_mb=scale_by_cells(1500, 300),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        folder=f"{RESULTS}/corpus/{{corpus}}",
    script:
        "../scripts/make_corpus.py"


rule compute_pca:
    input:
        corpus=rules.make_corpus.output.manifest,
    output:
        directory(f"{RESULTS}/corpus/{{corpus}}/pca.zarr"),
    log:
        f"{LOGS}/compute_pca/{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    threads: 2
    resources:
        mem_mb=scale_by_cells(3000, 1000),
        runtime=lambda wildcards, attempt: 120 * attempt,
    script:
        "../scripts/compute_pca.py"


# Labels, covariates and positions are joined late: correcting one remakes only the outputs that
# depend on this table, and no counts, regulons or pretrained models.
rule join_cells:
    input:
        samples=lambda wildcards: expand(
            rules.ingest_sample.output.cells, sample=list_samples(wildcards.corpus)
        ),
        qc=lambda wildcards: expand(
            rules.ingest_sample.output.qc, sample=list_samples(wildcards.corpus)
        ),
        metadata=lambda wildcards: list_metadata(list_samples(wildcards.corpus)),
        examined=lambda wildcards: list_metadata_findings(wildcards.corpus),
    output:
        ensure(CELLS, non_empty=True),
    log:
        f"{LOGS}/join_cells/{{corpus}}.log",
    # Unsuitable tables are refused before regulons are inferred.
    priority: FIRST
    conda:
        "../../envs/analysis.yaml"
    resources:
        # The table of all cells as text, 1.2 kB per cell with six columns, and the metadata.
        mem_mb=lambda wildcards, input, attempt: (
            scale_by_cells(2000, 2500)(wildcards, input, attempt)
            + size_memory(0, metadata=20)(wildcards, input, attempt)
        ),
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        sizes=lambda wildcards: measure_sizes(list_metadata(list_samples(wildcards.corpus))),
        covariates=lambda wildcards: (
            SAMPLES.loc[list_samples(wildcards.corpus), COVARIATES].to_dict("index")
        ),
        metadata=lambda wildcards: (
            SAMPLES.loc[list_samples(wildcards.corpus), "metadata"].to_dict()
        ),
        min_overlap=CONFIG.ingest.min_metadata_overlap,
    script:
        "../scripts/join_cells.py"
