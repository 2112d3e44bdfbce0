"""Promise: no model, adapter, checkpoint or tokens runs code when it is loaded.

Each is loaded as the workflow and a notebook load it. Runs in the environment `torch`.
"""

import json
import pickle
import shutil
import sys
from dataclasses import replace

import numcodecs
import pytest
import torch
from payload import Payload, file_that_tells  # noqa: F401, a fixture
from safetensors.torch import save_file
from small_corpus import make_sample, write_corpus

from scdyn.data.pca import open_pca
from scdyn.errors import InputError
from scdyn.io.files import sha256
from scdyn.io.shards import Shard, write_shard
from scdyn.model import adapters, classifier, pretrained
from scdyn.model.architecture import ModelConfig
from scdyn.model.classifier import Classifier, make_head
from scdyn.model.paper import PaperModel
from scdyn.model.transformer import ScDynOmics
from scdyn.settings import FineTuningSettings
from scdyn.training.checkpoint import Checkpoint

CONFIG = ModelConfig(
    n_genes=17, n_tfs=5, n_bins=6, width=12, n_layers=2, n_heads=3, n_latents=4, ffn_width=20
)
TASK = FineTuningSettings(adapter="lora", rank=2, n_pools=3, hidden=4, dropout=0.0)


@pytest.fixture(params=["expressed", "paper"])
def folders(request, tmp_path):
    """A pretrained model, and one fine-tuned from it."""
    torch.manual_seed(0)
    config = replace(CONFIG, architecture=request.param)
    model = (PaperModel if request.param == "paper" else ScDynOmics)(config).eval()
    base, task = tmp_path / "model", tmp_path / "task"
    base.mkdir()
    task.mkdir()
    save_file(model.state_dict(), base / "model.safetensors")
    content = {
        "model": model.config.to_dict(),
        "model_sha256": sha256(base / "model.safetensors"),
        "tokens": {"vocabulary_sha256": "abc"},
    }
    (base / "config.json").write_text(json.dumps(content))
    head = make_head(model.config, 2, TASK)
    tuned = Classifier(adapters.adapt(model, "lora", 2), head, ["x", "y"], "both")
    tuned.save(task, TASK, {"model_sha256": sha256(base / "model.safetensors")})
    return base, task


def load(folders):
    return classifier.load_classifier(folders[1], folders[0])


def pickled(ran):
    return pickle.dumps({"weights": Payload(ran)})


def torch_saved(ran, path):
    torch.save({"weights": Payload(ran)}, path)
    return path.read_bytes()


def test_the_good_ones_load_and_the_payload_works(folders, tmp_path):
    called = load(folders)(*torch.zeros(2, 1, CONFIG.n_genes, dtype=torch.int16))
    assert called.shape == (1, 2)
    pickle.loads(pickled(tmp_path / "worked"))
    assert (tmp_path / "worked").exists()


def test_a_pickle_in_the_place_of_an_adapter_is_not_read(folders, ran):
    (folders[1] / "adapter_model.safetensors").unlink()
    torch_saved(ran, folders[1] / "adapter_model.bin")
    with pytest.raises(InputError, match="cannot be read as a fine-tuned model"):
        load(folders)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "head.safetensors"])
def test_a_pickle_by_a_safe_name_is_not_read(folders, ran, name):
    (folders[1] / name).write_bytes(pickled(ran))
    with pytest.raises(InputError, match="cannot be read as a fine-tuned model"):
        load(folders)


def test_a_pickled_model_is_not_read(folders, ran):
    torch_saved(ran, folders[0] / "pytorch_model.bin")
    (folders[0] / "model.safetensors").write_bytes(pickled(ran))
    with pytest.raises(InputError, match="cannot be read as a model.s weights"):
        pretrained.load_model(folders[0])
    (folders[0] / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read as a model.s weights"):
        pretrained.load_model(folders[0])


def test_what_an_adapters_config_names_is_not_imported(folders, ran, tmp_path, monkeypatch):
    """peft imports `megatron_core` and what `auto_mapping` says; here the file is not read."""
    (tmp_path / "evil.py").write_text(f"import pathlib\npathlib.Path({str(ran)!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = folders[1] / "adapter_config.json"
    expected = load(folders)
    mapping = {"base_model_class": "Model", "parent_library": "evil"}
    evil = {"megatron_config": {"a": 1}, "megatron_core": "evil", "auto_mapping": mapping}
    evil |= {
        "base_model_name_or_path": "evil/evil",
        "peft_type": "XLORA",
        "target_modules": "(a+)+b",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | evil))
    loaded = load(folders)
    assert "evil" not in sys.modules
    for one, other in zip(expected.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_that_is_a_pickle_is_passed_over(ran, tmp_path):
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    checkpoint = Checkpoint(tmp_path / "checkpoints", {})
    checkpoint.save(module, optimizer, {"step": 1})
    (tmp_path / "checkpoints/step-000000001/state.safetensors").write_bytes(pickled(ran))
    assert checkpoint.restore(module, optimizer) is None


def write_pickled_array(folder, ran):
    """An array of format 2 whose codec unpickles, with its chunk where both formats look."""
    layout = {
        "zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "|O", "order": "C",
        "compressor": None, "fill_value": None, "filters": [numcodecs.Pickle().get_config()],
    }  # fmt: skip
    (folder / "c").mkdir(parents=True)
    (folder / ".zarray").write_text(json.dumps(layout))
    for chunk in ("0", "c/0"):
        (folder / chunk).write_bytes(pickled(ran))


@pytest.mark.parametrize("place", ["X/data", "X/indptr", "layers/promoter/indices"])
def test_counts_with_a_codec_that_unpickles_are_refused(ran, tmp_path, place):
    path = tmp_path / "s1.zarr"
    write_shard(path, make_sample())
    shutil.rmtree(path / place)
    write_pickled_array(path / place, ran)
    with pytest.raises(InputError, match="the counts cannot be read"):
        print(Shard(path).counts)


@pytest.mark.parametrize("place", ["obs/barcode", "obs/_index", "var/symbol"])
def test_tables_with_a_codec_that_unpickles_are_refused(ran, tmp_path, place):
    path = tmp_path / "s1.zarr"
    write_shard(path, make_sample())
    shutil.rmtree(path / place)
    write_pickled_array(path / place, ran)
    with pytest.raises(InputError, match="the counts cannot be read"):
        Shard(path).read_table(place.split("/")[0])


def test_components_with_a_codec_that_unpickles_are_refused(ran, tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    open_pca(corpus)
    shutil.rmtree(corpus.folder / "pca.zarr" / "rna")
    write_pickled_array(corpus.folder / "pca.zarr" / "rna", ran)
    with pytest.raises(InputError, match="cannot be read"):
        print(open_pca(corpus)["rna"])
