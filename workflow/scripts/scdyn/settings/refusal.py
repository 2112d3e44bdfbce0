"""What is wrong with settings, in one sentence that names the key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from scdyn.errors import Code, InputError

# What a value must be, by pydantic's types of errors, where its own words are of Python.
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
    """List the keys that lead to what is wrong.

    Pydantic's ``loc`` also has the branches of a union, which are nothing that a user wrote.
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
    # What is wrong with the name of a block is said of where the name stands.
    return path[:-1] if error["loc"][-1:] == ("[key]",) else path


def format_value(value: Any) -> str:
    """Write a value as JSON has it, text without its quotes, and not too long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def make_input_error(code: Code, error: ValidationError, content: Any, origin: str) -> InputError:
    """Say what is wrong with a config, or with a row of a sheet.

    Parameters
    ----------
    code
        Of the refusal.
    error
        Of the settings that were to be read from the content.
    content
        As it is written.
    origin
        The file (and row), to begin the sentence with.

    Returns
    -------
    InputError
        Naming the key and, for a key that does not exist, the one that may be meant. Of several
        faults an unknown key is named first, which may explain that another one is missing, and
        then the outermost.
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
    if kind == "fits":
        pattern = f"{words['pattern']} ({words['meaning']})"
        return InputError(code, f"{origin}: {key} is '{value}', which does not fit {pattern}.")
    if kind == "repeated":
        return InputError(code, f"{origin}: {key} has '{words['value']}' twice; name it once.")
    if kind == "too_short":
        return InputError(code, f"{origin}: {key} is empty; give at least one.")
    must = WORDS.get(kind, fault["msg"].removeprefix("Input should be "))
    return InputError(code, f"{origin}: {key} is '{value}'; it must be {must}.")
