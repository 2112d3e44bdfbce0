"""The paper's size, forward and backward, on tensors without values: shapes, memory, parameters.

Fake tensors run the same operations as real ones and hold nothing, so that seconds on a CPU
tell what 22,000 genes take. Only of the paper's architecture: the number of expressed genes
depends on values.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scdyn.model import adapters, classifier
from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import set_precision
from scdyn.model.paper import PaperModel
from scdyn.settings import HeadSettings
from scdyn.training import masked as masking

CONFIG = ModelConfig.full_size()
N_GENES, N_TFS, N_LATENTS = 22_000, 1_500, 500
# Hidden genes of a cell: 15% of the 6,000 that it expresses.
N_HIDDEN = 900
N_CLASSES, RANK = 15, 8
MIB = 2**20


class Shapes(TorchDispatchMode):
    """Notes the shape of every tensor that an operation makes, in the backward pass, too."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                # Numbers of genes that only values would tell have no size: less than all hidden.
                self.seen.add(tuple(n if isinstance(n, int) else N_HIDDEN for n in leaf.shape))
        return result


def run(make, n_cells):
    """Run a loss of ``n_cells`` forward and backward.

    ``make`` returns a module and a function of its loss for so many cells. Returned are the
    module, the shapes of all that was computed, and the bytes that the forward pass keeps for
    the backward one.
    """
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.device("meta"):
        module, compute_loss = make()
    with FakeTensorMode(shape_env=ShapeEnv()), Shapes() as shapes:
        for part in module.modules():
            for name, p in part.named_parameters(recurse=False):
                fake = torch.empty(p.shape)
                part.register_parameter(name, torch.nn.Parameter(fake, p.requires_grad))
            for name, b in part.named_buffers(recurse=False):
                part.register_buffer(name, torch.empty(b.shape, dtype=b.dtype))
        held = {p.untyped_storage()._cdata for p in module.parameters()}
        shapes.seen.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = compute_loss(n_cells)
        loss.backward()
    n_bytes = sum(n for key, n in kept.items() if key not in held and isinstance(n, int))
    return module, shapes.seen, n_bytes


def saved_per_cell(make):
    """Bytes kept for the backward pass that each cell adds."""
    few, more = (run(make, n)[2] for n in (2, 4))
    return (more - few) / 2


def assert_no_scores(shapes):
    """No tensor holds a number for each pair of genes, or of a cell's genes and latents."""
    for shape in shapes:
        pair = shape[-2:]
        assert pair.count(N_GENES) < 2, shape
        if len(shape) > 2 and N_LATENTS in pair:
            assert not {N_GENES, N_TFS, N_HIDDEN, 12 * N_GENES} & set(pair), shape


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request):
    return request.param


@pytest.fixture
def masked(monkeypatch, precision):
    def make():
        model = PaperModel(CONFIG)
        set_precision(model, precision)

        def compute_loss(n_cells):
            bins = torch.zeros(2, n_cells, N_GENES, dtype=torch.int32)
            genes = torch.zeros(n_cells, N_HIDDEN, dtype=torch.long)
            hidden = torch.ones(n_cells, N_HIDDEN, dtype=torch.bool)
            # How many genes are hidden depends on values, which are not there.
            monkeypatch.setattr(masking, "mask_genes", lambda *_: (*bins, genes, hidden))
            losses = masking.masked_losses(model, *bins, 0.15, 0)
            return losses[0].mean() + losses[1].mean()

        return model, compute_loss

    return make


@pytest.fixture(params=["lora", "full"])
def labelled(request, precision):
    def make():
        model = PaperModel(CONFIG)
        set_precision(model, precision)
        encoder = adapters.adapt(model, request.param, RANK)
        head = classifier.make_head(CONFIG, N_CLASSES, HeadSettings())
        whole = classifier.Classifier(encoder, head, [str(i) for i in range(N_CLASSES)])

        def compute_loss(n_cells):
            counts = torch.zeros(2, n_cells, N_GENES, dtype=torch.int16)
            targets = torch.zeros(n_cells, dtype=torch.long)
            return torch.nn.functional.cross_entropy(whole(*counts), targets)

        return whole, compute_loss

    return make


# Without compilation and checkpoints, in MiB.
MOST = {
    "masked": {"float32": 2200, "bfloat16": 1200},
    "labelled": {"float32": 2400, "bfloat16": 1300},
}


def test_a_cell_of_pretraining_keeps_less_memory_than_stated(masked, precision):
    most = MOST["masked"][precision]
    assert 0.9 * most < saved_per_cell(masked) / MIB < most


def test_a_cell_of_fine_tuning_keeps_less_memory_than_stated(labelled, precision):
    most = MOST["labelled"][precision]
    assert 0.9 * most < saved_per_cell(labelled) / MIB < most


def test_masked_pretraining_reaches_every_parameter_without_a_matrix_of_scores(masked):
    model, shapes, _ = run(masked, 2)
    assert (2, N_GENES, CONFIG.ffn_width) in shapes and (2, N_HIDDEN, CONFIG.width) in shapes
    assert_no_scores(shapes)
    assert all(p.grad.shape == p.shape for p in model.parameters())
    width, ffn = CONFIG.width, CONFIG.ffn_width
    projections = 2 * width**2 + width + width * width // CONFIG.n_heads
    per_layer = projections + 4 * width + 2 * width * ffn + ffn + width
    n_bins = CONFIG.n_bins + 1
    expected = (
        12 * per_layer + 6 * N_LATENTS * (N_TFS + N_GENES)
        + (N_GENES + 2 * (n_bins + 2)) * width  # embeddings
        + 2 * width + 2 * (width + 1) * n_bins  # last norm and decoders
    )  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == expected


def test_fine_tuning_trains_what_it_says_without_a_matrix_of_scores(labelled):
    whole, shapes, _ = run(labelled, 2)
    assert (2, N_CLASSES) in shapes
    assert_no_scores(shapes)
    trained = {name: p for name, p in whole.named_parameters() if p.requires_grad}
    # The decoders are of pretraining alone.
    missing = {name for name, p in trained.items() if p.grad is None}
    assert all("decoder" in name for name in missing)
    if any("lora_" in name for name in trained):
        widths = [(96, 96), (96, 8), (96, 96), (96, 768), (768, 96)]  # of the adapted layers
        n_lora = sum(p.numel() for name, p in trained.items() if "lora_" in name)
        assert n_lora == 12 * RANK * sum(map(sum, widths))
        assert not missing and all("lora_" in n or n.startswith("head.") for n in trained)


def test_a_matrix_of_scores_would_be_seen(masked):
    """Attention that writes its scores, as torch does where no fused kernel serves."""
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        _, shapes, _ = run(masked, 2)
    with pytest.raises(AssertionError, match=", 500"):
        assert_no_scores(shapes)


def test_representations_and_logits_have_their_shapes():
    with torch.device("meta"):
        model = PaperModel(CONFIG)
        bins = torch.zeros(2, 3, N_GENES, dtype=torch.int32)
        genes = torch.zeros(3, N_HIDDEN, dtype=torch.long)
        assert model(*bins).shape == (3, N_GENES, CONFIG.width)
        asked = model(*bins, genes)
        assert asked.shape == (3, N_HIDDEN, CONFIG.width)
        assert [part.shape for part in model.decode(asked)] == 2 * [(3, N_HIDDEN, 15)]
        tokens = model.run_to_last_full_layer(*bins)
        assert tokens.shape == (3, N_GENES, CONFIG.width)
        attention = model.layers[model.last_full_layer()].attention
        assert attention.latents(tokens).shape == (3, N_LATENTS, 8)
