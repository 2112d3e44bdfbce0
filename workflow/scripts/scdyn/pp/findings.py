"""What was checked before a run, as a table; a check that does not pass stops it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from scdyn.errors import InputError
from scdyn.io.artefacts import read_table
from scdyn.log import logger

# What is looked at in a table of cells, and of the machine.
METADATA = "metadata"
DISK = "disk"


@dataclass(frozen=True)
class Finding:
    """One check of one thing.

    Attributes
    ----------
    subject
        A sample, or "study".
    check
        What was looked at.
    found
        What was seen, or the sentence that says what is wrong and what to do.
    passed
        Whether the study can go on.
    """

    subject: str
    check: str
    found: str
    passed: bool = True


def report(findings: Sequence[Finding]) -> pd.DataFrame:
    """Bring findings into one table, those that do not pass first."""
    columns = [field.name for field in fields(Finding)]
    return sort(pd.DataFrame([asdict(finding) for finding in findings], columns=columns))


def sort(table: pd.DataFrame) -> pd.DataFrame:
    """Order a table of findings: those that do not pass first."""
    table = table.astype({"passed": bool})
    return table.sort_values("passed", kind="stable", ignore_index=True)


def tell(table: pd.DataFrame) -> None:
    """Log all findings; those that do not pass as errors."""
    for finding in table.itertuples():
        if finding.passed:
            logger.info("%s, %s: %s", finding.subject, finding.check, finding.found)
        else:
            logger.error("Error: %s", finding.found)


def require(path: str | Path) -> None:
    """Stop if a finding does not pass.

    Parameters
    ----------
    path
        A table of findings; those about the disk are left to :func:`require_room`, which looks now.

    Raises
    ------
    InputError
        With the first sentence, and how many more the table has.
    """
    table = read_table(path, dtype={"subject": str, "passed": bool}, keep_default_na=False)
    refused = table.loc[~table["passed"] & (table["check"] != DISK), "found"]
    if len(refused):
        more = f" ({len(refused) - 1} more in {path})" if len(refused) > 1 else ""
        error = InputError.from_text(refused.iloc[0])
        raise InputError(error.code, f"{error.message}{more}")
