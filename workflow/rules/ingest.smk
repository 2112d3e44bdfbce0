# Raw files to counts over the vocabulary, quality control, and the samples joined.


rule preflight:
    input:
        files=[path for files in map(files_of, SAMPLES.index) for path in sum(files.values(), [])],
        genes=rules.build_vocabulary.output[0],
        translation=TRANSLATION,
    output:
        table=f"{RESULTS}/preflight.tsv",
        page=report(
            f"{RESULTS}/preflight.html",
            category="0. Summary",
            labels={"what": "input"},
            caption="../report/preflight.rst",
        ),
    log:
        f"{LOGS}/preflight.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        rows=SAMPLES.to_dict("records"),
        corpora={corpus: samples_of(corpus) for corpus in CORPORA},
        models=MODELS,
        tasks=TASKS,
        upstream=config["reference"]["upstream"],
        downstream=config["reference"]["downstream"],
        thresholds={
            key: config["ingest"][key]
            for key in ("min_gene_overlap", "min_barcode_overlap", "min_promoter_enrichment")
        },
    script:
        "../scripts/preflight.py"


rule ingest_sample:
    input:
        unpack(lambda wildcards: files_of(wildcards.sample)),
        # Another sample's check does not make this one anew.
        preflight=ancient(rules.preflight.output.table),
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
        row=lambda wildcards: SAMPLES.loc[wildcards.sample].to_dict(),
        upstream=config["reference"]["upstream"],
        downstream=config["reference"]["downstream"],
        ingest=config["ingest"],
        seed=config["seed"],
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
        qc=config["ingest"]["qc"],
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
