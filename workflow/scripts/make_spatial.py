from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting import studies as figures
from scdyn.plotting.style import save
from scdyn.plotting.views import render_study
from scdyn.pp.metadata import read_annotated
from scdyn.settings import StudySettings
from scdyn.studies.common import BASELINE, MODEL
from scdyn.studies.spatial import study_sections
from scdyn.tasks.predictions import read_predictions

with logged(snakemake.log[0]):
    files, params, output = snakemake.input, snakemake.params, snakemake.output
    cells = read_annotated(files.corpus, files.cells)
    predictions = read_predictions(files.predictions, methods=[MODEL, BASELINE])
    found = study_sections(
        cells,
        predictions,
        label=params.label,
        section=StudySettings(**params.study).section,
        seed=params.seed,
    )
    write_table(output.table, found.coherence)
    save(figures.plot_coherence(found.coherence), output.coherence, output.coherence_png)
    palette = figures.assign_label_colours(cells.obs[params.label], predictions)
    maps = figures.plot_sections(
        found.positions, found.cells["section"], found.cells, params.label, palette
    )
    save(maps, output.maps, output.maps_png)
    layouts = {"section": found.layout}
    with atomic(output.view) as path:
        path.write_text(
            render_study(snakemake.wildcards.study, layouts, found.cells, palette, params.seed)
        )
