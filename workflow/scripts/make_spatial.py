from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting import studies as figures
from scdyn.plotting.style import save
from scdyn.plotting.views import render_study
from scdyn.settings import StudySettings
from scdyn.studies.common import BASELINE, MODEL, read_study_cells
from scdyn.studies.spatial import study_sections
from scdyn.tasks.predictions import read_predictions

with logged(snakemake.log[0]):
    files, params, output = snakemake.input, snakemake.params, snakemake.output
    study = StudySettings(**params.study)
    obs = read_study_cells(files.cells, [params.label, *study.columns])
    predictions = read_predictions(files.predictions, methods=[MODEL, BASELINE])
    found = study_sections(
        obs,
        predictions,
        label=params.label,
        section=study.section,
        seed=params.seed,
    )
    write_table(output.table, found.coherence)
    save(figures.plot_coherence(found.coherence), output.coherence, output.coherence_png)
    palette = figures.assign_label_colours(obs[params.label], predictions)
    maps = figures.plot_sections(
        found.positions, found.cells["section"], found.cells, params.label, palette
    )
    save(maps, output.maps, output.maps_png)
    layouts = {"section": found.layout}
    with atomic(output.view) as path:
        path.write_text(
            render_study(snakemake.wildcards.study, layouts, found.cells, palette, params.seed)
        )
