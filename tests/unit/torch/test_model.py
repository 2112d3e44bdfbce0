"""The model against an explicit reference in float64, and what it must not do."""

import pytest
import torch

from scdyn.data.loader import expressed_genes
from scdyn.data.tokens import NOT_MEASURED
from scdyn.errors import InputError
from scdyn.model.architecture import ModelConfig
from scdyn.model.transformer import ScDynOmics, attend
from scdyn.settings import SIZES
from scdyn.training.pretraining import draw_noise, mask_genes


def reference_attention(attention, tokens):
    """Latent attention head by head, with the scores written out."""
    n_cells, n_genes, width = tokens.shape
    n_heads = attention.n_heads
    head = width // n_heads
    keys = torch.einsum(
        "lg,bgd,hd->blh", attention.compress.weight, tokens[:, : attention.n_sources],
        attention.key_value.weight,
    )  # fmt: skip
    heads = []
    for h in range(n_heads):
        queries = tokens @ attention.query.weight[h * head : (h + 1) * head].T
        scores = queries @ keys.transpose(1, 2) / head**0.5
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        heads.append(weights @ keys)
    return torch.cat(heads, -1) @ attention.output.weight.T + attention.output.bias


def reference_forward(model, rna, promoter):
    """The whole encoder in plain operations."""

    def norm(x, layer):
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + layer.eps).rsqrt()
        return centred * scale * layer.weight + layer.bias

    def gelu(x):
        return 0.5 * x * (1 + torch.erf(x / 2**0.5))

    x = model.gene_embedding.weight[None].repeat(len(rna), 1, 1)
    x = (
        x
        + model.rna_embedding.weight[rna.long()]
        + model.promoter_embedding.weight[promoter.long()]
    )
    for layer in model.layers:
        x = x + reference_attention(layer.attention, norm(x, layer.attention_norm))
        hidden = gelu(norm(x, layer.ffn_norm) @ layer.ffn_in.weight.T + layer.ffn_in.bias)
        x = x + hidden @ layer.ffn_out.weight.T + layer.ffn_out.bias
    return norm(x, model.final_norm)


def n_parameters(config):
    return sum(p.numel() for p in ScDynOmics(config).parameters())


def test_every_size_of_the_config_has_its_number_of_parameters():
    with torch.device("meta"):
        counts = [
            n_parameters(ModelConfig(22_000, 1_500, **size["model"])) for size in SIZES.values()
        ]
    assert [round(count / 1e6, 1) for count in counts] == [3.7, 19.7, 74.6]


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_forward_equals_the_reference_in_float64(model, bins):
    model = model.double()
    torch.testing.assert_close(
        model(*bins), reference_forward(model, *bins), rtol=1e-10, atol=1e-10
    )


def test_float32_stays_close_to_float64(model, bins):
    exact = model(*bins)
    torch.testing.assert_close(
        exact.double(), reference_forward(model.double(), *bins), rtol=1e-4, atol=1e-5
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree(model, bins):
    expected = model(*bins)
    model.cuda().set_precision("float32")
    found = model(*(part.cuda() for part in bins)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    model.set_precision("auto")
    found = model(*(part.cuda() for part in bins)).cpu()
    assert 0 < relative_error(found, expected) < 0.02


def test_bfloat16_is_of_the_products_alone(model, bins):
    expected = model(*bins)
    types = set()
    for layer in model.layers:
        for norm in (layer.attention_norm, layer.ffn_norm):
            norm.register_forward_hook(
                lambda _, inputs, output: types.add((inputs[0].dtype, output.dtype))
            )
    model.set_precision("bfloat16")
    found = model(*bins)
    found.sum().backward()
    assert types == {(torch.float32, torch.bfloat16)}  # from the sum over the layers to a product
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert found.dtype == torch.float32
    assert 0 < relative_error(found, expected) < 0.02


def test_fused_attention_equals_one_with_scores_written_out():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    latents = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    weights = torch.softmax(torch.einsum("bghd,bld->bghl", queries, latents) / 2.0, -1)
    expected = torch.einsum("bghl,bld->bghd", weights, latents)
    torch.testing.assert_close(attend(queries, latents), expected)


def test_gradients_are_right():
    torch.manual_seed(0)
    config = ModelConfig(5, 2, n_bins=3, width=4, n_layers=2, n_heads=2, n_latents=2, ffn_width=4,
                         dropout=0.0)  # fmt: skip
    model = ScDynOmics(config).double().eval()
    tokens = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.encode, (tokens,))


def test_tf_layers_read_the_tfs_and_full_layers_all_genes(model, config):
    assert [layer.attention.n_sources for layer in model.layers] == [5, 17, 5, 17]
    tokens = torch.randn(1, config.n_genes, config.width)
    changed = tokens.clone()
    change = torch.linspace(-2, 2, config.width)  # a constant would fall to the norm
    changed[0, 9] += change  # not a TF
    others = [i for i in range(config.n_genes) if i != 9]
    tf_layer, full_layer = model.layers[0], model.layers[1]
    torch.testing.assert_close(tf_layer(tokens)[0, others], tf_layer(changed)[0, others])
    assert not torch.allclose(full_layer(tokens)[0, others], full_layer(changed)[0, others])
    changed = tokens.clone()
    changed[0, 3] += change  # a TF
    assert not torch.allclose(tf_layer(tokens)[0, others], tf_layer(changed)[0, others])


def test_the_last_layer_gives_the_genes_asked_for_what_it_gives_all(model, bins):
    genes = torch.tensor([[3, 16, 3]]).repeat(len(bins[0]), 1)
    torch.testing.assert_close(model(*bins, genes), model(*bins)[:, [3, 16, 3]])


def test_a_cell_is_the_same_in_any_batch(model, bins):
    rna, promoter = bins
    alone = torch.cat([model(rna[i : i + 1], promoter[i : i + 1]) for i in range(len(rna))])
    torch.testing.assert_close(alone, model(rna, promoter), rtol=1e-5, atol=1e-6)


def test_full_size_is_a_config_of_the_papers_size():
    with torch.device("meta"):
        n_parameters = sum(p.numel() for p in ScDynOmics(ModelConfig.full_size()).parameters())
    assert 74e6 < n_parameters < 78e6


def test_anchored_latents_start_as_regulons(model, config):
    regulons = torch.rand(2, config.n_genes)
    before = [layer.attention.compress.weight.clone() for layer in model.layers]
    model.anchor_latents(regulons)
    tf, full = model.layers[0].attention, model.layers[1].attention
    centred = regulons[1] - regulons[1].mean()
    torch.testing.assert_close(full.compress.weight[1], centred / centred.norm())
    torch.testing.assert_close(full.compress.weight[2:], before[1][2:])
    torch.testing.assert_close(tf.compress.weight, before[0])


def spread(genes, hidden, n_genes):
    """Which genes are hidden, from their positions: (B, Q) to (B, G)."""
    return torch.zeros(len(genes), n_genes, dtype=torch.bool).scatter_(1, genes, hidden)


def test_masking_hides_its_share_of_nonzero_genes_in_both_modalities():
    rna = torch.zeros(3, 40, dtype=torch.uint8)
    promoter = torch.zeros(3, 40, dtype=torch.uint8)
    rna[0, :20] = 3
    promoter[0, 10:30] = 2  # 30 genes are non-zero in either
    rna[1, 5] = 1  # one gene: it is hidden
    masked_rna, masked_promoter, *places = mask_genes(
        rna, promoter, 0.15, 9, draw_noise(0, len(rna), rna)
    )
    hidden = spread(*places, 40)
    assert hidden.sum(1).tolist() == [4, 1, 0]  # 0.15 x 30 = 4.5, rounded to even
    assert (masked_rna[hidden] == 9).all() and (masked_promoter[hidden] == 9).all()
    assert not hidden[0, 30:].any() and hidden[1, 5]
    torch.testing.assert_close(masked_rna[~hidden], rna[~hidden])
    torch.testing.assert_close(masked_promoter[~hidden], promoter[~hidden])


def test_what_was_not_measured_is_neither_hidden_nor_seen():
    rna = torch.zeros(2, 40, dtype=torch.uint8)
    rna[:, :20] = 3
    promoter = torch.ones_like(rna)
    promoter[1] = NOT_MEASURED
    assert expressed_genes(rna, promoter).sum(1).tolist() == [40, 20]
    masked_rna, masked_promoter, *places = mask_genes(
        rna, promoter, 0.2, 9, draw_noise(0, len(rna), rna)
    )
    assert spread(*places, 40).sum(1).tolist() == [8, 4]
    assert (masked_rna == 9).sum(1).tolist() == [8, 4]
    assert (masked_promoter[0] == 9).sum() == 8 and (masked_promoter[1] == NOT_MEASURED).all()


def test_a_modality_that_was_not_measured_adds_nothing_to_a_new_model(model, bins):
    rna, promoter = bins
    absent = torch.full_like(promoter, NOT_MEASURED, dtype=torch.uint8)
    tokens = model.embed_tokens(rna, absent)
    expected = model.rna_embedding(rna.int()) + model.gene_embedding.weight
    torch.testing.assert_close(tokens, expected)


def test_masking_is_uniform_over_the_nonzero_genes():
    rna = torch.zeros(4000, 12, dtype=torch.uint8)
    rna[:, :10] = 1
    _, _, *places = mask_genes(rna, torch.zeros_like(rna), 0.2, 9, draw_noise(0, len(rna), rna))
    shares = spread(*places, 12).float().mean(0)
    torch.testing.assert_close(shares[:10], torch.full((10,), 0.2), rtol=0, atol=0.03)
    assert shares[10:].sum() == 0


def test_unknown_keys_and_impossible_sizes_are_refused(config):
    with pytest.raises(InputError, match="'n_layer'"):
        ModelConfig.from_dict({"n_genes": 5, "n_tfs": 2, "n_layer": 3})
    with pytest.raises(InputError, match="not a multiple of n_heads 12"):
        ModelConfig(100, 10, width=50)
    with pytest.raises(InputError, match="at least one"):
        ModelConfig(100, 0)
    assert ModelConfig.from_dict(config.to_dict()) == config
