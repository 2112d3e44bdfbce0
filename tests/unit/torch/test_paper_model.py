"""The architecture of the paper against an explicit reference in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_encoder

from scdyn.data.loader import NOT_MEASURED
from scdyn.errors import InputError
from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import attend, set_precision
from scdyn.model.paper import PaperModel
from scdyn.settings import SIZES
from scdyn.training.masked import draw_noise, find_nonzero, mask_genes


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
    return sum(p.numel() for p in PaperModel(config).parameters())


def test_every_size_of_the_config_has_its_number_of_parameters():
    with torch.device("meta"):
        counts = [
            n_parameters(ModelConfig(22_000, 1_500, "paper", **size["model"]))
            for size in SIZES.values()
        ]
    assert [round(count / 1e6, 1) for count in counts] == [3.7, 19.7, 74.6]


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_forward_equals_the_reference_in_float64(paper, bins):
    paper = paper.double()
    torch.testing.assert_close(
        paper(*bins), reference_forward(paper, *bins), rtol=1e-10, atol=1e-10
    )


def test_float32_stays_close_to_float64(paper, bins):
    exact = paper(*bins)
    torch.testing.assert_close(
        exact.double(), reference_forward(paper.double(), *bins), rtol=1e-4, atol=1e-5
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree(paper, bins):
    expected = paper(*bins)
    set_precision(paper.cuda(), "float32")
    found = paper(*(part.cuda() for part in bins)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    set_precision(paper, "auto")
    found = paper(*(part.cuda() for part in bins)).cpu()
    assert 0 < relative_error(found, expected) < 0.02


def test_bfloat16_is_of_the_products_alone(paper, bins):
    expected = paper(*bins)
    types = set()
    for layer in paper.layers:
        for norm in (layer.attention_norm, layer.ffn_norm):
            norm.register_forward_hook(
                lambda _, inputs, output: types.add((inputs[0].dtype, output.dtype))
            )
    set_precision(paper, "bfloat16")
    found = paper(*bins)
    found.sum().backward()
    assert types == {(torch.float32, torch.bfloat16)}  # from the sum over the layers to a product
    assert {p.dtype for p in paper.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in paper.parameters() if p.grad is not None} == {torch.float32}
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
    paper = PaperModel(config).double().eval()
    tokens = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(paper.encode, (tokens,))


def test_tf_layers_read_the_tfs_and_full_layers_all_genes(paper, paper_config):
    assert [layer.attention.n_sources for layer in paper.layers] == [5, 17, 5, 17]
    tokens = torch.randn(1, paper_config.n_genes, paper_config.width)
    changed = tokens.clone()
    change = torch.linspace(-2, 2, paper_config.width)  # a constant would fall to the norm
    changed[0, 9] += change  # not a TF
    others = [i for i in range(paper_config.n_genes) if i != 9]
    tf_layer, full_layer = paper.layers[0], paper.layers[1]
    torch.testing.assert_close(tf_layer(tokens)[0, others], tf_layer(changed)[0, others])
    assert not torch.allclose(full_layer(tokens)[0, others], full_layer(changed)[0, others])
    changed = tokens.clone()
    changed[0, 3] += change  # a TF
    assert not torch.allclose(tf_layer(tokens)[0, others], tf_layer(changed)[0, others])


def test_the_last_layer_gives_the_genes_asked_for_what_it_gives_all(paper, bins):
    genes = torch.tensor([[3, 16, 3]]).repeat(len(bins[0]), 1)
    torch.testing.assert_close(paper(*bins, genes), paper(*bins)[:, [3, 16, 3]])


def test_a_cell_is_the_same_in_any_batch(paper, bins):
    rna, promoter = bins
    alone = torch.cat([paper(rna[i : i + 1], promoter[i : i + 1]) for i in range(len(rna))])
    torch.testing.assert_close(alone, paper(rna, promoter), rtol=1e-5, atol=1e-6)


def test_full_size_is_a_config_of_the_papers_size():
    with torch.device("meta"):
        n_parameters = sum(p.numel() for p in PaperModel(ModelConfig.full_size()).parameters())
    assert 74e6 < n_parameters < 78e6


def test_anchored_latents_start_as_regulons(paper, paper_config):
    regulons = torch.rand(2, paper_config.n_genes)
    before = [layer.attention.compress.weight.clone() for layer in paper.layers]
    paper.anchor_latents(regulons)
    tf, full = paper.layers[0].attention, paper.layers[1].attention
    centred = regulons[1] - regulons[1].mean()
    torch.testing.assert_close(full.compress.weight[1], centred / centred.norm())
    torch.testing.assert_close(full.compress.weight[2:], before[1][2:])
    torch.testing.assert_close(tf.compress.weight, before[0])


def spread(genes, hidden, n_genes):
    """Which genes are hidden, from their positions: (B, Q) to (B, G)."""
    return torch.zeros(len(genes), n_genes, dtype=torch.bool).scatter_(1, genes, hidden)


def hide(rna, promoter, share):
    """Mask, with ids 9 for masked and 10 for not measured."""
    config = ModelConfig(rna.shape[1], 1, n_bins=8)
    return mask_genes(rna, promoter, share, config, draw_noise(0, len(rna), rna))


def test_masking_hides_its_share_of_nonzero_genes_in_both_modalities():
    rna, promoter = torch.zeros(2, 3, 40, dtype=torch.int32)
    rna[0, :20] = 3
    promoter[0, 10:30] = 2  # 30 genes are non-zero in either
    rna[1, 5] = 1  # one gene: it is hidden
    masked_rna, masked_promoter, *places = hide(rna, promoter, 0.15)
    hidden = spread(*places, 40)
    assert hidden.sum(1).tolist() == [4, 1, 0]  # 0.15 x 30 = 4.5, rounded to even
    assert (masked_rna[hidden] == 9).all() and (masked_promoter[hidden] == 9).all()
    assert not hidden[0, 30:].any() and hidden[1, 5]
    torch.testing.assert_close(masked_rna[~hidden], rna[~hidden])
    torch.testing.assert_close(masked_promoter[~hidden], promoter[~hidden])


def test_what_was_not_measured_is_neither_hidden_nor_seen():
    rna = torch.zeros(2, 40, dtype=torch.int32)
    rna[:, :20] = 3
    promoter = torch.ones_like(rna)
    promoter[1] = 10
    config = ModelConfig(40, 1, n_bins=8)
    assert find_nonzero(rna, promoter, config).sum(1).tolist() == [40, 20]
    masked_rna, masked_promoter, *places = hide(rna, promoter, 0.2)
    assert spread(*places, 40).sum(1).tolist() == [8, 4]
    assert (masked_rna == 9).sum(1).tolist() == [8, 4]
    assert (masked_promoter[0] == 9).sum() == 8 and (masked_promoter[1] == 10).all()


def test_a_modality_that_was_not_measured_adds_nothing_to_a_new_model(paper, bins):
    absent = torch.full_like(bins[1], paper.config.not_measured_id)
    tokens = paper.embed_tokens(bins[0], absent)
    expected = paper.rna_embedding(bins[0]) + paper.gene_embedding.weight
    torch.testing.assert_close(tokens, expected)


def test_masking_is_uniform_over_the_nonzero_genes():
    rna = torch.zeros(4000, 12, dtype=torch.int32)
    rna[:, :10] = 1
    _, _, *places = hide(rna, torch.zeros_like(rna), 0.2)
    shares = spread(*places, 12).float().mean(0)
    torch.testing.assert_close(shares[:10], torch.full((10,), 0.2), rtol=0, atol=0.03)
    assert shares[10:].sum() == 0


def test_bins_are_those_of_the_papers_normalisation(paper, counts):
    """Ceilings of log1p of TPM, and of counts per TSS and million."""
    found = paper.bin(*counts)
    for modality, bins, rates in zip(counts, found, paper.rates, strict=True):
        known = modality.clamp(min=0).numpy() * rates.numpy()
        logs = np.log1p(1e6 * known / np.maximum(known.sum(1, keepdims=True), 1e-300))
        expected = np.minimum(np.ceil(logs), paper.config.n_bins)
        expected[modality[:, 0].numpy() < 0] = paper.config.not_measured_id
        np.testing.assert_array_equal(bins.numpy(), expected)


def test_cells_are_differences_from_a_cell_without_counts(paper, counts):
    tokens = paper.describe(*counts)
    assert tokens.genes is None
    assert (tokens.weight == ((counts[0] > 0) | (counts[1] > 0))).all()
    empty = torch.zeros(1, paper.config.n_genes)
    for i, promoter in ((0, empty), (6, torch.full_like(empty, NOT_MEASURED))):
        zero = paper(*paper.bin(empty, promoter))
        own = paper(*paper.bin(*(part[i : i + 1] for part in counts)))
        torch.testing.assert_close(tokens.values[i], (own - zero)[0], rtol=1e-4, atol=1e-5)


def test_the_cell_without_counts_is_encoded_without_dropout(paper_config, counts):
    paper = make_encoder(replace(paper_config, dropout=0.3))
    expected = paper.encode_zero_cells()
    paper.train()
    assert not torch.equal(*(paper(*paper.bin(*counts)) for _ in range(2)))
    torch.testing.assert_close(paper.encode_zero_cells(), expected, rtol=0, atol=0)
    assert paper.training


def test_unknown_keys_and_impossible_sizes_are_refused(config):
    with pytest.raises(InputError, match="'n_layer'"):
        ModelConfig.from_dict({"n_genes": 5, "n_tfs": 2, "n_layer": 3})
    with pytest.raises(InputError, match="not a multiple of n_heads 12"):
        ModelConfig(100, 10, width=50)
    with pytest.raises(InputError, match="at least one"):
        ModelConfig(100, 0)
    assert ModelConfig.from_dict(config.to_dict()) == config
