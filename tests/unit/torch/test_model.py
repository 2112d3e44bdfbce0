"""The model of expressed tokens against an explicit reference in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_encoder

from scdyn.data.loader import NOT_MEASURED, MemoryStore
from scdyn.model import transformer
from scdyn.model.architecture import ModelConfig
from scdyn.model.embedding import attention_to_latents
from scdyn.model.layers import set_precision
from scdyn.model.transformer import HIGHEST, ScDynOmics, list_expressed
from scdyn.training.pretraining import name_latents


def interpolate(values, n_knots):
    """Weights of the two nearest knots, gene by gene."""
    weights = torch.zeros(len(values), n_knots, dtype=values.dtype)
    for i, value in enumerate(values.clamp(max=HIGHEST) / HIGHEST * (n_knots - 1)):
        low = min(int(value), n_knots - 2)
        weights[i, low] = 1 - (value - low)
        weights[i, low + 1] = value - low
    return weights


def norm(x, layer):
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + layer.eps).rsqrt()
    normal = centred * scale
    return normal if layer.weight is None else normal * layer.weight + layer.bias


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def reference_tokens(model, rna, promoter, genes):
    """Tokens of one cell, of the genes in ``genes``."""
    config = model.config
    features, depths, unknown = [], [], []
    for counts, depth in zip((rna, promoter), model.depths, strict=True):
        known = counts.clamp(min=0).double()
        total = known.sum()
        logs = torch.log1p(known[genes] * depth / max(total, 1))
        is_known = float(counts[0] >= 0)
        features.append(interpolate(logs, config.n_knots) * is_known)
        depths.append(torch.log1p(total) / 8)
        unknown.append(1 - is_known)
    rest = torch.tensor([0.0, *unknown, *depths], dtype=torch.float64).expand(len(genes), 5)
    values = torch.cat([*features, rest], 1) @ model.values.embedding.weight.T
    return values + model.gene_embedding.weight[genes]


def reference_attention(attention, tokens, genes):
    """Latent attention of one cell, head by head, over its own tokens."""
    sources = genes < attention.n_sources
    narrow = tokens[sources] @ attention.key_value.weight.T
    latents = norm(attention.compress.weight[:, genes[sources]] @ narrow, attention.latent_norm)
    width = latents.shape[1]
    heads = []
    for h in range(attention.n_heads):
        queries = tokens @ attention.query.weight[h * width : (h + 1) * width].T
        heads.append(torch.softmax(queries @ latents.T / width**0.5, -1) @ latents)
    return torch.cat(heads, -1) @ attention.output.weight.T + attention.output.bias


def reference_forward(model, rna, promoter):
    """Representations of the expressed genes of one cell, its cell vector, and components."""
    genes = ((rna > 0) | (promoter > 0)).nonzero()[:, 0]
    x = reference_tokens(model, rna, promoter, genes)
    for layer in model.layers:
        x = x + reference_attention(layer.attention, norm(x, layer.attention_norm), genes)
        hidden = gelu(norm(x, layer.ffn_norm) @ layer.ffn_in.weight.T + layer.ffn_in.bias)
        x = x + hidden @ layer.ffn_out.weight.T + layer.ffn_out.bias
    x = norm(x, model.final_norm)
    bottleneck = model.bottleneck
    pooled = (bottleneck.pool.embedding.weight[genes].T @ x).flatten()
    narrow = bottleneck.narrow.weight @ norm(pooled, bottleneck.norm) + bottleneck.narrow.bias
    scaled, unscaled = [], []
    for counts, centre, deviation, depth in zip(
        (rna, promoter), bottleneck.centre.chunk(2), bottleneck.deviation.chunk(2), model.depths,
        strict=True,
    ):  # fmt: skip
        known = counts.clamp(min=0).double()
        logs = torch.log1p(known * depth / known.sum().clamp(1))
        unscaled.append((logs - centre) * (counts[0] >= 0))
        scaled.append((unscaled[-1] / deviation).clamp(-10, 10))
    parts = zip(bottleneck.components.chunk(2), (scaled, unscaled), strict=True)
    components = torch.cat([weights @ torch.cat(values) for weights, values in parts])
    narrow = narrow + bottleneck.linear.weight @ components + bottleneck.linear.bias
    return genes, x, norm(narrow, bottleneck.cell_norm), components


def test_cells_are_those_of_the_reference_in_float64(model, counts):
    model = model.double()
    torch.nn.init.uniform_(model.bottleneck.centre)
    torch.nn.init.uniform_(model.bottleneck.deviation, 0.05, 1)
    torch.nn.init.normal_(model.bottleneck.components)
    model.depths.copy_(torch.tensor([30.0, 9.0]))
    tokens, cells, components = model.represent(*counts)
    for i, (rna, promoter) in enumerate(zip(*counts, strict=True)):
        genes, values, cell, expected = reference_forward(model, rna, promoter)
        n = len(genes)
        assert tokens.genes[i, :n].tolist() == genes.tolist()
        assert tokens.weight[i].tolist() == [1] * n + [0] * (tokens.weight.shape[1] - n)
        torch.testing.assert_close(tokens.values[i, :n], values, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(cells[i], cell, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(components[i], expected, rtol=1e-9, atol=1e-9)
    described = model.describe(*counts)
    torch.testing.assert_close(described.features, torch.cat([cells, components], 1))


def test_a_cell_is_the_same_in_any_batch(model, counts):
    _, together, _ = model.represent(*counts)
    rows = [model.represent(*(part[i : i + 1] for part in counts))[1] for i in range(7)]
    torch.testing.assert_close(torch.cat(rows), together, rtol=1e-5, atol=1e-6)


def test_cells_are_computed_a_few_at_once_by_their_number_of_tokens(model, counts, monkeypatch):
    """In any order, they are those that are computed together."""
    expected = model.represent(*counts)[1]
    monkeypatch.setattr(transformer, "AT_ONCE", 2)
    computed = []
    forward = model.forward

    def keep(rna, promoter):
        computed.append(((rna > 0) | (promoter > 0)).sum(1).tolist())
        return forward(rna, promoter)

    monkeypatch.setattr(model, "forward", keep)
    torch.testing.assert_close(model.embed_cells(*counts), expected, rtol=1e-5, atol=1e-6)
    assert [len(cells) for cells in computed] == [2, 2, 2, 1]
    n_tokens = sum(computed, [])
    assert n_tokens == sorted(n_tokens) and len(set(n_tokens)) > 3


def test_cells_without_counts_are_all_the_same_and_finite(model, config):
    empty = torch.zeros(2, config.n_genes, dtype=torch.int16)
    tokens, cells, _ = model.represent(empty, empty)
    assert tokens.weight.sum() == 0 and cells.isfinite().all()
    torch.testing.assert_close(cells[0], cells[1])


def test_a_silent_gene_changes_nothing(model, counts):
    rna, promoter = (part[:1] for part in counts)
    (silent,) = ((rna[0] == 0) & (promoter[0] == 0)).nonzero(as_tuple=True)
    assert len(silent)
    before = model.represent(rna, promoter)[1]
    with torch.no_grad():
        model.gene_embedding.weight[silent[0]] += 5
    torch.testing.assert_close(model.represent(rna, promoter)[1], before)


def test_promoters_that_were_not_measured_are_not_those_that_are_closed(model, counts):
    rna = counts[0][:1]
    closed, absent = torch.zeros_like(rna), torch.full_like(rna, NOT_MEASURED)
    cells = [model.represent(rna, promoter)[1] for promoter in (closed, absent)]
    assert not torch.allclose(*cells, atol=1e-3)


def test_hidden_values_are_not_read(model, counts):
    rna, promoter = (part[:2].clone() for part in counts)
    hidden = torch.zeros_like(rna, dtype=torch.bool)
    hidden[:, [1, 4]] = True
    # Two counts exchanged between hidden genes leave the depth as it is.
    other = rna.clone()
    other[:, [1, 4]] = rna[:, [4, 1]]
    rna[:, [1, 4]] += 1
    other[:, [1, 4]] += 1
    one, two = (model(part, promoter, hidden) for part in (rna, other))
    torch.testing.assert_close(one.values, two.values)
    assert not torch.allclose(model(rna, promoter).values, model(other, promoter).values)


def test_genes_without_counts_have_a_token_if_they_are_hidden(model, config):
    rna = torch.zeros(1, config.n_genes, dtype=torch.int16)
    rna[0, 3] = 2
    hidden = torch.zeros_like(rna, dtype=torch.bool)
    hidden[0, 8] = True
    tokens = model(rna, torch.zeros_like(rna), hidden)
    assert tokens.genes.tolist() == [[3, 8]] and tokens.weight.tolist() == [[1, 1]]


def test_a_count_that_fades_away_ends_as_a_gene_without_token(model, counts):
    """As on the paths of Integrated Gradients."""
    rna, promoter = (part[:1].double() for part in counts)
    gene = int((rna[0] > 0).nonzero()[0])
    promoter[0, gene] = 0
    without = rna.clone()
    without[0, gene] = 0
    expected = model.double().represent(without, promoter)[1]
    changes = []
    for left in (1e-1, 1e-3, 1e-5):
        faded = rna.clone()
        faded[0, gene] = left
        changes.append((model.represent(faded, promoter)[1] - expected).norm())
    assert changes[0] > 10 * changes[1] > 100 * changes[2]


def test_gradients_of_counts_are_right(model, counts):
    model = model.double()
    rna = (counts[0][:1].double() + 1.3).requires_grad_()
    promoter = (counts[1][:1].double() + 1.3).requires_grad_()

    def cells(*parts):
        return model.represent(*parts)[1]

    found = torch.autograd.grad(cells(rna, promoter).square()[0, 0], (rna, promoter))
    step = 1e-3
    for part, gradient in zip((rna, promoter), found, strict=True):
        for gene in (0, 5, 16):
            shift = torch.zeros_like(part)
            shift[0, gene] = step
            sides = [
                cells(*(x + sign * shift if x is part else x for x in (rna, promoter)))
                for sign in (1, -1)
            ]
            slope = (sides[0].square()[0, 0] - sides[1].square()[0, 0]) / (2 * step)
            torch.testing.assert_close(gradient[0, gene], slope, rtol=2e-2, atol=1e-5)


def test_the_decoder_starts_with_the_mean_profile(model, config):
    logs = torch.rand(2, config.n_genes).log_softmax(1)
    model.bottleneck.start_from(logs)
    for decoded, mean in zip(model.bottleneck.decode(torch.randn(3, 8)), logs, strict=True):
        torch.testing.assert_close(decoded, mean.expand(3, -1))


def test_expressed_genes_are_listed_in_their_order():
    expressed = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]]).bool()
    genes, is_token = list_expressed(expressed)
    assert is_token.sum(1).tolist() == [2, 0, 3]
    assert [g[t].tolist() for g, t in zip(genes, is_token, strict=True)] == [[1, 3], [], [0, 1, 2]]


def test_attention_to_latents_sums_to_one_over_expressed_genes(model, counts):
    shares = model.attend_to_latents(*counts)
    assert shares.shape == (7, 4)
    torch.testing.assert_close(shares.sum(1), torch.ones(7))


def test_a_model_has_no_more_latents_than_genes(config, counts):
    many = make_encoder(replace(config, n_latents=200))
    shares = attention_to_latents(many, MemoryStore.from_dense(*counts), np.arange(7))
    assert shares.shape == (7, config.n_genes)
    assert len(name_latents(many, ["a(+)"])) == config.n_genes


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cpu_and_gpu_agree(model, counts):
    expected = model.represent(*counts)[1]
    set_precision(model.cuda(), "float32")
    found = model.represent(*(part.cuda() for part in counts))[1].cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close(model, counts):
    expected = model.represent(*counts)[1]
    set_precision(model, "bfloat16")
    found = model.represent(*counts)[1]
    assert found.dtype == torch.float32
    assert 0 < ((found - expected).norm() / expected.norm()).item() < 0.05


def test_sizes_are_those_of_the_config():
    with torch.device("meta"):
        model = ScDynOmics(ModelConfig(22_000, 1_500))
    assert 70e6 < sum(p.numel() for p in model.parameters()) < 85e6
