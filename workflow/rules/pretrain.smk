# Pretraining, the embedding of every cell, and embeddings to compare it with.

LABELS = sorted({task.label for task in TASKS.values()})
BATCH = CONFIG.peers.batch if CONFIG.peers else "sample"


# Folder of a pretrained model, for scripts that read or write several of its files.
PRETRAINED = f"{RESULTS}/pretrain/{{model}}"


rule pretrain:
    input:
        tokens=follow(rules.write_tokens.output[0]),
        corpus=follow(rules.make_corpus.output.manifest),
        # Only if the selection of cells needs columns of the metadata.
        cells=find_model_cells,
    output:
        weights=ensure(f"{PRETRAINED}/model.safetensors", non_empty=True),
        config=f"{PRETRAINED}/config.json",
        vocabulary=f"{PRETRAINED}/vocabulary.tsv",
        metrics=f"{PRETRAINED}/metrics.jsonl",
        scores=f"{PRETRAINED}/scores.json",
    log:
        f"{LOGS}/pretrain/{{model}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 8
    resources:
        gpu=set_on_one_node("{gpus}"),
        # On several nodes, Slurm's executor starts the script on one node ("mpi"), and the script
        # starts the processes on the others. GPUs are then counted per node.
        gres=set_on_several_nodes("gpu:{gpus}"),
        nodes=set_on_several_nodes("{nodes}"),
        tasks=set_on_several_nodes("{nodes}"),
        tasks_per_gpu=set_on_several_nodes("0"),
        mpi=set_on_several_nodes("srun"),
        # Every process of a node has a model and reads cells.
        mem_mb=lambda wildcards, input, attempt: (
            max(1, MODELS[wildcards.model].gpus)
            * scale_by_cells(10000, 2000)(wildcards, input, attempt)
        ),
        runtime=lambda wildcards, attempt: 1440 * attempt,
    params:
        settings=select_model_settings,
        cells=select_model_cells,
        batches=select_batches,
        # Not an output, because Snakemake would remove it before a killed run continues.
        checkpoints=f"{PRETRAINED}/checkpoints",
        folder=follow(PRETRAINED),
    script:
        "../scripts/pretrain.py"


rule plot_training:
    input:
        metrics=rules.pretrain.output.metrics,
        scores=rules.pretrain.output.scores,
    output:
        report(
            f"{PRETRAINED}/training.svg",
            category="3. Model",
            labels={"model": "{model}", "what": "pretraining"},
            caption="../report/training.rst",
        ),
    log:
        f"{LOGS}/plot_training/{{model}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=2000,
        runtime=10,
    script:
        "../scripts/plot_training.py"


rule embed:
    input:
        tokens=rules.write_tokens.output[0],
        corpus=rules.make_corpus.output.manifest,
        model=rules.pretrain.output.weights,
        config=rules.pretrain.output.config,
    output:
        directory(f"{RESULTS}/embed/{{model}}/{{corpus}}.zarr"),
    log:
        f"{LOGS}/embed/{{model}}_{{corpus}}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=scale_by_cells(8000, 500),
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        model=follow(PRETRAINED),
        # Not an output, because Snakemake would remove it before a killed job continues.
        unfinished=f"{RESULTS}/embed/{{model}}/{{corpus}}.parts",
    script:
        "../scripts/embed.py"


# Embeddings are compared on a draw of the cells, the same for each, of labelled cells first.
# embed_scvi and score_spaces run only if the config has peers.
rule embed_scvi:
    input:
        corpus=rules.make_corpus.output.manifest,
        cells=rules.join_cells.output[0],
    output:
        f"{RESULTS}/embed/{{corpus}}.scvi.h5ad",
    log:
        f"{LOGS}/embed_scvi/{{corpus}}.log",
    conda:
        "../../envs/scvi.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=scale_by_cells(8000, 500),
        runtime=lambda wildcards, attempt: 240 * attempt,
    params:
        peers=CONFIG.peers and CONFIG.peers.model_dump(),
        labels=LABELS,
        seed=CONFIG.seed,
    script:
        "../scripts/embed_scvi.py"


rule gather_spaces:
    input:
        embedding=rules.embed.output[0],
        corpus=rules.make_corpus.output.manifest,
        cells=rules.join_cells.output[0],
        pca=rules.compute_pca.output[0],
        scvi=rules.embed_scvi.output[0] if CONFIG.peers else [],
    output:
        f"{RESULTS}/embed/{{model}}/{{corpus}}.spaces.h5ad",
    log:
        f"{LOGS}/gather_spaces/{{model}}_{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=scale_by_cells(2000, 1500),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        labels=LABELS,
        seed=CONFIG.seed,
    script:
        "../scripts/gather_spaces.py"


rule score_spaces:
    input:
        spaces=rules.gather_spaces.output[0],
        cells=rules.join_cells.output[0],
    output:
        f"{RESULTS}/embed/{{model}}/{{corpus}}.scib.tsv",
    log:
        f"{LOGS}/score_spaces/{{model}}_{{corpus}}.log",
    conda:
        "../../envs/scvi.yaml"
    threads: 4
    resources:
        mem_mb=size_memory(8000, 20),
        runtime=lambda wildcards, attempt: 120 * attempt,
    params:
        labels=LABELS,
        batch=BATCH,
    script:
        "../scripts/score_spaces.py"


rule judge_embedding:
    input:
        spaces=rules.gather_spaces.output[0],
        cells=rules.join_cells.output[0],
        scib=rules.score_spaces.output[0] if CONFIG.peers else [],
    output:
        scores=f"{RESULTS}/embed/{{model}}/{{corpus}}.scores.json",
        table=report(
            f"{RESULTS}/embed/{{model}}/{{corpus}}.scores.tsv",
            category="3. Model",
            labels={"model": "{model}", "what": "scores of the embeddings of {corpus}"},
            caption="../report/embedding.rst",
        ),
        figure=report(
            f"{RESULTS}/embed/{{model}}/{{corpus}}.svg",
            category="3. Model",
            labels={"model": "{model}", "what": "embeddings of {corpus}"},
            caption="../report/embedding.rst",
        ),
    log:
        f"{LOGS}/judge_embedding/{{model}}_{{corpus}}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=size_memory(4000, 20),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        labels=LABELS,
        batch=BATCH,
        seed=CONFIG.seed,
    script:
        "../scripts/judge_embedding.py"
