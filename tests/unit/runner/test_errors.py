"""Errors for the user: their codes, and their way through processes and tables."""

import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from scdyn import errors
from scdyn.errors import CODES, Code, InputError

SCRIPTS = Path(errors.__file__).parents[1]


def refuse():
    raise InputError("BARCODES", "cells.csv: duplicate\n  barcode A.")


def test_the_text_ends_in_the_code():
    with pytest.raises(InputError) as caught:
        refuse()
    assert caught.value.code == "BARCODES"
    assert str(caught.value) == "cells.csv: duplicate barcode A. [SCD-BARCODES]"


def test_an_error_survives_another_process():
    with ProcessPoolExecutor(1) as pool, pytest.raises(InputError, match="SCD-BARCODES") as caught:
        pool.submit(refuse).result()
    assert caught.value.message == "cells.csv: duplicate barcode A."


def test_an_error_is_rebuilt_from_its_text():
    error = InputError.from_text(str(InputError("DISK", "x: full [SCD-PATH] (1 more).")))
    assert (error.code, error.message) == ("DISK", "x: full [SCD-PATH] (1 more).")
    for text in ("no code", "x: full. [SCD-UNKNOWN]"):
        with pytest.raises(RuntimeError, match="no error with a code"):
            InputError.from_text(text)


def test_every_code_is_explained_and_used():
    assert set(CODES) == set(get_args(Code))
    source = "\n".join(
        path.read_text() for path in SCRIPTS.rglob("*.py") if path != Path(errors.__file__)
    )
    assert set(CODES) <= set(re.findall(r"[\"']([A-Z]+)[\"']", source))
