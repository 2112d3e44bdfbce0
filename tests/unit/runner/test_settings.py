"""What decides only how fast a result is there is no param, and reaches the script all the same."""

import pandas as pd
import pytest

from scdyn import settings
from scdyn.errors import InputError
from scdyn.pp.selection import select_samples

BLOCK = {
    "width": 8,
    "gpus": 4,
    "nodes": 2,
    "training": {"epochs": 3, "micro_batch": 16, "compiled": "auto"},
    "attribution_memory": None,
}


def test_settings_of_hardware_are_left_out_and_come_back():
    chosen = settings.decisive(BLOCK)
    assert chosen == {"width": 8, "training": {"epochs": 3}}
    assert settings.with_hardware(chosen, BLOCK) == BLOCK


def test_a_covariate_or_a_variant_may_have_the_name_of_a_setting_of_hardware():
    task = {"train": {"nodes": ["LN1"]}, "variants": {"nodes": {"modalities": "rna"}}}
    assert settings.decisive(task) == task == settings.with_hardware(task, task)


def test_a_variant_keeps_its_own_settings_beside_the_block_s_hardware():
    variant = {"training": {"epochs": 1}, "adapter": "lora"}
    whole = settings.with_hardware(variant, BLOCK)
    assert whole["training"] == {"epochs": 1, "micro_batch": 16, "compiled": "auto"}
    assert whole["adapter"] == "lora" and "width" not in whole


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
