"""Compiled layers compute what eager ones do, and are compiled no more often than they must.

Only the paper's architecture is compiled.
"""

import copy
from dataclasses import replace

import pytest
import torch
from conftest import make_encoder

from scdyn.data.loader import NOT_MEASURED
from scdyn.model import adapters
from scdyn.model.classifier import Classifier, make_head
from scdyn.settings import HeadSettings
from scdyn.training import loop

TRAINING = loop.TrainingConfig(epochs=1, batch_size=8, learning_rate=1e-3, compiled=True)


@pytest.fixture
def n_compiled(monkeypatch):
    """Lets torch compile by a backend that counts: a function that tells how many graphs."""
    torch._dynamo.reset()
    graphs, own = [], torch.nn.Module.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: own(module, backend=backend))
    yield lambda: len(graphs)
    torch._dynamo.reset()


@pytest.fixture
def model(paper_config):
    assert paper_config.n_layers == 4  # three are compiled: a TF layer, a Full one, a TF one
    return make_encoder(paper_config)


def make_bins(n_cells, n_genes=17):
    """Ids of values, as pretraining gives them to the model."""
    generator = torch.Generator().manual_seed(n_cells)
    return torch.randint(0, 7, (2, n_cells, n_genes), generator=generator, dtype=torch.int32)


def make_counts(n_cells, n_genes=17, without_promoters=0):
    """Counts, as fine-tuning gives them to a classifier."""
    generator = torch.Generator().manual_seed(n_cells)
    rna, promoter = torch.randint(
        0, 7, (2, n_cells, n_genes), generator=generator, dtype=torch.int16
    )
    promoter[:without_promoters] = NOT_MEASURED
    return rna, promoter


def train(module, *cells):
    """Return the output and the gradients of what is trained."""
    module.train()
    module.zero_grad()
    output = module(*cells)
    output.square().mean().backward()
    return [output, *(p.grad for p in module.parameters() if p.grad is not None)]


@torch.no_grad()
def evaluate(module, *cells):
    return [module.eval()(*cells)]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_pretraining_compiles_each_kind_of_layer_once(model, n_compiled):
    eager = copy.deepcopy(model)
    loop.configure_encoders(model, TRAINING)
    assert_same(train(model, *make_bins(8)), train(eager, *make_bins(8)))
    assert n_compiled() == 2  # a TF layer and a Full one
    assert_same(evaluate(model, *make_bins(32)), evaluate(eager, *make_bins(32)))
    assert n_compiled() == 4  # and both without dropout and gradients
    with torch.compiler.set_stance("fail_on_recompile"):
        for n_cells in (8, 7, 3, 64):  # micro-batches that were halved, and odd last ones
            assert_same(train(model, *make_bins(n_cells)), train(eager, *make_bins(n_cells)))
            assert_same(evaluate(model, *make_bins(n_cells)), evaluate(eager, *make_bins(n_cells)))
    # Torch specialises on a size of one, so a last batch of one cell compiles both again.
    assert_same(evaluate(model, *make_bins(1)), evaluate(eager, *make_bins(1)))
    assert n_compiled() == 6


def test_fine_tuning_with_lora_compiles_what_it_must(model, n_compiled):
    """With adapters the first layer is a kind of its own: its input needs no gradient."""
    wrapped = adapters.adapt(model, "lora", 4)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    torch.manual_seed(0)
    head = make_head(model.config, 3, HeadSettings(n_pools=4, hidden=16, dropout=0.0))
    classifier = Classifier(wrapped, head, list("xyz"))
    eager = copy.deepcopy(classifier)
    loop.configure_encoders(classifier, TRAINING)
    assert_same(train(classifier, *make_counts(8)), train(eager, *make_counts(8)))
    # First, TF and Full layer, of the cells and, without dropout, of those without counts.
    assert n_compiled() == 6
    assert_same(evaluate(classifier, *make_counts(64)), evaluate(eager, *make_counts(64)))
    assert n_compiled() == 8  # a TF layer and a Full one without gradients
    with torch.compiler.set_stance("fail_on_recompile"):
        for cells in (
            make_counts(7),
            make_counts(8, without_promoters=3),
            make_counts(5, without_promoters=5),
        ):
            assert_same(train(classifier, *cells), train(eager, *cells))
            assert_same(evaluate(classifier, *cells), evaluate(eager, *cells))
    classifier.merge()
    assert_same(evaluate(classifier, *make_counts(64)), evaluate(eager, *make_counts(64)))
    assert n_compiled() == 10  # both once more, of other modules
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_same(evaluate(classifier, *make_counts(9)), evaluate(eager, *make_counts(9)))
    assert n_compiled() < torch._dynamo.config.recompile_limit


def test_dropout_is_drawn_in_compiled_layers_too(paper_config, n_compiled):
    model = make_encoder(replace(paper_config, dropout=0.3))
    loop.configure_encoders(model, TRAINING)
    outputs = [train(model, *make_bins(8))[0] for _ in range(2)]
    assert not torch.allclose(*outputs)
    assert n_compiled() == 2
    assert_same(evaluate(model, *make_bins(8)), evaluate(model, *make_bins(8)))


def test_a_copy_of_a_compiled_model_is_not_compiled_and_the_same(model, n_compiled):
    loop.configure_encoders(model, TRAINING)
    other = copy.deepcopy(model)
    assert_same(evaluate(other, *make_bins(8)), evaluate(model, *make_bins(8)))
    assert n_compiled() == 2
