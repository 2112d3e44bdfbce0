from scdyn.data.corpus import Corpus
from scdyn.data.pca import Pca
from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting import studies as figures
from scdyn.plotting.style import save
from scdyn.plotting.views import render_study
from scdyn.settings import StudySettings
from scdyn.studies.common import BASELINE, MODEL, read_study_cells
from scdyn.studies.development import study_development
from scdyn.tasks.predictions import read_predictions

with logged(snakemake.log[0]):
    files, params, output = snakemake.input, snakemake.params, snakemake.output
    study = StudySettings(**params.study)
    corpus = Corpus(files.corpus)
    obs = read_study_cells(files.cells, [params.label, *study.columns])
    methods = [MODEL, BASELINE, *params.single_modality.values()]
    predictions = read_predictions(files.predictions, methods=methods)
    found = study_development(
        corpus,
        Pca(files.pca, corpus),
        obs,
        predictions,
        label=params.label,
        single_modality=params.single_modality,
        root=study.root,
        pseudotime=study.pseudotime,
        seed=params.seed,
    )
    write_table(output.table, found.cells)
    write_table(output.trends, found.along_pseudotime)
    palette = figures.assign_label_colours(obs[params.label], predictions)
    maps = figures.plot_development(
        found.layout, found.cells, found.is_progenitor, params.label, palette
    )
    save(maps, output.maps, output.maps_png)
    trends = figures.plot_pseudotime(found.trends, found.agreement, params.modalities, palette)
    save(trends, output.trends_figure, output.trends_png)
    columns = found.cells.set_index("cell").filter(regex="^(?!p_)")
    layouts = {"UMAP": found.layout}
    with atomic(output.view) as path:
        path.write_text(
            render_study(snakemake.wildcards.study, layouts, columns, palette, params.seed)
        )
