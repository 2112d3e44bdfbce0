from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.io.artefacts import read_table
from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting import perturbation as figures
from scdyn.plotting.studies import assign_label_colours
from scdyn.plotting.style import save
from scdyn.plotting.views import render_study
from scdyn.settings import StudySettings
from scdyn.studies.common import BASELINE, MODEL, read_study_cells
from scdyn.studies.perturbation import study_perturbation
from scdyn.tasks.predictions import read_predictions

with logged(snakemake.log[0]):
    files, params, output = snakemake.input, snakemake.params, snakemake.output
    study = StudySettings(**params.study)
    corpus = Corpus(files.corpus)
    obs = read_study_cells(files.cells, [params.label, *study.columns])
    predictions = read_predictions(files.predictions, methods=[MODEL, BASELINE])
    found = study_perturbation(
        corpus,
        Pca(files.pca, corpus),
        obs,
        predictions,
        read_table(files.drivers, dtype={"class": str}) if files.drivers else None,
        label=params.label,
        control=study.control,
        perturbed=study.perturbed,
        replicate=study.replicate,
        section=study.section,
        seed=params.seed,
    )
    write_table(output.table, found.change)
    write_table(output.by_sample, found.by_sample)
    write_table(output.genes, found.genes)
    save(figures.plot_composition(found.change, found.by_sample), output.figure, output.png)
    save(figures.plot_changed_genes(found.genes), output.genes_figure, output.genes_png)
    palette = assign_label_colours(obs[params.label], predictions)
    maps = figures.plot_groups(found.of_group, found.cells, palette, found.on_section)
    save(maps, output.maps, output.maps_png)
    with atomic(output.view) as path:
        path.write_text(
            render_study(
                snakemake.wildcards.study, found.layouts, found.cells, palette, params.seed
            )
        )
