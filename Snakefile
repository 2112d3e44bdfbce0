# scDynOmics: raw 10x multiome in; regulons, a pretrained model, its answers and reports out.

from snakemake.utils import min_version

# The oldest that ran the small study (docs/cluster.md); tests run with the one in envs/runner.yaml.
min_version("8.8")


# A --configfile is a study of its own, not a change to the study in config/; --config KEY=VALUE
# changes whichever of them is read. Snakemake gives both options on to the jobs that it starts.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


# With --sdm apptainer the rules run in this image and use its environments.
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


# Where the time went: this run's jobs, stage by stage.
onsuccess:
    print(
        stage_times.summary(
            stage_times.read_jobs(".snakemake/metadata", BEGUN),
            {rule.name: Path(rule.snakefile).stem for rule in workflow.rules},
        )
    )


onerror:
    forget_refusals()


rule all:
    default_target: True
    input:
        final_outputs(),
