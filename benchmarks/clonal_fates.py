"""Write the fates of clonally barcoded cells (LARRY), a table of cells for config/real/larry.yaml.

Sisters are the cells of one clone. The fate of a progenitor, an undifferentiated cell of an early
day, is the commonest state of its differentiated sisters of the same day or later; with no such
sister, or two states equally common, it is not known. Own states and fates of sisters are in one
column, so that a task trained on states is scored on the fates.
"""

import argparse
from pathlib import Path

import anndata as ad
import pandas as pd

UNDIFFERENTIATED = "undiff"


def find_fates(cells):
    """Find each cell's fate, and its role in the tasks.

    Parameters
    ----------
    cells
        ``time_info`` (day), ``state_info`` and ``clone``, as in Weinreb et al. 2020.

    Returns
    -------
    DataFrame
        ``fate``: own state of a differentiated cell, fate of a progenitor's sisters, missing in
        others. ``role``: "progenitor" (with a fate), "sister" (differentiated, of a progenitor's
        clone, so that a model trained on it has seen the progenitor's clone), "mature"
        (differentiated, of another clone) or "undifferentiated".
    """
    day = cells["time_info"].astype(int)
    state = cells["state_info"].astype(str)
    clone = cells["clone"].astype(str)
    mature = state != UNDIFFERENTIATED
    fate = state.where(mature)
    is_early = ~mature & (day < day.max())
    for cell in cells.index[is_early]:
        sisters = state[mature & (clone == clone[cell]) & (day >= day[cell])].mode()
        if len(sisters) == 1:
            fate[cell] = sisters.iloc[0]
    progenitor = is_early & fate.notna()
    role = pd.Series("undifferentiated", cells.index)
    role[mature] = "mature"
    role[mature & clone.isin(clone[progenitor])] = "sister"
    role[progenitor] = "progenitor"
    return pd.DataFrame({"fate": fate, "role": role})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=Path, help="h5ad of the cells")
    parser.add_argument("output", type=Path, help="TSV of the fates")
    options = parser.parse_args()
    table = find_fates(ad.read_h5ad(options.cells).obs)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    table.rename_axis("barcode").to_csv(options.output, sep="\t")
    print(pd.crosstab(table["fate"].fillna("unknown"), table["role"]).to_string())


if __name__ == "__main__":
    main()
