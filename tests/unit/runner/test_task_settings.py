"""Which models a task's block means, and with which seeds."""

import pytest
from pydantic import ValidationError

from scdyn.settings import MAIN, BaselineSettings, TaskSettings, find_method, is_compared

BLOCK = {
    "model": "m", "label": "x", "training": {"learning_rate": 0.1, "epochs": 2},
    "seeds": [1, 2], "folds": 2,
    "variants": {
        "rna": {"modalities": "rna", "seeds": [1]},
        "full": {"adapter": "full", "learning_rate": 0.01},
    },
    "label_shares": [0.1], "left_out": ["x y"],
}  # fmt: skip
TASK = TaskSettings(**BLOCK)


def test_variants_differ_from_the_main_model_in_what_they_say():
    variants = TASK.all_variants()
    assert list(variants) == [
        "scdynomics", "scdynomics_rna", "scdynomics_full", "labels_0.1", "without_0"
    ]  # fmt: skip
    main = variants[MAIN].model_dump()
    assert {"adapter", "rank", "pretrained", "modalities", "training", "class_weights"} < set(main)
    assert variants["scdynomics_rna"].model_dump() == main | {"modalities": "rna"}
    full = main["training"] | {"learning_rate": 0.01}
    assert variants["scdynomics_full"].model_dump() == main | {"adapter": "full", "training": full}
    assert variants["labels_0.1"].model_dump() == main | {"labels": 0.1}
    assert variants["without_0"].model_dump() == main | {"without": "x y"}
    assert [name for name in variants if is_compared(name)] == list(variants)[:3]


def test_a_variant_from_a_random_start_is_also_trained_on_fewer_labels():
    block = BLOCK | {
        "variants": {"random_start": {"pretrained": False}, "rna": {"modalities": "rna"}}
    }
    variants = TaskSettings(**block).all_variants()
    name = "labels_0.1_random_start"
    assert [v for v in variants if v.startswith("labels")] == ["labels_0.1", name]
    assert variants[name].model_dump() == variants["scdynomics_random_start"].model_dump() | {
        "labels": 0.1
    }
    assert [find_method(v) for v in (name, "labels_0.1", "without_0", "scdynomics_rna")] == [
        "scdynomics_random_start", MAIN, MAIN, "scdynomics_rna"
    ]  # fmt: skip


def test_a_random_start_trains_all_parameters_unless_it_has_an_adapter():
    block = BLOCK | {"variants": {
        "random_start": {"pretrained": False}, "lora": {"adapter": "lora", "pretrained": False},
    }}  # fmt: skip
    trained = {name: v.trained for name, v in TaskSettings(**block).all_variants().items()}
    assert trained[MAIN] == trained["labels_0.1"] == "none"
    assert trained["scdynomics_random_start"] == "full" and trained["scdynomics_lora"] == "lora"


def test_variants_that_read_the_same_share_their_encoded_cells():
    block = BLOCK | {"variants": {
        "rna": {"modalities": "rna"}, "deep": {"thinning": 1.0}, "slow": {"learning_rate": 0.01},
        "lora": {"adapter": "lora"}, "random_start": {"pretrained": False},
    }}  # fmt: skip
    task = TaskSettings(**block)
    found = {name: task.find_encoded(name, "expressed") for name in task.all_variants()}
    assert found == {
        MAIN: MAIN, "scdynomics_slow": MAIN, "labels_0.1": MAIN, "without_0": MAIN,
        "scdynomics_rna": "scdynomics_rna", "scdynomics_deep": "scdynomics_deep",
        "scdynomics_lora": None, "scdynomics_random_start": None, "labels_0.1_random_start": None,
    }  # fmt: skip
    # Heads of the paper's model read tokens.
    assert not any(task.find_encoded(name, "paper") for name in task.all_variants())


def test_a_variant_is_recorded_as_what_differs():
    assert TASK.model_dump()["variants"] == BLOCK["variants"]


def test_runs_are_seeds_by_folds_unless_the_variant_has_its_own():
    runs = {name: TASK.runs_of(name) for name in TASK.all_variants()}
    assert runs["scdynomics"] == runs["labels_0.1"] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert runs["scdynomics_rna"] == [(1, 0), (1, 1)]
    assert runs["without_0"] == [(1, 0)]
    assert TASK.variants_of_one_modality() == {"rna": "scdynomics_rna"}
    start = {"random_start": {"pretrained": False, "seeds": [2]}}
    with_start = TaskSettings(**BLOCK | {"variants": start})
    assert with_start.runs_of("labels_0.1_random_start") == [(2, 0), (2, 1)]


def test_a_variant_or_a_seed_more_leaves_the_split_as_it_is():
    more = TaskSettings(**BLOCK | {"seeds": [1, 2, 9], "variants": {}, "explain": False})
    assert more.split() == TASK.split()
    assert TaskSettings(**BLOCK | {"seeds": [2, 1]}).split() != TASK.split()


def test_a_rule_depends_on_its_own_part_of_a_task_alone():
    parts = (TASK.split(), TASK.explanation(), TASK.checks(), TASK.perturbations())
    parts = {type(part).__name__: set(part.model_dump()) for part in parts}
    runs = {"split_by", "folds", "seeds"}
    own = {"explained_cells", "attribution_baseline", "steps", "attribution_memory"}
    assert parts["ExplanationSettings"] == runs | own
    assert parts["InSilicoSettings"] == runs | {"checked_cells", "in_silico"}
    assert parts["CheckSettings"] > parts["ExplanationSettings"] | {"checked_cells", "adapter"}
    assert not parts["SplitSettings"] & {"adapter", "training", "baselines", "variants"}


def test_baselines_know_their_runs_from_their_own_settings():
    settings = TaskSettings(**BLOCK | {"class_weights": "none"}).part(BaselineSettings)
    assert settings.class_weights == "none"
    assert list(settings.reduced_variants()) == ["labels_0.1", "without_0"]
    assert len(settings.runs_of("labels_0.1")) == 4


@pytest.mark.parametrize("name", ["ensemble", "rna_ensemble"])
def test_a_variant_has_no_name_of_an_ensemble(name):
    block = BLOCK | {"variants": {name: {"modalities": "rna"}}}
    with pytest.raises(ValidationError, match=f"the variant '{name}' has the name of an ensemble"):
        TaskSettings(**block)
