# scDynOmics: from raw 10x multiome files to regulons, a pretrained model, predictions and a report.

from snakemake.utils import min_version

# The oldest version that ran the small study (docs/cluster.md); tests use that of envs/runner.yaml.
min_version("8.8")


# A --configfile replaces config/config.yaml, and --config KEY=VALUE changes single keys of the one
# that is read. Snakemake passes both options on to its jobs.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# With --sdm apptainer the rules run in this image, in its environments.
if CONFIG.container:

    containerized: CONFIG.container


include: "workflow/rules/simulate.smk"
include: "workflow/rules/reference.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/grn.smk"
include: "workflow/rules/tokens.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/studies.smk"
include: "workflow/rules/report.smk"


# Print the time per stage of this run.
onsuccess:
    print(
        stage_times.summarise(
            stage_times.read_jobs(".snakemake/metadata", BEGUN),
            {rule.name: Path(rule.snakefile).stem for rule in workflow.rules},
        )
    )


onerror:
    remove_failed_findings()


rule all:
    default_target: True
    input:
        list_final_outputs(),
