"""Which models a task's block means, and with which seeds."""

from scdyn.tasks import settings as task_settings

TASK = {
    **dict.fromkeys(task_settings.DECISIVE), "adapter": "lora", "modalities": "both",
    "training": {"learning_rate": 0.1, "epochs": 2}, "seeds": [1, 2], "folds": 2,
    "variants": {
        "rna": {"modalities": "rna", "seeds": [1]},
        "full": {"adapter": "full", "learning_rate": 0.01},
    },
    "label_shares": [0.1], "left_out": ["x y"],
}  # fmt: skip


def test_variants_differ_from_the_main_model_in_what_they_say():
    variants = task_settings.variants_of(TASK)
    assert list(variants) == [
        "scdynomics", "scdynomics_rna", "scdynomics_full", "labels_0.1", "without_0"
    ]  # fmt: skip
    main = variants["scdynomics"]
    assert variants["scdynomics_rna"] == main | {"modalities": "rna"}
    full = main["training"] | {"learning_rate": 0.01}
    assert variants["scdynomics_full"] == main | {"adapter": "full", "training": full}
    assert variants["labels_0.1"] == main | {"labels": 0.1}
    assert variants["without_0"] == main | {"without": "x y"}
    assert [name for name in variants if task_settings.is_compared(name)] == list(variants)[:3]


def test_runs_are_seeds_by_folds_unless_the_variant_has_its_own():
    runs = {name: task_settings.runs_of(TASK, name) for name in task_settings.variants_of(TASK)}
    assert runs["scdynomics"] == runs["labels_0.1"] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert runs["scdynomics_rna"] == [(1, 0), (1, 1)]
    assert runs["without_0"] == [(1, 0)]
    assert task_settings.alone(TASK) == {"rna": "scdynomics_rna"}


def test_a_variant_or_a_seed_more_leaves_the_split_as_it_is():
    task = {**TASK, "label": "x", "train": {}, "predict": None, "split_by": None}
    task |= {"validation_share": 0.1, "min_cells_per_class": None, "min_units": 2}
    more = {**task, "seeds": [*task["seeds"], 9], "variants": {}, "explain": False}
    assert task_settings.of_split(more) == task_settings.of_split(task)
    assert task_settings.of_split({**task, "seeds": [2, 1]}) != task_settings.of_split(task)


def test_baselines_know_their_runs_from_their_own_settings():
    settings = task_settings.of_baselines({**TASK, "baselines": ["knn"]})
    assert list(task_settings.less_seen(settings)) == ["labels_0.1", "without_0"]
    assert len(task_settings.runs_of(settings, "labels_0.1")) == 4
