"""What decides only how fast a result is there is no param, and reaches the script all the same."""

import pandas as pd
import pytest

from scdyn.errors import InputError
from scdyn.pp.selection import select_samples
from scdyn.settings import (
    ModelSettings,
    PretrainingSettings,
    SplitSettings,
    TaskSettings,
    VariantSettings,
)

MODEL = ModelSettings(
    corpus="c", architecture="paper", gpus=4, nodes=2,
    training={"epochs": 3, "micro_batch": 16, "compiled": True},
)  # fmt: skip
HARDWARE = {"gpus", "nodes", "micro_batch", "compiled", "attribution_memory"}


def keys_of(content):
    """Every key of nested mappings."""
    if isinstance(content, dict):
        return {*content, *(key for part in content.values() for key in keys_of(part))}
    return set()


def test_settings_of_hardware_are_left_out_and_come_back():
    own = MODEL.part(PretrainingSettings)
    chosen = own.without_hardware()
    assert keys_of(own.model_dump()) - keys_of(chosen) == HARDWARE - {"attribution_memory"}
    assert chosen["training"]["epochs"] == 3
    assert PretrainingSettings(**chosen).with_hardware(MODEL) == own
    task = TaskSettings(model="m", label="x", attribution_memory=2.0)
    for part in (task.explanation(), task.checks(), task.perturbations(), task.split()):
        assert not keys_of(part.without_hardware()) & HARDWARE
        assert type(part)(**part.without_hardware()).with_hardware(task) == part


def test_a_covariate_or_a_variant_may_have_the_name_of_a_setting_of_hardware():
    named = {"train": {"nodes": ["LN1"]}, "variants": {"nodes": {"modalities": "rna"}}}
    task = TaskSettings(model="m", label="x", **named)
    assert task.without_hardware().items() >= named.items()


@pytest.mark.parametrize("adapter", ["none", "lora", "full"])
@pytest.mark.parametrize("architecture", ["expressed", "paper"])
def test_settings_without_effect_do_not_decide_a_fine_tuned_model(architecture, adapter):
    variant = VariantSettings(adapter=adapter)
    used = variant.dump_used(architecture)
    for key in variant.list_unused(architecture):
        outer, _, name = key.rpartition(".")
        assert name not in (used[outer] if outer else used)
    assert ("rank" in used) == (adapter == "lora")
    head_only = (architecture, adapter) == ("expressed", "none")
    assert ("views" in used) == head_only and ("epochs" in used["training"]) != head_only
    assert VariantSettings(**used) == variant


def test_a_variant_keeps_its_own_settings_beside_the_block_s_hardware():
    task = TaskSettings(model="m", label="x", training={"micro_batch": 16, "compiled": False})
    variant = VariantSettings(training={"epochs": 1}, adapter="full").with_hardware(task)
    assert variant.training.epochs == 1 and variant.adapter == "full"
    assert (variant.training.micro_batch, variant.training.compiled) == (16, False)


def test_settings_stay_as_they_were_made():
    with pytest.raises(ValueError, match="frozen"):
        MODEL.width = 3


SHEET = pd.DataFrame(
    {"sample": ["a", "b", "c"], "condition": ["control", "control", "treated"]}
).set_index("sample", drop=False)


def test_a_selection_by_covariates_names_samples_and_one_by_labels_does_not():
    def chosen(selection):
        return select_samples(SHEET, selection, ["condition"], "models.m.cells")

    assert chosen({"condition": ["control"]}) == ["a", "b"]
    assert chosen({"condition": ["control"], "sample": ["b"]}) == ["b"]
    assert chosen({}) == ["a", "b", "c"]
    assert chosen({"cell_type": ["neuron"]}) is None
    with pytest.raises(InputError, match=r"models\.m\.cells: no cell has condition 'wt'"):
        chosen({"condition": ["wt"]})


def test_the_order_of_a_selection_s_columns_changes_no_param():
    ordered, other = (
        SplitSettings(label="t", train=train)
        for train in ({"a": ["x"], "b": ["y"]}, {"b": ["y"], "a": ["x"]})
    )
    assert repr(ordered.model_dump()) == repr(other.model_dump())
