"""Tables and JSON Schemas of the config's keys and the sample sheet's columns.

``make docs`` writes them into config/README.md and workflow/schemas/, from scdyn.settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic.json_schema import GenerateJsonSchema

from scdyn.settings import QC_PRESETS, SIZES, Config, SampleRow, Settings

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = {ROOT / "workflow/schemas/config.schema.yaml": Config}
SCHEMAS |= {ROOT / "workflow/schemas/samples.schema.yaml": SampleRow}
MADE = "# Made from scdyn.settings by make docs, for editors.\n"
HEAD = "| key | value | default | meaning |\n|---|---|---|---|"
# Kinds of values that the page explains, or whose patterns tell a reader nothing.
KINDS = ("name", "selection", "path", "text")
# This block has one table, instead of one for each block that contains it.
TRAINING = "TrainingSettings"

Schema = Mapping[str, Any]


class WithoutTitles(GenerateJsonSchema):
    """JSON Schema without titles derived from the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False for all fields."""
        return False


def tidy(part: Any) -> Any:
    """Tidy a JSON Schema: texts on one line, no defaults for keys that a preset sets."""
    if isinstance(part, list):
        return [tidy(one) for one in part]
    if not isinstance(part, dict):
        return part
    part = {key: value if key == "default" else tidy(value) for key, value in part.items()}
    if "properties" in part and isinstance(part.get("title"), str):
        del part["title"]
    if isinstance(part.get("description"), str):
        part["description"] = " ".join(part["description"].split("\n\nAttributes\n")[0].split())
    if "by" in part:
        del part["default"]
    if "patternProperties" in part:  # this would accept other names
        [(pattern, value)] = part.pop("patternProperties").items()
        part |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
    return part


def find_blocks(kind: Any) -> Iterator[type[Settings]]:
    """Yield the classes of settings within a type, such as the values of a mapping."""
    if isinstance(kind, type) and issubclass(kind, Settings):
        yield kind
    for part in get_args(kind):
        yield from find_blocks(part)


def make_schema(kind: type[Settings]) -> Schema:
    """Make the JSON Schema of a class of settings."""
    schema = tidy(kind.model_json_schema(schema_generator=WithoutTitles))
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def resolve(part: Schema, root: Schema) -> Schema:
    """Resolve ``$ref``; keys of the part override those of the definition."""
    if "$ref" not in part:
        return part
    return {**root["$defs"][name_definition(part)], **part}


def name_definition(part: Schema) -> str:
    """Name the definition that a part refers to, or return an empty string."""
    return part.get("$ref", "").rsplit("/", 1)[-1]


def join_words(words: list[str]) -> str:
    """Join words to a list as in "a, b or c"."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def format_value(value: Any) -> str:
    """Format a value as YAML."""
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n")
    return text.strip()


def describe_bounds(part: Schema) -> str:
    """Describe the bounds of a number or the length of a list."""
    if "minimum" in part and "maximum" in part:
        return f"{part['minimum']} to {part['maximum']}"
    words = [
        f"{phrase} {part[key]}"
        for key, phrase in (
            ("minimum", "at least"),
            ("exclusiveMinimum", "more than"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "less than"),
        )
        if key in part
    ]
    if part.get("minItems"):
        words.append("not empty")
    if part.get("uniqueItems"):
        words.append("all different")
    return ", ".join(words)


def describe_values(part: Schema, root: Schema) -> str:
    """Describe the values that a key may have."""
    if name_definition(part) == TRAINING:
        return "training"
    part = resolve(part, root)
    nothing = " or null" if {"type": "null"} in part.get("anyOf", []) else ""
    if nothing:
        part = resolve(next(one for one in part["anyOf"] if one != {"type": "null"}), root)
    if part.get("title") in KINDS:
        return part["title"] + nothing
    if "enum" in part:
        return join_words([*map(format_value, part["enum"]), *(["null"] if nothing else [])])
    text = part["type"]
    if text == "array":
        inner = describe_values(part["items"], root)
        text = f"list of ({inner})" if "," in inner else f"list of {inner}"
    text = text.replace("object", "mapping") + nothing
    if "pattern" in part:
        text += f" that fits `{part['pattern']}`"
    return ", ".join(filter(None, [text, describe_bounds(part)])).replace("|", "\\|")


def describe_default(key: str, part: Schema, block: Schema) -> str:
    """Describe the default of a key."""
    if key in block.get("required", []):
        return "required"
    if "by" in part:
        return f"by `{part['by']}`"
    if part.get("default", {}) == {}:  # a block, whose keys have defaults
        return "-"
    return f"`{format_value(part['default'])}`" if part["default"] != "" else "empty"


def tabulate_block(block: Schema, root: Schema) -> str:
    """Lay out the keys of one block, one per row."""
    rows, required = [], block.get("required", [])
    for key, raw in sorted(block["properties"].items(), key=lambda item: item[0] not in required):
        part = resolve(raw, root)
        # Only the last sentence has no full stop.
        meaning = part.get("description", "").removesuffix(".").replace("|", "\\|")
        cells = describe_values(raw, root), describe_default(key, part, block), meaning
        rows.append(f"| `{key}` | {' | '.join(cells)} |")
    return "\n".join([HEAD, *rows])


def iter_blocks(part: Schema, root: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield every block of keys with its path, in the order of the schema."""
    if "properties" in part:
        yield path, part
    for key, raw in part.get("properties", {}).items():
        inner = f"{path}.{key}".removeprefix(".")
        for one in [raw, *raw.get("anyOf", [])]:
            if name_definition(one) != TRAINING:
                yield from iter_blocks(resolve(one, root), root, inner)
    entry = part.get("additionalProperties")
    if isinstance(entry, Mapping) and path:
        yield from iter_blocks(resolve(entry, root), root, f"{path}.NAME")


def flatten(block: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Flatten nested keys, joined by dots."""
    found = {}
    for key, value in block.items():
        inner = f"{path}.{key}".removeprefix(".")
        found |= flatten(value, inner) if isinstance(value, Mapping) else {inner: value}
    return found


def tabulate_presets(presets: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out the values of presets, one per column."""
    columns = {name: flatten(block) for name, block in presets.items()}
    head = f"| key | {' | '.join(columns)} |\n|---{'|--:' * len(columns)}|"
    keys = next(iter(columns.values()))
    rows = [
        f"| `{key}` | {' | '.join(format_value(column[key]) for column in columns.values())} |"
        for key in keys
    ]
    return "\n".join([head, *rows])


def tabulate_keys() -> dict[str, str]:
    """Lay out all keys: Markdown by the name of the page's block."""
    config, sheet = make_schema(Config), make_schema(SampleRow)
    parts = []
    for path, block in iter_blocks(config, config):
        parts.append(
            f"### {path}\n\n{tabulate_block(block, config)}"
            if path
            else tabulate_block(block, config)
        )
    training = tabulate_block(config["$defs"][TRAINING], config)
    parts.append(f"### training (of a model or a task)\n\n{training}")
    presets = {"qc": tabulate_presets(QC_PRESETS), "size": tabulate_presets(SIZES)}
    columns = tabulate_block(sheet, sheet).replace("| key |", "| column |", 1)
    return {"columns": columns, "keys": "\n\n".join(parts)} | presets


def iter_schemas() -> Iterator[tuple[Path, str]]:
    """Yield path and content of the JSON Schemas of config and sample sheet."""
    for path, kind in SCHEMAS.items():
        content = yaml.safe_dump(dict(make_schema(kind)), sort_keys=False, allow_unicode=True)
        yield path, MADE + content
