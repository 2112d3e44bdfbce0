"""Errors of bfloat16 in what is read off the model: differences, not representations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_encoder

from scdyn.data.loader import densify
from scdyn.model import embedding
from scdyn.model.layers import set_precision
from scdyn.settings import VariantSettings
from scdyn.tasks import finetuning
from scdyn.training.loop import TrainingConfig

SETTINGS = VariantSettings(adapter="lora", rank=4, n_pools=4, hidden=16, dropout=0.0, thinning=1.0)


def relative_error(found, expected):
    return (found - expected).norm() / expected.norm()


@pytest.fixture
def wide(both_configs):
    """Wide enough that rounding errors are those of many numbers."""
    return make_encoder(replace(both_configs, width=48, n_heads=6, ffn_width=96))


OF_PAPER = pytest.mark.parametrize("both_configs", ["paper"], indirect=True)


def embeddings(model, store):
    """Of all cells, in float32 and in bfloat16; the paper's are not projected."""
    if model.config.architecture == "paper":
        n_numbers = model.config.n_latents * model.config.width // model.config.n_heads
        model.mean, model.components = torch.zeros(n_numbers), torch.eye(n_numbers)
    found = []
    for precision in ("float32", "bfloat16"):
        set_precision(model, precision)
        found.append(torch.from_numpy(embedding.embed(model, store, np.arange(90))))
    return found


def test_an_embedding_in_bfloat16_is_that_of_float32_within_two_percent(wide, cells):
    expected, found = embeddings(wide, cells[0])
    assert 0 < relative_error(found, expected) < 0.02
    centred = [part - part.mean(0) for part in (found, expected)]  # what parts the cells
    assert 0 < relative_error(*centred) < 0.02


@OF_PAPER
def test_the_difference_from_the_zero_cell_is_not_rounded(wide, cells):
    """Of layers that add nothing: in bfloat16 the embedding differs by nothing, then."""
    for layer in wide.layers:
        for last in (layer.attention.output, layer.ffn_out):
            torch.nn.init.zeros_(last.weight)
    with torch.no_grad():  # values that change a token by less than bfloat16 can tell
        wide.rna_embedding.weight.mul_(1e-3)
        wide.promoter_embedding.weight.mul_(1e-3)
    expected, found = embeddings(wide, cells[0])
    assert expected.abs().max() > 0
    assert relative_error(found, expected) < 1e-5


def test_a_heads_logits_in_bfloat16_differ_between_cells_as_in_float32(wide, cells):
    store, labels = cells
    config = TrainingConfig(epochs=6, batch_size=9, learning_rate=5e-3)
    classifier, _ = finetuning.fit_classifier(wide, store, np.arange(90), labels, SETTINGS, config)
    counts = densify(store, np.arange(90))
    changes, logits = {}, {}
    of_head = getattr(classifier.head, "norm", classifier.head.hidden)
    of_head.register_forward_hook(
        lambda _, inputs, __: changes.update({classifier.encoder.layers[0].ffn_norm.precision:
                                              inputs[0]})
    )  # fmt: skip
    for precision in ("float32", "bfloat16"):
        set_precision(classifier.encoder, precision)
        with torch.no_grad():
            logits[precision] = classifier(*counts)
    # What the head reads, of the paper's less the zero cell's, and the logits that come of it.
    assert 0 < relative_error(changes["bfloat16"], changes["float32"]) < 0.02
    centred = {name: part - part.mean(0) for name, part in logits.items()}
    assert 0 < relative_error(centred["bfloat16"], centred["float32"]) < 0.03
    assert (logits["bfloat16"].argmax(1) == logits["float32"].argmax(1)).float().mean() > 0.97
