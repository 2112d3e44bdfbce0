from scdyn import evaluation, figures, figures_perturbation, studies, studies_genes, views
from scdyn import studies_perturbation as perturbation
from scdyn.artefacts import read_annotated, read_table
from scdyn.files import atomic, write_table
from scdyn.log import logged

with logged(snakemake.log[0]):
    study, label, seed = (snakemake.params[key] for key in ("study", "label", "seed"))
    cells = read_annotated(snakemake.input.corpus, snakemake.input.cells)
    calls = evaluation.read_predictions(snakemake.input.predictions)
    drivers = snakemake.input.get("drivers")
    drivers = read_table(drivers, dtype={"class": str}) if drivers else None

    methods = [studies.MODEL, studies.BASELINE]
    change, by_sample = perturbation.perturbation_tables(cells.obs, calls, study, methods, seed)
    write_table(snakemake.output.table, change)
    write_table(snakemake.output.by_sample, by_sample)
    figure = figures_perturbation.composition(change, by_sample)
    for path in snakemake.output.figure, snakemake.output.png:
        figures.save(figure, path)

    called = perturbation.groups_of(cells.obs, studies.calls_of(calls, studies.MODEL), study)
    pairs = studies_genes.comparisons(change[change["method"] == studies.MODEL])
    genes = studies_genes.gene_table(cells, called, pairs, drivers)
    write_table(snakemake.output.genes, genes)
    figure = figures_perturbation.changed_genes(genes)
    for path in snakemake.output.genes_figure, snakemake.output.genes_png:
        figures.save(figure, path)

    table = studies.cell_table(cells, calls, label).set_index("cell")
    table = table.join(called["group"], how="inner")
    shown = cells[table.index]
    layouts = {"UMAP": studies.rna_map(shown, seed)}
    by_group = {group: layouts["UMAP"][table["group"] == group] for group in perturbation.GROUPS}
    on_section = perturbation.placed(shown, table["group"])
    if on_section:
        section = studies.sections(shown, study["section"])
        positions = studies.section_positions(shown)
        layouts["section"] = studies.tiled(positions, section)
        for group in perturbation.GROUPS:
            here = (table["group"] == group).to_numpy()
            by_group[group] = studies.tiled(positions[here], section[here])
    palette = studies.colours(cells.obs[label], calls)
    figure = figures_perturbation.perturbation_maps(by_group, table, palette, on_section)
    for path in snakemake.output.maps, snakemake.output.maps_png:
        figures.save(figure, path)
    note = "UMAP of the RNA, which no prediction depends on, or positions on the sections."
    title = f"{snakemake.wildcards.study}: {len(table):,} cells"
    with atomic(snakemake.output.view) as path:
        path.write_text(views.page(title, layouts, table, palette, note, seed))
