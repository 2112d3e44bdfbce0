"""Operations are counted as torch counts them, and estimates follow from them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils import flop_counter

from scdyn.log import format_estimate
from scdyn.model import adapters
from scdyn.model.architecture import ModelConfig, Operations
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import EvaluationSettings, ModelSettings
from scdyn.tasks import cost as tasks_cost
from scdyn.training import cost
from scdyn.training.masked import masked_losses

# Torch's counter knows fused attention on GPUs alone.
FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: flop_counter.sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, query, key, value, *_, **__: flop_counter.sdpa_backward_flop_count(
            grad, query, key, value
        )
    ),
}
CONFIGS = [
    ModelConfig(300, 40, width=32, n_layers=2, n_heads=4, n_latents=16, ffn_width=64, dropout=0.0),
    # More latents than TFs; a TF layer at the end.
    ModelConfig(200, 20, width=48, n_layers=3, n_heads=3, n_latents=64, ffn_width=96, dropout=0.0),
]
PAPER_CONFIGS = [replace(config, architecture="paper") for config in CONFIGS]
MODEL = ModelSettings(corpus="all", size="full")
TASK = EvaluationSettings(
    model="m", adapter="lora", seeds=[1, 2], training={"epochs": 4, "batch_size": 16}
)


def counted(function):
    with flop_counter.FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        function()
    return counter.get_total_flops()


def make_paper_model(config):
    return PaperModel(config, np.ones((2, config.n_genes)))


def express(config, n_expressed):
    """Counts of three cells, each of which expresses as many genes."""
    counts = torch.zeros(2, 3, config.n_genes, dtype=torch.int16)
    counts[:, :, -n_expressed:] = 3
    return counts


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("n_expressed", [7, 100])
def test_operations_are_those_that_torch_counts(config, n_expressed):
    model = ScDynOmics(config).eval()
    with torch.no_grad():
        found = counted(
            lambda: model.bottleneck.decode(model.embed_cells(*express(config, n_expressed)))
        )
    expected = config.count_operations(n_expressed).times(3)
    assert found == expected.products + expected.attention


@pytest.mark.parametrize("config", PAPER_CONFIGS)
def test_operations_of_the_paper_are_those_that_torch_counts(config):
    model = make_paper_model(config).eval()
    bins = torch.randint(0, 5, (2, 3, config.n_genes), dtype=torch.int32)
    with torch.no_grad():
        found = counted(lambda: model.decode(model(*bins)))
    expected = config.count_operations().times(3)
    assert found == expected.products + expected.attention


@pytest.mark.parametrize("config", CONFIGS)
def test_operations_of_a_training_step_are_nearly_those_that_torch_counts(config):
    model = ScDynOmics(config)
    counts = express(config, 100)

    def step():
        logs = model.bottleneck.decode(model.embed_cells(*counts))
        sum(log.sum() for log in logs).backward()

    expected = config.count_training_operations(100).times(3)
    # Gradients of the values are not needed.
    assert 0.9 < counted(step) / (expected.products + expected.attention) <= 1


@pytest.mark.parametrize("config", PAPER_CONFIGS)
def test_operations_of_a_training_step_are_those_that_torch_counts(config):
    model = make_paper_model(config)
    bins = torch.ones(2, 3, config.n_genes, dtype=torch.int32)  # each cell hides as many genes

    def step():
        sum(
            loss.mean() for loss in masked_losses(model, *bins, 0.2, torch.rand(bins[0].shape))[:2]
        ).backward()

    expected = config.count_training_operations(config.n_genes // 5).times(3)
    assert counted(step) == pytest.approx(expected.products + expected.attention, rel=1e-6)


@pytest.mark.parametrize("config", [CONFIGS[0], PAPER_CONFIGS[0]])
def test_operations_of_lora_are_those_of_training_or_a_little_fewer(config):
    is_paper = config.architecture == "paper"
    model = make_paper_model(config) if is_paper else ScDynOmics(config)
    encoder = adapters.adapt(model, "lora", 4)
    counts = express(config, config.n_genes)
    expected = config.count_training_operations().times(3)
    # The paper's cells are differences from two cells without counts.
    expected = expected.times(5 / 3 if is_paper else 1)

    def step():
        described = encoder.describe(*counts)
        (described.values if is_paper else described.features).square().mean().backward()

    found = counted(step)
    assert 0.7 < found / (expected.products + expected.attention) <= 1.05


def test_an_estimate_grows_with_cells_epochs_and_runs_and_shrinks_with_rate_and_threads():
    def estimates(model=MODEL, task=TASK, cells=16_000, rate=1e11, n_threads=2):
        found = tasks_cost.estimate(
            {"m": model}, {"t": task}, {"all": cells}, 22_000, 1_500, rate, n_threads
        )
        return {subject: (work, seconds) for subject, work, seconds in found}

    plain = estimates()
    words, pretraining = plain["models.m"]
    assert words == "pretraining on 16,000 cells, 10 epochs"
    words, finetuning = plain["tasks.t"]
    assert words == "10 fine-tunings on up to 16,000 cells"
    assert estimates(cells=32_000)["models.m"][1] == pytest.approx(2 * pretraining)
    assert estimates(rate=2e11)["models.m"][1] == pytest.approx(pretraining / 2)
    assert pretraining / 2 < estimates(n_threads=4)["models.m"][1] < pretraining
    fewer = estimates(task=TASK.model_copy(update={"seeds": [1]}))["tasks.t"]
    assert fewer[0].startswith("5 fine-tunings") and fewer[1] == pytest.approx(finetuning / 2)
    # A head alone costs nothing, and its cells are encoded once for all runs.
    frozen = TASK.model_copy(update={"adapter": "none"})
    encoding = estimates(task=frozen)["tasks.t"][1]
    assert 0 < encoding < finetuning / 10
    assert estimates(task=frozen.model_copy(update={"seeds": [1]}))["tasks.t"][1] == encoding
    assert estimates(task=frozen.model_copy(update={"views": 6}))["tasks.t"][1] == pytest.approx(
        2 * encoding
    )
    # A quarter of the labels is seen twice as often.
    shared = estimates(task=TASK.model_copy(update={"label_shares": [0.25]}))["tasks.t"]
    assert shared[0].startswith("20 ") and shared[1] == pytest.approx(1.5 * finetuning)


def test_what_is_long_on_a_cpu_is_said_with_the_remedy():
    text = cost.describe_cost("pretraining on 16,000 cells, 10 epochs", 84 * 3600, 2, 0)
    assert text == (
        "pretraining on 16,000 cells, 10 epochs: about 84 h on 2 cores of this machine's CPU; "
        "a model of this size needs a GPU; without one choose size: small"
    )
    assert cost.describe_cost("w", 84 * 3600, 2, 1).endswith(
        "CPU; the GPU of this machine is used instead"
    )
    assert cost.describe_cost("w", 300, 2, 0) == "w: about 5 min on 2 cores of this machine's CPU"
    assert [format_estimate(hours * 3600) for hours in (1.5, 30, 240)] == [
        "1 h 30 min",
        "30 h",
        "10 days",
    ]


def test_products_are_measured_and_no_kind_is_free():
    rate = cost.measure_product_rate(256, 0.05)
    assert 1e8 < rate < 1e13
    for kind in ({"products": 1e9}, {"attention": 1e9}, {"elements": 1e9}):
        operations = Operations(**{"products": 0, "attention": 0, "elements": 0} | kind)
        assert cost.estimate_cpu_seconds(operations, rate, 1) > 0
