from scdyn.io.files import write_table
from scdyn.log import logged
from scdyn.pp.metadata import read_cells_table
from scdyn.settings import SplitSettings
from scdyn.tasks.splits import split_task

with logged(snakemake.log[0]):
    settings = SplitSettings(**snakemake.params.settings)
    splits, left_out = split_task(
        read_cells_table(snakemake.input.cells),
        where=f"tasks.{snakemake.wildcards.task}",
        **settings.model_dump(exclude={"seeds"}),
        seed=settings.seed,
    )
    write_table(snakemake.output.splits, splits)
    write_table(snakemake.output.left_out, left_out)
