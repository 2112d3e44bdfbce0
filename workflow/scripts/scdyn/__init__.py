"""scdyn: the library behind the scDynOmics workflow.

Each module is one stage of the data's way, and imports only those above it:
reference, tenx, ingest, corpus, grn, tokens, model, training, pretraining,
evaluation, finetune, explain, studies. Nothing here imports snakemake, and nothing is imported at
the top that the environment of another stage would lack.
"""

__version__ = "0.1.0"
