"""Error messages for settings: one sentence that names the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from scdyn.errors import Code, InputError

# Expected values by pydantic's error type, where pydantic's message is in terms of Python.
WORDS = {
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
MOST_CHARACTERS = 100


def find_path(error: ErrorDetails, content: Any) -> list[str]:
    """Find the path of keys to an error.

    Pydantic's ``loc`` also has the branches of a union, which are not in the user's file.
    """
    path, place = [], content
    for part in error["loc"]:
        if isinstance(place, Mapping) and part in place:
            place = place[part]
        elif isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(str(part))
    # An error in the name of a block is reported for the enclosing block.
    return path[:-1] if error["loc"][-1:] == ("[key]",) else path


def format_value(value: Any) -> str:
    """Format a value as JSON, text without quotes, truncated if long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def make_input_error(code: Code, error: ValidationError, content: Any, origin: str) -> InputError:
    """Convert a validation error of a config or a row of the sample sheet to an InputError.

    Parameters
    ----------
    code
        Code of the error.
    error
        Error of pydantic.
    content
        The validated content.
    origin
        The file (and row), with which the message begins.

    Returns
    -------
    InputError
        Names the key and, for an unknown key, a similar one. Of several errors, one of an unknown
        key is reported first, because it may explain a missing key, and then the outermost.
    """

    def rank(fault: ErrorDetails) -> tuple[bool, int, bool]:
        unknown = fault.get("ctx", {}).get("before", "").startswith("unknown")
        return not unknown, len(find_path(fault, content)), fault["type"] != "fits"

    fault = min(error.errors(include_url=False), key=rank)
    path, words = find_path(fault, content), fault.get("ctx", {})
    key, value, kind = ".".join(path), format_value(fault["input"]), fault["type"]
    if kind == "refused":
        named = ".".join(filter(None, [*path, words["key"]])) if words["key"] else ""
        return InputError(code, f"{origin}: {words['before']}{named}{words['after']}")
    if kind == "missing":
        return InputError(code, f"{origin}: the key '{key}' is missing.")
    key = key or "the content"
    if kind == "literal_error":
        allowed = words["expected"].replace("'", "").replace(" or ", ", ")
        return InputError(code, f"{origin}: {key} is '{value}'; it must be one of {allowed}.")
    if kind in ("dict_type", "model_type", "model_attributes_type") and fault["input"] is None:
        return InputError(code, f"{origin}: {key} is empty; write {{}} or remove the key.")
    if kind == "too_long" or (kind == "too_short" and words["min_length"] > 1):
        n_asked = words["max_length" if kind == "too_long" else "min_length"]
        return InputError(code, f"{origin}: {key} is {value}; give {n_asked} values.")
    if kind == "list_type" and isinstance(fault["input"], str | int | float):
        return InputError(code, f"{origin}: {key} is '{value}'; it must be a list: [{value}].")
    if kind == "fits" and not fault["input"]:
        return InputError(code, f"{origin}: {key} is empty; give a value ({words['meaning']}).")
    if kind == "fits":
        pattern = f"{words['pattern']} ({words['meaning']})"
        return InputError(code, f"{origin}: {key} is '{value}', which does not match {pattern}.")
    if kind == "repeated":
        return InputError(code, f"{origin}: {key} has a duplicate '{words['value']}'; remove one.")
    if kind == "too_short":
        return InputError(code, f"{origin}: {key} is empty; give at least one.")
    must = WORDS.get(kind, fault["msg"].removeprefix("Input should be "))
    return InputError(code, f"{origin}: {key} is '{value}'; it must be {must}.")
