# Short names for the commands of this repository. All work in a fresh clone: environments are built
# first, from their definitions in envs/.
SHELL := bash
CORES ?= all
DEVICE ?= cpu

RUNNER := .snakemake/runner
PEER := .snakemake/peer
LIGHTGBM := .snakemake/lightgbm
COVERAGE := .snakemake/coverage
AUDIT := .snakemake/audit
NOTEBOOK := .snakemake/notebook
DEMO := config/demo/config.yaml
REAL := cortex kang pbmc_facs pancreas larry bone_marrow spatial chimera
CONFIGS := config/config.yaml $(DEMO) $(REAL:%=config/real/%.yaml)
# Coverage is installed apart from the environments, of which it is not a part.
unit unit-runner unit-analysis unit-torch: export PYTHONPATH := $(CURDIR)/$(COVERAGE)
COVERED = python -m coverage run -m pytest
SNAKEMAKE = snakemake --sdm conda --cores $(CORES)

# The runner first, so that every recipe finds its snakemake, pytest and ruff.
ifeq ($(shell command -v conda 2>/dev/null),)
export PATH := $(CURDIR)/$(RUNNER)/bin:$(CURDIR)/tools/venv-conda/bin:$(PATH)
$(if $(filter-out help slurm-profile,$(MAKECMDGOALS)),$(info No conda on PATH: using tools/venv-conda, which makes venvs by pip.))
else
export PATH := $(CURDIR)/$(RUNNER)/bin:$(PATH)
endif

.PHONY: help runner environments demo test test-all lint unit unit-runner unit-analysis unit-torch test-security audit test-peers workflow-test test-faults test-slurm real test-real evaluation adapters collect-results docs docs-check docs-figures docs-notebook Dockerfile bench bench-costs bench-ingest bench-scale bench-grn ablations unlock slurm-profile

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

runner: $(RUNNER)/ready ## Build the environment that Snakemake runs in, .snakemake/runner

$(RUNNER)/ready: envs/runner.yaml
	@echo "Building the runner's environment in $(RUNNER); this takes a minute."
	@rm -rf $(RUNNER)
	@conda env create --quiet --file $< --prefix $(RUNNER)
	@touch $@

environments: runner ## Build the environments of all rules except the peers', in .snakemake/conda
	$(SNAKEMAKE) --configfile $(DEMO) --conda-create-envs-only

demo: runner ## Simulate the embedded study, run the whole workflow on it, write the report
	$(SNAKEMAKE) --configfile $(DEMO)
	$(SNAKEMAKE) --configfile $(DEMO) --report results/report.html
	@echo "The table above has the time of each stage."
	@echo "The report: $$PWD/results/report.html (open it in a browser). It shows quality control, the"
	@echo "regulons, the pretrained model, predictions compared with baselines, the genes that decide"
	@echo "them, and three studies. docs/tutorial.md explains it; results/scores.html compares the results"
	@echo "with the truth of the simulation."

test: lint docs-check unit workflow-test ## Lint, pages, unit tests, and the workflow on a small study; eleven minutes

test-all: ## make test, with the slow tests of the workflow; CI runs it and make test-slurm
	$(MAKE) --no-print-directory test SLOW=1

lint: runner ## Check formats, lints, types, order of imports, and configs
	snakefmt --check Snakefile workflow
	ruff check --no-cache .
	ruff format --check .
	mypy
	PYTHONPATH=workflow/scripts lint-imports --no-logo
	for config in $(CONFIGS); do snakemake --lint --configfile $$config || exit 1; done

unit: environments $(COVERAGE)/ready ## The library's tests, each in the environment of its rules
	rm -f .coverage*
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target unit-torch unit-analysis unit-runner
	python -m coverage combine --quiet
	python -m coverage report

unit-runner:
	$(COVERED) tests/unit/runner tests/security/runner

unit-analysis:
	tests/in_env.sh analysis $(COVERED) tests/unit/analysis tests/faulty tests/security/analysis

# One thread, because two suites run in parallel and small models do not gain from a second thread.
unit-torch:
	OMP_NUM_THREADS=1 tests/in_env.sh torch $(COVERED) tests/unit/torch tests/security/torch

$(COVERAGE)/ready: | runner
	@rm -rf $(COVERAGE)
	@pip install --quiet --no-deps --target $(COVERAGE) coverage==7.17.4
	@touch $@

test-security: environments ## Only the tests of docs/security.md; three minutes
	pytest tests/security/runner tests/workflow/test_hostile_names.py
	tests/in_env.sh analysis pytest tests/security/analysis
	tests/in_env.sh torch pytest tests/security/torch

audit: $(AUDIT)/ready ## Check all pinned packages for known vulnerabilities; queries PyPI
	@for file in envs/*.yaml tools/audit.yaml; do \
		echo "$$file"; \
		sed -nE 's/^ +- ([A-Za-z0-9._-]+==.+)/\1/p' $$file > $(AUDIT)/requirements.txt; \
		$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip --requirement $(AUDIT)/requirements.txt \
			$$(sed -nE 's/^([A-Z]+-[^ ]+) .*/--ignore-vuln \1/p' tools/audit.ignore) || exit 1; \
	done

$(AUDIT)/ready: tools/audit.yaml | runner
	@rm -rf $(AUDIT)
	@conda env create --quiet --file $< --prefix $(AUDIT)
	@touch $@

test-peers: runner ## Test scVI, scANVI and scib-metrics, whose environment has 2 GB; not part of make test
	$(SNAKEMAKE) --configfile $(DEMO) config/demo/five.yaml --conda-create-envs-only
	tests/in_env.sh scvi pytest tests/unit/scvi

workflow-test: environments ## Run the rules on a small simulated study (SLOW=1: its slow tests, too)
	pytest --numprocesses 3 $(if $(SLOW),,-m "not slow") tests/workflow

test-faults: environments ## Kill jobs, fill the disk, damage files of the small study; 40 minutes (docs/reliability.md)
	pytest tests/faults

test-slurm: environments ## The small study on a local Slurm, with killed jobs; needs root, slurm-wlm, munge
	pytest tests/slurm

test-real: environments ## Ingest every kind of real data in ../shared/data
	tests/in_env.sh analysis pytest tests/real

real: environments ## Run the workflow on eight real studies, from ../shared/data
	@test -d ../shared/data/multiome || { echo "make real needs ../shared/data, which does not exist."; exit 1; }
	tests/in_env.sh analysis python benchmarks/clonal_fates.py \
		../shared/data/development/larry/larry.h5ad results/real/larry_fates.tsv
	for study in $(REAL); do \
		$(SNAKEMAKE) --configfile config/real/$$study.yaml && \
		$(SNAKEMAKE) --configfile config/real/$$study.yaml --report results/real/$$study/report.html || exit 1; \
	done

evaluation: runner ## The embedded study with five seeds, scANVI and scVI; continues from the demo
	$(SNAKEMAKE) --configfile $(DEMO) config/demo/five.yaml
	$(SNAKEMAKE) --configfile $(DEMO) config/demo/five.yaml --report results/report.html

adapters: runner ## The embedded study with all kinds of adapters; continues from the demo
	$(SNAKEMAKE) --configfile $(DEMO) config/demo/adapters.yaml

collect-results: environments ## Gather the studies' results into benchmarks/results; then make docs
	PYTHONPATH=workflow/scripts tests/in_env.sh analysis python benchmarks/collect_results.py \
		$(wildcard results $(REAL:%=results/real/%)) --output benchmarks/results/evaluation.json
	PYTHONPATH=workflow/scripts tests/in_env.sh analysis python benchmarks/model_scores.py \
		$(wildcard results $(REAL:%=results/real/%)) --output benchmarks/results/model.json

docs: runner ## Write the generated parts of the pages from committed files; half a minute
	PYTHONPATH=workflow/scripts python tools/docs/pages.py

docs-check: runner ## Fail if make docs would change a page
	PYTHONPATH=workflow/scripts python tools/docs/pages.py --check

docs-figures: environments ## Keep the demo's figures, numbers and notebook output in docs/figures; then make docs
	@test -e results/provenance.json || { echo "make docs-figures needs the demo: make demo first."; exit 1; }
	tests/in_env.sh analysis python tools/docs/tutorial_figures.py results docs/figures
	python tools/docs/tutorial.py results docs/figures/numbers.json
	PYTHONPATH=workflow/scripts tests/in_env.sh torch python tools/docs/notebook.py \
		. docs/figures/outputs.json docs/tutorial.md

docs-notebook: $(NOTEBOOK)/ready ## Run docs/notebook.md and keep its output in docs/figures; then make docs
	@rm -rf $(NOTEBOOK)/run && mkdir $(NOTEBOOK)/run
	$(NOTEBOOK)/bin/python -W ignore tools/docs/notebook.py \
		$(NOTEBOOK)/run docs/figures/notebook.json docs/notebook.md

# As a notebook's user has it: the package installed by pip, with the pins of the rules' environments.
$(NOTEBOOK)/ready: envs/analysis.yaml envs/torch.yaml pyproject.toml | runner
	@rm -rf $(NOTEBOOK)
	@python -m venv $(NOTEBOOK)
	@sed -nE 's/^ +- ([A-Za-z0-9._-]+==.+)/\1/p' envs/analysis.yaml envs/torch.yaml | sort -u > $(NOTEBOOK)/pins.txt
	@$(NOTEBOOK)/bin/pip install --quiet --constraint $(NOTEBOOK)/pins.txt ".[torch,simulate]"
	@touch $@

# Including the environment of the peers, so that one image serves all configs.
Dockerfile: runner ## Write the definition of an image that holds all environments
	snakemake --configfile $(DEMO) config/demo/five.yaml --containerize > .snakemake/Dockerfile
	mv .snakemake/Dockerfile $@

bench: environments $(PEER)/ready ## Measure speed and memory against the authors' package (DEVICE=cuda: on a GPU)
	tests/in_env.sh torch python benchmarks/bench.py --device $(DEVICE) --peer-python $(CURDIR)/$(PEER)/bin/python

bench-costs: environments ## Measure the cost of operations on this CPU, with and without AVX-512; ten minutes
	PYTHONPATH=workflow/scripts tests/in_env.sh torch python benchmarks/costs.py

bench-ingest: environments ## Measure ingestion: 50 million fragments, 100,000 cells; half an hour
	PYTHONPATH=workflow/scripts tests/in_env.sh analysis python benchmarks/bench_ingest.py \
		--output benchmarks/results/ingest.json

bench-scale: environments ## Measure time, memory and disk at 25,000, 100,000 and 400,000 cells; hours, 20 GB of disk
	PYTHONPATH=workflow/scripts tests/in_env.sh analysis python benchmarks/bench_scale.py \
		--folder results/bench_scale --output benchmarks/results/scale.json

bench-grn: environments $(LIGHTGBM)/ready ## Measure GRN inference on the demo, two simulators and, if it was run, the cortex
	@test -e results/grn/embryo/adjacencies.tsv || { echo "make bench-grn needs the demo: make demo first."; exit 1; }
	PYTHONPATH=workflow/scripts:$(LIGHTGBM) OMP_NUM_THREADS=2 tests/in_env.sh grn python benchmarks/bench_grn.py

# One method of the comparison; all its dependencies are in the environment.
$(LIGHTGBM)/ready: | runner
	@rm -rf $(LIGHTGBM)
	@pip install --quiet --no-deps --target $(LIGHTGBM) lightgbm==4.6.0
	@touch $@

ablations: environments ## Ablate objectives, TF index and projection on the demo and on the real studies that were run
	tests/in_env.sh torch python benchmarks/ablations.py results --output benchmarks/results/ablations_demo.json
	for study in cortex kang pancreas; do \
		test ! -d results/real/$$study || tests/in_env.sh torch python benchmarks/ablations.py results/real/$$study \
			--true-index --cells 2000 --output benchmarks/results/ablations_$$study.json || exit 1; \
	done

$(PEER)/ready: benchmarks/peer.yaml | runner
	@echo "Building the environment of the authors' package in $(PEER)."
	@rm -rf $(PEER)
	@conda env create --quiet --file $< --prefix $(PEER)
	@touch $@

unlock: runner ## Remove the lock of a killed run
	$(SNAKEMAKE) --configfile $(DEMO) --unlock

slurm-profile: ## Let --profile slurm find profiles/slurm, if you have no profile of that name
	@profiles="$${XDG_CONFIG_HOME:-$$HOME/.config}/snakemake"; \
	if [ -e "$$profiles/slurm" ] || [ -L "$$profiles/slurm" ]; then \
		echo "$$profiles/slurm is there already and is left as it is."; \
	else \
		mkdir -p "$$profiles" && ln -s "$$PWD/profiles/slurm" "$$profiles/slurm" && \
		echo "$$profiles/slurm now leads to $$PWD/profiles/slurm."; \
	fi
