import pandas as pd

from scdyn import evaluation, figures, figures_studies, studies, studies_spatial, views
from scdyn.artefacts import read_annotated
from scdyn.files import atomic, write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    study, label, seed = (snakemake.params[key] for key in ("study", "label", "seed"))
    cells = read_annotated(snakemake.input.corpus, snakemake.input.cells)
    calls = evaluation.read_predictions(snakemake.input.predictions)
    section = studies.sections(cells, study["section"])
    positions = pd.DataFrame(studies.section_positions(cells), index=cells.obs_names)

    methods = [studies.MODEL, studies.BASELINE]
    coherence = studies_spatial.coherence_table(positions, section, calls, methods, seed)
    write_table(snakemake.output.table, coherence)
    figure = figures_studies.coherence(coherence)
    for path in snakemake.output.coherence, snakemake.output.coherence_png:
        figures.save(figure, path)

    table = studies_spatial.placed_cells(cells, positions, section, calls, label)
    positions = positions.loc[table.index].to_numpy()
    palette = studies.colours(cells.obs[label], calls)
    figure = figures_studies.section_maps(positions, table["section"], table, label, palette)
    for path in snakemake.output.maps, snakemake.output.maps_png:
        figures.save(figure, path)

    layouts = {"section": studies.tiled(positions, table["section"])}
    title = f"{snakemake.wildcards.study}: {len(table):,} cells"
    note = "Positions on the section; sections side by side."
    with atomic(snakemake.output.view) as path:
        path.write_text(views.page(title, layouts, table, palette, note, seed))
