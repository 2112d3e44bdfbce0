from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting import studies as figures_studies
from scdyn.plotting import style, views
from scdyn.pp.metadata import read_annotated
from scdyn.studies import common, development
from scdyn.tasks import evaluation

MOST_FATES = 8

with logged(snakemake.log[0]):
    study, label, seed = (snakemake.params[key] for key in ("study", "label", "seed"))
    alone = snakemake.params.alone
    cells = read_annotated(snakemake.input.corpus, snakemake.input.cells)
    calls = evaluation.read_predictions(snakemake.input.predictions)

    table = development.development_table(cells, calls, label, alone, study, seed)
    progenitors = development.progenitors(table, calls)
    fates = common.most_called(progenitors["called"], MOST_FATES)
    trends = development.fate_trends(progenitors, fates, seed)
    agreement = development.agreement(progenitors, list(alone), seed) if alone else None
    write_table(snakemake.output.table, table)
    write_table(snakemake.output.trends, development.trend_table(trends, agreement))

    layout = common.rna_map(cells[table["cell"]], seed)
    palette = figures_studies.label_colours(cells.obs[label], calls)
    asked = table["cell"].isin(progenitors["cell"]).to_numpy()
    figure = figures_studies.development_maps(layout, table, asked, label, palette)
    for path in snakemake.output.maps, snakemake.output.maps_png:
        style.save(figure, path)
    figure = figures_studies.along_pseudotime(
        trends, agreement, snakemake.params.modalities, palette
    )
    for path in snakemake.output.trends_figure, snakemake.output.trends_png:
        style.save(figure, path)

    columns = table.set_index("cell").filter(regex="^(?!p_)")
    title = f"{snakemake.wildcards.study}: {len(table):,} cells"
    note = "UMAP of the RNA, which no prediction depends on."
    with atomic(snakemake.output.view) as path:
        path.write_text(views.page(title, {"UMAP": layout}, columns, palette, note, seed))
