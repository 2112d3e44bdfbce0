from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting import studies as figures
from scdyn.plotting.style import save
from scdyn.plotting.views import study_page
from scdyn.pp.metadata import read_annotated
from scdyn.settings import StudySettings
from scdyn.studies.development import study_development
from scdyn.tasks.evaluation import read_predictions

with logged(snakemake.log[0]):
    files, params, output = snakemake.input, snakemake.params, snakemake.output
    study = StudySettings(**params.study)
    cells = read_annotated(files.corpus, files.cells)
    calls = read_predictions(files.predictions)
    found = study_development(
        cells,
        calls,
        label=params.label,
        single_modality=params.single_modality,
        root=study.root,
        pseudotime=study.pseudotime,
        seed=params.seed,
    )
    write_table(output.table, found.cells)
    write_table(output.trends, found.along_pseudotime)
    palette = figures.label_colours(cells.obs[params.label], calls)
    maps = figures.development_maps(
        found.layout, found.cells, found.is_progenitor, params.label, palette
    )
    save(maps, output.maps, output.maps_png)
    trends = figures.along_pseudotime(found.trends, found.agreement, params.modalities, palette)
    save(trends, output.trends_figure, output.trends_png)
    columns = found.cells.set_index("cell").filter(regex="^(?!p_)")
    layouts = {"UMAP": found.layout}
    with atomic(output.view) as path:
        path.write_text(
            study_page(snakemake.wildcards.study, layouts, columns, palette, params.seed)
        )
