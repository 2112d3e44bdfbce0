"""The table of preflight findings; a failed check stops the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from scdyn.errors import InputError
from scdyn.io.artefacts import read_table
from scdyn.log import logger

# Names of checks.
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
        Name of the check.
    found
        The result, or the text of an :class:`InputError`.
    passed
        Whether the run can continue.
    """

    subject: str
    check: str
    found: str
    passed: bool = True


def make_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Make a table of findings, failed checks first."""
    columns = [field.name for field in fields(Finding)]
    return sort_table(pd.DataFrame([asdict(finding) for finding in findings], columns=columns))


def gather_findings(own: pd.DataFrame, others: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put tables of findings together, each finding once, those that do not pass first.

    Parameters
    ----------
    own
        As :func:`make_table`.
    others
        As they were written and read as text. A sample's table of cells is examined in each corpus
        that it is in, with the same finding.
    """
    found = pd.concat(others).drop_duplicates()
    table = sort_table(pd.concat([own, found.assign(passed=found["passed"] == "True")]))
    n_refused = int((~table["passed"]).sum())
    logger.info("%d checks, of which %d do not pass", len(table), n_refused)
    return table


def sort_table(table: pd.DataFrame) -> pd.DataFrame:
    """Order a table of findings: those that do not pass first."""
    table = table.astype({"passed": bool})
    return table.sort_values("passed", kind="stable", ignore_index=True)


def log_findings(table: pd.DataFrame) -> None:
    """Log all findings, failed checks as errors."""
    for finding in table.itertuples():
        if finding.passed:
            logger.info("%s, %s: %s", finding.subject, finding.check, finding.found)
        else:
            logger.error("Error: %s", finding.found)


def require_passed(path: str | Path) -> None:
    """Stop if a check failed.

    Parameters
    ----------
    path
        A table of findings. Room on the disk is not considered, since it may have changed;
        :func:`scdyn.pp.preflight.require_room` checks it again.

    Raises
    ------
    InputError
        With the first failed check, and the number of others.
    """
    table = read_table(path, dtype={"subject": str, "passed": bool}, keep_default_na=False)
    refused = table.loc[~table["passed"] & (table["check"] != DISK), "found"]
    if len(refused):
        more = f" ({len(refused) - 1} more in {path})" if len(refused) > 1 else ""
        error = InputError.from_text(refused.iloc[0])
        raise InputError(error.code, f"{error.message}{more}")
