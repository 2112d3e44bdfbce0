from scdyn.io.artefacts import read_table
from scdyn.io.files import atomic, write_table
from scdyn.log import logged
from scdyn.plotting import perturbation as figures_perturbation
from scdyn.plotting import style, views
from scdyn.plotting.studies import label_colours
from scdyn.pp.metadata import read_annotated
from scdyn.studies import common, perturbation
from scdyn.studies import genes as studies_genes
from scdyn.tasks import evaluation

with logged(snakemake.log[0]):
    study, label, seed = (snakemake.params[key] for key in ("study", "label", "seed"))
    cells = read_annotated(snakemake.input.corpus, snakemake.input.cells)
    calls = evaluation.read_predictions(snakemake.input.predictions)
    drivers = snakemake.input.get("drivers")
    drivers = read_table(drivers, dtype={"class": str}) if drivers else None

    methods = [common.MODEL, common.BASELINE]
    change, by_sample = perturbation.perturbation_tables(cells.obs, calls, study, methods, seed)
    write_table(snakemake.output.table, change)
    write_table(snakemake.output.by_sample, by_sample)
    figure = figures_perturbation.composition(change, by_sample)
    for path in snakemake.output.figure, snakemake.output.png:
        style.save(figure, path)

    called = perturbation.groups_of(cells.obs, common.calls_of(calls, common.MODEL), study)
    pairs = studies_genes.comparisons(change[change["method"] == common.MODEL])
    genes = studies_genes.gene_table(cells, called, pairs, drivers)
    write_table(snakemake.output.genes, genes)
    figure = figures_perturbation.changed_genes(genes)
    for path in snakemake.output.genes_figure, snakemake.output.genes_png:
        style.save(figure, path)

    table = common.cell_table(cells, calls, label).set_index("cell")
    table = table.join(called["group"], how="inner")
    shown = cells[table.index]
    layouts = {"UMAP": common.rna_map(shown, seed)}
    by_group = {group: layouts["UMAP"][table["group"] == group] for group in perturbation.GROUPS}
    on_section = perturbation.placed(shown, table["group"])
    if on_section:
        section = common.sections(shown, study["section"])
        positions = common.section_positions(shown)
        layouts["section"] = common.tiled(positions, section)
        for group in perturbation.GROUPS:
            here = (table["group"] == group).to_numpy()
            by_group[group] = common.tiled(positions[here], section[here])
    palette = label_colours(cells.obs[label], calls)
    figure = figures_perturbation.perturbation_maps(by_group, table, palette, on_section)
    for path in snakemake.output.maps, snakemake.output.maps_png:
        style.save(figure, path)
    note = "UMAP of the RNA, which no prediction depends on, or positions on the sections."
    title = f"{snakemake.wildcards.study}: {len(table):,} cells"
    with atomic(snakemake.output.view) as path:
        path.write_text(views.page(title, layouts, table, palette, note, seed))
