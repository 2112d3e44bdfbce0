"""The small study from raw files to report: contracts of every stage, and no empty success."""

import json
import math
import re

from conftest import snakemake
from file_contracts import differences
from study_summary import read


def test_every_stage_wrote_what_its_contract_says(small_study):
    results = small_study / "results"
    genes = read(results / "reference/genes.tsv")
    columns = ["gene_id", "symbol", "chrom", "strand", "length", "n_tss", "tss", "is_tf", "is_mt"]
    assert list(genes[0]) == columns
    is_tf = [gene["is_tf"] == "True" for gene in genes]
    assert is_tf == sorted(is_tf, reverse=True) and 10 < sum(is_tf) < len(genes)
    assert not any("." in gene["gene_id"] for gene in genes)

    qc = read(results / "ingest/wildtype_1.qc.tsv")
    dropped = [cell for cell in qc if cell["kept"] == "False"]
    assert dropped and all(cell["reason"] for cell in dropped)
    sources = {cell["promoter_source"] for cell in qc if cell["kept"] == "True"}
    assert sources == {"fragments"}
    alone = read(results / "ingest/wildtype_2.qc.tsv")
    assert {cell["promoter_source"] for cell in alone} == {"none"}
    n_alone = sum(cell["kept"] == "True" for cell in alone)

    edges = read(results / "grn/embryo/adjacencies.tsv")
    columns = "tf target importance n_runs correlation promoter_score promoter_p"
    assert list(edges[0]) == columns.split()
    assert {edge["n_runs"] for edge in edges} == {"1", "2"}
    regulons = read(results / "grn/embryo/regulons.tsv")
    assert {"regulon", "tf", "target", "weight", "n_runs", "promoter_p"} <= set(regulons[0])

    vocabulary = read(results / "tokens/embryo/vocabulary.tsv")
    assert [gene["gene_id"] for gene in vocabulary] == [gene["gene_id"] for gene in genes]
    assert any(gene["regulons"] for gene in vocabulary)

    config = json.loads((results / "pretrain/small/config.json").read_text())
    meta = json.loads((results / "tokens/embryo/meta.json").read_text())
    manifest = json.loads((results / "corpus/embryo/manifest.json").read_text())
    assert config["tokens"] == meta | {"corpus": manifest["id"]}
    sources = [cell["promoter_source"] for cell in read(results / "corpus/embryo/obs.parquet")]
    assert sources.count("none") == n_alone > 0 and len(sources) == manifest["n_cells"]
    assert not (results / "pretrain/small/checkpoints").exists()
    written = {
        "fate/scdynomics": {"head.safetensors"},
        "fate/scdynomics_nonlinear": {"head.safetensors", "adapter_nonlinear.safetensors"},
        "fate/scdynomics_random_start": {"head.safetensors", "encoder.safetensors"},
        "knockout/scdynomics": {
            "head.safetensors", "adapter_model.safetensors", "adapter_config.json"
        },
    }  # fmt: skip
    own = set.union(*written.values())
    for variant, names in written.items():
        folder = results / "finetune" / variant / "seed1_fold0/model"
        assert own & {path.name for path in folder.iterdir()} == names
        assert all((folder / name).stat().st_size for name in names)
    # The models of one task that read the same cells share the encoded ones.
    assert [path.name for path in results.glob("finetune/*/encoded/*")] == ["scdynomics.zarr"]


def test_every_table_has_the_columns_that_docs_files_gives_it(small_study):
    wrong, unseen = differences(small_study / "results")
    assert not wrong
    # Of these the small study has none: it has no peers.
    assert unseen == {
        "embed/{corpus}.scvi.h5ad",
        "embed/{model}/{corpus}.scib.tsv",
        "finetune/{task}/scanvi/{fold}.parquet",
        "finetune/{task}/scanvi/{fold}.costs.tsv",
    }


def test_folds_keep_samples_whole_and_every_asked_cell_is_called(small_study):
    results = small_study / "results"
    splits = read(results / "finetune/fate/splits.tsv")
    folds = {}
    for cell in splits:
        if cell["fold"] != "predict":
            folds.setdefault(cell["unit"], set()).add(cell["fold"])
    assert sorted(map(len, folds.values())) == [1, 1]
    called = read(results / "finetune/fate/predictions.parquet")
    for method in ("scdynomics", "logistic_regression", "logistic_regression_rna"):
        cells = [row["cell"] for row in called if row["method"] == method]
        assert sorted(cells) == sorted(cell["cell"] for cell in splits)
    methods = {row["method"] for row in called}
    assert {"scdynomics_random_start", "scdynomics_nonlinear", "xgboost", "knn", "mlp"} <= methods
    # Of two variants there is only one seed.
    ensembles = {name for name in methods if name.endswith("_ensemble")}
    assert ensembles == {"scdynomics_ensemble", "mlp_ensemble"}
    knocked_out = read(results / "finetune/knockout/splits.tsv")
    learned = {cell["unit"] for cell in knocked_out if cell["fold"] != "predict"}
    assert learned == {"wildtype_1", "wildtype_2"}


def test_a_task_says_how_sure_and_how_much_better_each_method_is(small_study):
    folder = small_study / "results/finetune/fate"
    summary = read(folder / "summary.tsv")
    ours = [r for r in summary if (r["method"], r["score"]) == ("scdynomics", "macro_f1")]
    assert ours and all(
        float(r["low"]) <= float(r["mean"]) <= float(r["high"]) and r["n_runs"] == "4" for r in ours
    )
    assert all(0 <= float(r["p"]) <= 1 for r in ours)
    averaged = [r for r in summary if r["method"] == "scdynomics_ensemble"]
    assert averaged and all(r["n_runs"] == "2" for r in averaged)
    runs = read(folder / "scores.tsv")
    mine = [r for r in runs if r["variant"] == "scdynomics" and r["method"] == "scdynomics"]
    assert {(r["seed"], r["fold"]) for r in mine} == {(s, f) for s in "12" for f in "01"}
    assert all(float(r["seconds"]) > 0 and float(r["n_trained_parameters"]) > 0 for r in mine)
    curve = read(folder / "label_efficiency.tsv")
    n_cells = {(r["method"], r["labels"]): float(r["n_training_cells"]) for r in curve}
    assert {labels for _, labels in n_cells} == {"0.5", "1"}
    for method in ("scdynomics", "logistic_regression"):
        assert n_cells[method, "0.5"] < 0.6 * n_cells[method, "1"]
    unseen = read(small_study / "results/finetune/knockout/novelty.tsv")
    assert {r["class"] for r in unseen} == {"endothelium"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["split"] == "by sample: 2 units, each in one of 2 folds"


def test_scores_are_flat_finite_and_better_than_nothing(small_study):
    scores = json.loads((small_study / "results/scores.json").read_text())
    asked = """grn.auprc_ratio fate.accuracy fate.macro_f1 fate.lr_macro_f1 knockout.ectopic_share
        knockout.lr_ectopic_share drivers.recall20 pretrain.cell_loss
        pretrain.mean_cell_loss fate.macro_f1_low fate.random_start_macro_f1 fate.xgboost_macro_f1
        fate.combined_macro_f1 fate.ensemble_macro_f1 fate.mlp_ensemble_macro_f1"""
    assert set(asked.split()) <= set(scores)
    assert all(isinstance(v, int | float) and math.isfinite(v) for v in scores.values())
    assert scores["grn.auprc_ratio"] > 1.2
    assert scores["pretrain.cell_loss"] < scores["pretrain.mean_cell_loss"]
    assert scores["fate.held_out.lr_accuracy"] > 0.6
    assert scores["explain.fate.completeness"] < 0.1


def test_studies_have_a_figure_and_a_table_each(small_study):
    for kind in ("development", "spatial", "perturbation"):
        folder = small_study / "results/studies" / kind
        assert read(folder / f"{kind}.tsv")
        assert b"<svg" in (folder / f"{kind}.svg").read_bytes()[:2000]
        assert (folder / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
        assert 'id="cells"' in (folder / "view.html").read_text()
    assert (small_study / "results/studies/development/drivers.svg").exists()


def test_provenance_names_what_made_it(small_study):
    record = json.loads((small_study / "results/provenance.json").read_text())
    assert set(record["environments"]) == {"analysis", "grn", "torch"}
    assert record["environments"]["grn"]["pyscenic"] == "0.12.1"
    assert all(versions["python"][:2] == "3." for versions in record["environments"].values())
    assert set(record["devices"]) == {"small"} and record["devices"]["small"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in record["sha256"].values())
    page = (small_study / "results/provenance.html").read_text()
    assert "GRNBoost2" in page and "LoRA modules of rank 4" in page
    assert "by training a head on the frozen encoder" in page


def test_nothing_is_left_to_do(small_study):
    run = snakemake(small_study, small_study / "config.yaml", "--dry-run")
    assert "Nothing to be done" in run.stdout, run.stdout[-3000:]


def test_report_holds_the_figures_and_real_captions(small_study):
    run = snakemake(small_study, small_study / "config.yaml", "--report", "results/report.html")
    assert run.returncode == 0, run.stdout[-3000:]
    page = (small_study / "results/report.html").read_text()
    assert "simulated cells" in page
    assert "Pretraining of model small: the model reads a random part" in " ".join(page.split())
    for name in ("scores.html", "drivers.svg", "spatial.svg", "qc.svg"):
        assert name in page
