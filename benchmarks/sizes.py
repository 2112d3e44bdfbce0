"""Sizes of the measured models and data, for both packages; needs only the standard library."""

SIZES = {
    name: {
        "n_genes": n_genes,
        "n_tfs": n_tfs,
        "n_latents": n_latents,
        "n_layers": n_layers,
        "ffn_width": ffn_width,
        "batch": batch,
    }
    for name, n_genes, n_tfs, n_latents, n_layers, ffn_width, batch in [
        ("S", 2_000, 200, 64, 4, 384, 16),
        ("M", 5_000, 400, 256, 4, 768, 8),
        ("F", 22_000, 1_500, 500, 12, 768, 1),
        ("F x 16", 22_000, 1_500, 500, 12, 768, 16),  # for a GPU
    ]
}
WIDTH, N_HEADS = 96, 12
# Share of the genes that are not zero, in each modality.
EXPRESSED_SHARE = 0.1
# Share of ones among the counts above zero; 0.4 to 0.7 in the RNA of the real studies.
SHARE_OF_ONES = 0.6
MASK_SHARE = 0.15
N_BINS = 12
N_STEPS = 50  # steps of Integrated Gradients
N_CLASSES = 5
LOADER_CELLS, LOADER_GENES, LOADER_BATCH = 5_000, 20_000, 32
