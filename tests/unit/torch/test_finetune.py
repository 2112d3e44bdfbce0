"""Adapters that change nothing before training, classifiers that learn, and their files."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import peft
import pytest
import torch
from conftest import make_encoder
from peft import PeftModel
from safetensors.torch import save_file
from scipy import sparse

from scdyn.data.loader import NOT_MEASURED, MemoryStore, densify
from scdyn.errors import InputError
from scdyn.io.files import sha256
from scdyn.model import adapters, classifier, embedding, lora, pretrained
from scdyn.model.architecture import ModelConfig
from scdyn.model.layers import Linear, set_precision
from scdyn.settings import HeadSettings, VariantSettings
from scdyn.tasks import finetuning
from scdyn.tasks.predictions import read_predictions
from scdyn.training.loop import TrainingConfig

SETTINGS = VariantSettings(
    adapter="lora", penalty=0.0, rank=4, n_pools=4, hidden=16, dropout=0.0,
    head_steps=1, thinning=1.0,  # cells of 30 counts
    training={"epochs": 2, "batch_size": 9, "learning_rate": 5e-3},
)  # fmt: skip


def fit(model, cells, epochs=12, **changes):
    store, labels = cells
    config = TrainingConfig(epochs=epochs, batch_size=9, learning_rate=5e-3)
    rows = np.arange(len(labels))
    return finetuning.fit_classifier(
        model, store, rows, labels, SETTINGS.model_copy(update=changes), config
    )[0]


def probabilities(trained, store, rows):
    return classifier.run_classifier(trained, store, rows)[0]


def represent(encoder, counts):
    """Representations of all tokens, those of the paper's not as differences."""
    if encoder.config.architecture == "paper":
        return encoder(*encoder.bin(*counts))
    return encoder(*counts).values


@pytest.fixture
def trained(encoder, cells):
    return fit(encoder, cells)


@pytest.mark.parametrize("how", ["lora", "nonlinear", "full", "none"])
def test_wrapped_equals_base_at_initialisation(encoder, counts, how):
    expected = represent(encoder.double(), counts).detach()
    wrapped = adapters.adapt(encoder, how, 4).double()
    torch.testing.assert_close(represent(wrapped, counts), expected, rtol=1e-12, atol=1e-12)


def test_every_layers_attention_and_ffn_is_adapted_and_nothing_else_trained(encoder):
    wrapped = adapters.adapt(encoder, "lora", 4)
    names = [name for name, p in wrapped.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in names)
    for i in range(4):
        for part in ("query", "key_value", "output", "ffn_in", "ffn_out"):
            found = [name for name in names if f"layers.{i}." in name and f".{part}." in name]
            assert len(found) == 2, (i, part)


@pytest.mark.parametrize("how", ["nonlinear", "full", "none"])
def test_other_ways_train_what_they_say_and_learn(encoder, cells, how):
    if encoder.config.architecture == "expressed":
        embedding.start_from_components(encoder, cells[0], np.arange(90), seed=1)
    before = {name: p.clone() for name, p in encoder.state_dict().items()}
    trained = fit(encoder, cells, adapter=how)
    p = probabilities(trained, cells[0], np.arange(90))
    assert (np.array(trained.classes)[p.argmax(1)] == cells[1]).mean() > 0.9
    after = {name.replace(".base.", "."): p for name, p in trained.encoder.state_dict().items()}
    changed = {name for name, p in before.items() if not torch.equal(p, after[name])}
    added = set(after) - set(before)
    if how == "full":
        assert "layers.0.ffn_in.weight" in changed and not added
    else:
        assert not changed
        assert bool(added) == (how == "nonlinear")
        # Two matrices and a bias for each of the five layers that are adapted, in four layers.
        assert len(added) == (4 * 5 * 3 if how == "nonlinear" else 0)


@pytest.mark.parametrize("modality", ["rna", "promoter"])
def test_one_modality_alone_is_all_that_is_read(encoder, cells, modality):
    trained = fit(encoder, cells, modalities=modality)
    rna, promoter = densify(cells[0], np.arange(5))
    hidden = {"rna": (rna, promoter * 0 + 3), "promoter": (rna * 0 + 3, promoter)}[modality]
    torch.testing.assert_close(trained(rna, promoter), trained(*hidden))
    p = probabilities(trained, cells[0], np.arange(90))
    right = np.array(trained.classes)[p.argmax(1)] == cells[1]
    told = cells[1] == {"rna": "x", "promoter": "y"}[modality]
    assert right[told].mean() > 0.9


def test_trained_differs_from_base_and_equals_its_merged_form(trained, counts):
    wrapped = trained(*counts)
    with trained.encoder.disable_adapter():
        assert not torch.allclose(trained(*counts), wrapped, atol=1e-3)
    torch.testing.assert_close(trained.merge()(*counts), wrapped, rtol=1e-4, atol=1e-5)


def as_peft_wraps(encoder, make):
    """Wrap a model whose layers are torch's own, with none of our LoRA layers."""
    for module in encoder.modules():
        if type(module) is Linear:
            module.__class__ = torch.nn.Linear
    wrapped = make(encoder)
    assert type(wrapped.get_base_model().layers[0].ffn_in) is peft.tuners.lora.Linear
    return wrapped


def draw_adapters(wrapped):
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_(std=0.1)
    return trained


def test_adapters_train_in_one_product_as_in_pefts_own_layers(encoder, counts):
    wrapped = adapters.adapt(encoder, "lora", 4)
    draw_adapters(wrapped)
    settings = peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(adapters.ADAPTED))
    plain = make_encoder(encoder.config)
    own = as_peft_wraps(plain, lambda plain: peft.get_peft_model(plain, settings))
    own.load_state_dict(wrapped.state_dict())
    results = []
    for each in (wrapped.double(), own.double()):
        trained = [p for p in each.parameters() if p.requires_grad]
        output = represent(each, counts)
        results.append([output, *torch.autograd.grad(output.square().sum(), trained)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_written_adapter_is_read_by_peft_alone(encoder, counts, tmp_path):
    weights = copy.deepcopy(encoder.state_dict())
    wrapped = adapters.adapt(encoder, "lora", 4)
    draw_adapters(wrapped)
    adapters.save_adapter(wrapped, "lora", False, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"adapter_config.json", lora.LORA_FILE}
    plain = make_encoder(encoder.config)
    plain.load_state_dict(weights)
    read = as_peft_wraps(plain, lambda plain: PeftModel.from_pretrained(plain, tmp_path)).eval()
    expected = represent(wrapped, counts)
    torch.testing.assert_close(represent(read, counts), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        represent(read.merge_and_unload(), counts),
        represent(adapters.merge_adapters(wrapped), counts),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("how", ["lora", "nonlinear"])
def test_adapters_work_in_bfloat16(encoder, counts, how):
    base = represent(encoder, counts).detach()
    wrapped = adapters.adapt(encoder, how, 4)
    draw_adapters(wrapped)
    results = {}
    for precision in ("float32", "bfloat16"):
        set_precision(encoder, precision)
        trained = [p for p in wrapped.parameters() if p.requires_grad]
        output = represent(wrapped, counts)
        gradients = torch.autograd.grad(output.square().sum(), trained)
        assert output.dtype == torch.float32 and {g.dtype for g in gradients} == {torch.float32}
        results[precision] = output.detach()
    assert (results["float32"] - base).norm() > 0.1 * base.norm()  # the adapters count
    error = (results["bfloat16"] - results["float32"]).norm() / results["float32"].norm()
    assert 0 < error < 0.02
    if how == "lora":
        with wrapped.disable_adapter():
            assert (represent(wrapped, counts) - base).norm() < 0.02 * base.norm()


def test_silent_genes_and_the_rest_of_the_batch_do_not_count(trained, cells):
    rna, promoter = densify(cells[0], np.arange(5))
    together = trained(rna, promoter)
    alone = torch.cat([trained(rna[i : i + 1], promoter[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    if trained.encoder.config.architecture == "paper":
        zero = torch.zeros_like(rna[:1])
        tokens = trained.encoder.describe(zero, zero)
        others = tokens._replace(values=torch.randn_like(tokens.values))
        torch.testing.assert_close(trained(zero, zero), trained.head(others))


def test_classes_are_learned(trained, cells):
    store, labels = cells
    p = probabilities(trained, store, np.arange(90))
    np.testing.assert_allclose(p.sum(1), 1)
    assert (np.array(trained.classes)[p.argmax(1)] == labels).mean() > 0.95


def test_classes_are_learned_from_thinned_counts(model, cells):
    p = probabilities(fit(model, cells, thinning=0.5), cells[0], np.arange(90))
    assert (np.array(["x", "y", "z"])[p.argmax(1)] == cells[1]).mean() > 0.95


def test_classes_are_learned_with_the_full_sizes_dropout(both_configs, cells):
    dropout = ModelConfig.full_size().dropout
    assert dropout == 0.1
    trained = fit(make_encoder(replace(both_configs, dropout=dropout)), cells)
    p = probabilities(trained, cells[0], np.arange(90))
    assert (np.array(trained.classes)[p.argmax(1)] == cells[1]).mean() > 0.95
    np.testing.assert_array_equal(p, probabilities(trained, cells[0], np.arange(90)))


@pytest.fixture
def dropping(both_configs):
    """A classifier in training mode whose encoder drops a third, and its head nothing."""
    encoder = adapters.adapt(make_encoder(replace(both_configs, dropout=0.3)), "lora", 4)
    head = classifier.make_head(both_configs, 3, HeadSettings(n_pools=4, hidden=16, dropout=0.0))
    return classifier.Classifier(encoder, head, list("xyz")).train()


@pytest.mark.parametrize("both_configs", ["paper"], indirect=True)
def test_cells_without_counts_are_encoded_without_dropout(dropping, counts):
    seen, encoder = [], dropping.encoder.get_base_model()
    encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for _ in range(2):
        dropping(*counts)
    assert all(module.training for module in dropping.modules())
    one, zero, other, same = seen
    assert not torch.equal(one, other) and torch.equal(zero, same)
    zero.sum().backward()  # and yet they are trained through
    assert any(p.grad is not None and p.grad.any() for p in encoder.parameters())
    torch.testing.assert_close(encoder.eval().encode_zero_cells(), zero)


@pytest.mark.parametrize("both_configs", ["paper"], indirect=True)
def test_a_cell_without_counts_pools_to_nothing_in_training_too(dropping, counts):
    pooled = []
    dropping.head.norm.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    rna, promoter = (part.clone() for part in counts)
    rna[2] = promoter[2] = 0
    dropping(rna, promoter)
    assert not pooled[0][2].any() and pooled[0][[0, 1, 3]].any(1).all()


@torch.no_grad()
def test_the_noise_of_dropout_is_each_cells_own(dropping, counts):
    """One that the cells without counts brought would be alike in all cells of a batch."""
    values, is_paper = [], isinstance(dropping.head, classifier.PooledHead)
    dropping.head.register_forward_pre_hook(
        lambda _, inputs: values.append(inputs[0].values if is_paper else inputs[0].features)
    )
    twice = [part[:1].repeat(2, 1) for part in counts]
    for _ in range(60):
        dropping(*twice)
    noise = torch.stack(values)  # (draws, cells, genes, width)
    noise = (noise - noise.mean(0)).flatten(2)
    correlation = (noise[:, 0] * noise[:, 1]).sum() / noise.square().sum() * 2
    assert abs(correlation) < 0.1


def write_model(model, folder):
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    content = {
        "model": model.config.to_dict(),
        "model_sha256": sha256(folder / "model.safetensors"),
        "tokens": {"vocabulary_sha256": "abc"},
    }
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("how", ["lora", "nonlinear", "full", "none"])
@pytest.mark.parametrize("from_pretrained", [True, False])
def test_classifier_comes_back_from_its_files(encoder, cells, tmp_path, how, from_pretrained):
    write_model(encoder, tmp_path / "model")
    if not from_pretrained:
        adapters.reinitialise(encoder, 5)
    settings = SETTINGS.model_copy(update={"adapter": how, "pretrained": from_pretrained})
    made = fit(encoder, cells, 3, adapter=how)
    splits = pd.DataFrame({"cell": np.arange(90).astype(str), "label": cells[1]})
    store = NamedStore(cells[0].rna, cells[0].promoter)
    predict = finetuning.make_predict(made, store, None)
    finetuning.calibrate(made, predict, splits[1::2])
    (tmp_path / "task").mkdir()
    weights = {"model_sha256": sha256(tmp_path / "model" / "model.safetensors")}
    made.save(tmp_path / "task", settings, weights)
    names = {path.name for path in (tmp_path / "task").iterdir()}
    own = {
        "lora": {"adapter_config.json", "adapter_model.safetensors"},
        "nonlinear": {"adapter_nonlinear.safetensors"},
        "full": {"encoder.safetensors"},
        "none": set(),
    }[how]
    own |= set() if from_pretrained else {"encoder.safetensors"}
    assert names == own | {"head.safetensors", "familiar.safetensors", "task.json"}
    loaded = classifier.load_classifier(tmp_path / "task", tmp_path / "model")
    predicted = splits.assign(fold="0")
    expected = finetuning.predict_cells(made, predict, predicted, {"method": "m"})
    predict = finetuning.make_predict(loaded, store, None)
    found = finetuning.predict_cells(loaded, predict, predicted, {"method": "m"})
    # Ranks among the validation cells, which float noise can exchange.
    ranks = [table.pop("familiarity") for table in (found, expected)]
    np.testing.assert_allclose(*ranks, atol=0.1)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-5)


class NamedStore(MemoryStore):
    """Cells that go by their number."""

    def find_rows(self, names):
        return np.array([int(name) for name in names])


def test_models_and_tokens_that_do_not_belong_together_are_refused(model, cells, tmp_path):
    write_model(model, tmp_path / "model")
    made = fit(model, cells, 1)
    (tmp_path / "task").mkdir()
    weights = {"model_sha256": sha256(tmp_path / "model" / "model.safetensors")}
    made.save(tmp_path / "task", SETTINGS, weights)

    other = adapters.reinitialise(make_encoder(model.config), 7)
    write_model(other, tmp_path / "other")
    with pytest.raises(InputError, match="another pretrained model"):
        classifier.load_classifier(tmp_path / "task", tmp_path / "other")
    with pytest.raises(InputError, match="another vocabulary"):
        pretrained.load_model(tmp_path / "other", {"vocabulary_sha256": "xyz"})
    with pytest.raises(InputError, match="another vocabulary"):
        tokens = {"vocabulary_sha256": "xyz"}
        classifier.load_classifier(tmp_path / "task", tmp_path / "model", tokens)
    save_file(other.state_dict(), tmp_path / "model" / "model.safetensors")
    with pytest.raises(InputError, match="does not belong to its config.json"):
        pretrained.load_model(tmp_path / "model")


def test_weights_of_another_architecture_are_refused(encoder, tmp_path):
    write_model(encoder, tmp_path / "model")
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    names = {"paper": "expressed", "expressed": "paper"}
    content["model"]["architecture"] = names[content["model"]["architecture"]]
    (tmp_path / "model" / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="model.safetensors does not fit config.json"):
        pretrained.load_model(tmp_path / "model")


def test_a_model_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        pretrained.load_model(tmp_path)


@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize(
    "name", ["model/model.safetensors", "model/config.json", "task/task.json",
             "task/head.safetensors", "task/adapter_model.safetensors",
             "task/familiar.safetensors"],
)  # fmt: skip
def test_a_model_that_was_cut_short_is_named_with_what_to_do(model, cells, tmp_path, name, share):
    write_model(model, tmp_path / "model")
    made = fit(model, cells, 1)
    made.familiar = np.arange(5, dtype=np.float32)
    (tmp_path / "task").mkdir()
    weights = {"model_sha256": sha256(tmp_path / "model" / "model.safetensors")}
    made.save(tmp_path / "task", SETTINGS, weights)
    os.truncate(tmp_path / name, int(share * (tmp_path / name).stat().st_size))
    folder = (tmp_path / name).parent
    with pytest.raises(InputError, match=f"{folder}.*: .*(remove the|fine-tune again)"):
        if name.startswith("model"):
            pretrained.load_model(folder)
        classifier.load_classifier(tmp_path / "task", tmp_path / "model")


@pytest.mark.parametrize("architecture", ["expressed", "paper"])
def test_gradients_of_cells_without_promoters_are_the_same_each_time(architecture):
    """On two threads, too: what threads sum, they sum in one order."""
    encoder = make_encoder(ModelConfig(
        100, 20, architecture, width=16, n_layers=1, n_heads=2, n_latents=8, ffn_width=16,
        n_pools=2, cell_width=4,
    ))  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    rna, promoter = torch.randint(0, 3, (2, 48, 100), generator=generator, dtype=torch.int16)
    promoter[::3] = NOT_MEASURED
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = []
        for _ in range(5):
            encoder.zero_grad()
            represent(encoder, (rna, promoter)).square().sum().backward()
            gradients = [p.grad.flatten() for p in encoder.parameters() if p.grad is not None]
            found.append(torch.cat(gradients))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)


def test_cells_without_promoters_are_called_beside_others(trained, cells):
    store = MemoryStore(cells[0].rna, cells[0].promoter, np.arange(90) % 2 == 0)
    trained.merge()
    together = probabilities(trained, store, np.arange(6))
    for rows in (np.array([0, 2, 4]), np.array([1, 3, 5])):
        apart = probabilities(trained, store, rows)
        np.testing.assert_allclose(together[rows], apart, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_nothing_is_learned_from_cells_that_are_called(encoder, cells, tmp_path, adapter):
    """Poison: labels and values of the predicted cells change, and no file of the model does."""
    settings = SETTINGS.model_copy(update={"adapter": adapter})
    write_model(encoder, tmp_path / "model")
    (tmp_path / "model" / "vocabulary.tsv").touch()
    store = NamedStore(cells[0].rna, cells[0].promoter)
    store.meta = {"vocabulary_sha256": "abc"}
    split = pd.DataFrame({"cell": np.arange(90).astype(str), "label": cells[1]})
    split["fold"] = np.where(np.arange(90) % 3 == 0, "0", "1")
    split.loc[85:, "fold"] = "predict"
    split["validation"] = np.where(np.arange(90) % 5 == 0, "1", "0")
    predicted = (split["fold"] != "1").to_numpy()

    def files_of(name, store, split):
        folder = tmp_path / name
        finetuning.finetune_run(
            store, split, "scdynomics", 1, "0", settings, tmp_path / "model", folder, folder / "c"
        )
        task = json.loads((folder / "task.json").read_text())
        weights = [sha256(path) for path in sorted(folder.glob("*.safetensors"))]
        weights.append(sha256(folder / "validation.parquet"))
        return weights, task["temperature"], task["n_training_cells"]

    clean = files_of("clean", store, split)
    rna, promoter = store.rna.toarray(), store.promoter.toarray()
    rna[predicted], promoter[predicted] = 5, 5
    poisoned = NamedStore(sparse.csr_matrix(rna), sparse.csr_matrix(promoter))
    poisoned.meta = store.meta
    lies = split.assign(label=split["label"].where(~predicted, "poison"))
    assert files_of("poisoned", poisoned, lies) == clean
    table = read_predictions(tmp_path / "poisoned" / "predictions.parquet")
    assert set(table["label"]) == {"poison"} and len(table) == predicted.sum()


def test_only_lora_imports_peft():
    code = "import sys, scdyn.explain.runs; assert not {'peft', 'transformers'} & set(sys.modules)"
    library = Path(finetuning.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=library)
