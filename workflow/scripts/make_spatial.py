import pandas as pd

from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting import studies as figures_studies
from scdyn.plotting import style, views
from scdyn.pp.metadata import read_annotated
from scdyn.studies import common
from scdyn.studies import spatial as studies_spatial
from scdyn.tasks import evaluation

with logged(snakemake.log[0]):
    study, label, seed = (snakemake.params[key] for key in ("study", "label", "seed"))
    cells = read_annotated(snakemake.input.corpus, snakemake.input.cells)
    calls = evaluation.read_predictions(snakemake.input.predictions)
    section = common.sections(cells, study["section"])
    positions = pd.DataFrame(common.section_positions(cells), index=cells.obs_names)

    methods = [common.MODEL, common.BASELINE]
    coherence = studies_spatial.coherence_table(positions, section, calls, methods, seed)
    write_table(snakemake.output.table, coherence)
    figure = figures_studies.coherence(coherence)
    for path in snakemake.output.coherence, snakemake.output.coherence_png:
        style.save(figure, path)

    table = studies_spatial.placed_cells(cells, positions, section, calls, label)
    positions = positions.loc[table.index].to_numpy()
    palette = figures_studies.label_colours(cells.obs[label], calls)
    figure = figures_studies.section_maps(positions, table["section"], table, label, palette)
    for path in snakemake.output.maps, snakemake.output.maps_png:
        style.save(figure, path)

    layouts = {"section": common.tiled(positions, table["section"])}
    title = f"{snakemake.wildcards.study}: {len(table):,} cells"
    note = "Positions on the section; sections side by side."
    with atomic(snakemake.output.view) as path:
        path.write_text(views.page(title, layouts, table, palette, note, seed))
