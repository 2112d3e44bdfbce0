"""Every key of the config and every column of the sample sheet, from scdyn.settings.

config/README.md and the JSON Schemas in workflow/schemas/ are made from there: ``make docs``.
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
# The block that a table of its own describes, instead of each place that has it.
TRAINING = "TrainingSettings"

Schema = Mapping[str, Any]


class WithoutTitles(GenerateJsonSchema):
    """JSON Schema whose fields have no titles made of their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Set none."""
        return False


def tidied(part: Any) -> Any:
    """Tidy a JSON Schema: texts on one line, no default where a preset gives it."""
    if isinstance(part, list):
        return [tidied(one) for one in part]
    if not isinstance(part, dict):
        return part
    part = {key: value if key == "default" else tidied(value) for key, value in part.items()}
    if "properties" in part and isinstance(part.get("title"), str):
        del part["title"]
    if isinstance(part.get("description"), str):
        part["description"] = " ".join(part["description"].split("\n\nAttributes\n")[0].split())
    if "by" in part:
        del part["default"]
    if "patternProperties" in part:  # which would let any other name pass
        [(pattern, value)] = part.pop("patternProperties").items()
        part |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
    return part


def blocks_in(kind: Any) -> Iterator[type[Settings]]:
    """Yield the blocks of settings in a type, such as the values of a mapping."""
    if isinstance(kind, type) and issubclass(kind, Settings):
        yield kind
    for part in get_args(kind):
        yield from blocks_in(part)


def schema_of(kind: type[Settings]) -> Schema:
    """Describe settings as JSON Schema."""
    schema = tidied(kind.model_json_schema(schema_generator=WithoutTitles))
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}


def resolved(part: Schema, root: Schema) -> Schema:
    """Follow ``$ref``; what stands beside it goes before what it leads to."""
    if "$ref" not in part:
        return part
    return {**root["$defs"][referred(part)], **part}


def referred(part: Schema) -> str:
    """Name of the definition that a part is, or an empty string."""
    return part.get("$ref", "").rsplit("/", 1)[-1]


def joined(words: list[str]) -> str:
    """Join words as a sentence does: a, b or c."""
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def shown(value: Any) -> str:
    """Write a value as YAML has it."""
    if isinstance(value, str):
        return value
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n")
    return text.strip()


def bounds(part: Schema) -> str:
    """Say between what a number must lie, or how long a list must be."""
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


def values(part: Schema, root: Schema) -> str:
    """Say which values a key may have."""
    if referred(part) == TRAINING:
        return "training"
    part = resolved(part, root)
    nothing = " or null" if {"type": "null"} in part.get("anyOf", []) else ""
    if nothing:
        part = resolved(next(one for one in part["anyOf"] if one != {"type": "null"}), root)
    if part.get("title") in KINDS:
        return part["title"] + nothing
    if "enum" in part:
        return joined([*map(shown, part["enum"]), *(["null"] if nothing else [])])
    text = part["type"]
    if text == "array":
        inner = values(part["items"], root)
        text = f"list of ({inner})" if "," in inner else f"list of {inner}"
    text = text.replace("object", "mapping") + nothing
    if "pattern" in part:
        text += f" that fits `{part['pattern']}`"
    return ", ".join(filter(None, [text, bounds(part)])).replace("|", "\\|")


def default(key: str, part: Schema, block: Schema) -> str:
    """Say what stands in for a key that is not given."""
    if key in block.get("required", []):
        return "required"
    if "by" in part:
        return f"by `{part['by']}`"
    if part.get("default", {}) == {}:  # a block, which has the defaults of its keys
        return "-"
    return f"`{shown(part['default'])}`" if part["default"] != "" else "empty"


def table(block: Schema, root: Schema) -> str:
    """Lay out one block's keys, a row each."""
    rows, required = [], block.get("required", [])
    for key, raw in sorted(block["properties"].items(), key=lambda item: item[0] not in required):
        part = resolved(raw, root)
        # A sentence in the middle ends in a full stop, the last one does not.
        meaning = part.get("description", "").removesuffix(".").replace("|", "\\|")
        rows.append(f"| `{key}` | {values(raw, root)} | {default(key, part, block)} | {meaning} |")
    return "\n".join([HEAD, *rows])


def blocks(part: Schema, root: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield every block of keys with its path, in the order of the schema."""
    if "properties" in part:
        yield path, part
    for key, raw in part.get("properties", {}).items():
        inner = f"{path}.{key}".removeprefix(".")
        for one in [raw, *raw.get("anyOf", [])]:
            if referred(one) != TRAINING:
                yield from blocks(resolved(one, root), root, inner)
    entry = part.get("additionalProperties")
    if isinstance(entry, Mapping) and path:
        yield from blocks(resolved(entry, root), root, f"{path}.NAME")


def flat(block: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Write nested keys as one level, joined by dots."""
    found = {}
    for key, value in block.items():
        inner = f"{path}.{key}".removeprefix(".")
        found |= flat(value, inner) if isinstance(value, Mapping) else {inner: value}
    return found


def preset_table(presets: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out what each of some presets fills in, a column each."""
    columns = {name: flat(block) for name, block in presets.items()}
    head = f"| key | {' | '.join(columns)} |\n|---{'|--:' * len(columns)}|"
    keys = next(iter(columns.values()))
    rows = [
        f"| `{key}` | {' | '.join(shown(column[key]) for column in columns.values())} |"
        for key in keys
    ]
    return "\n".join([head, *rows])


def key_tables() -> dict[str, str]:
    """Lay out all keys: the mark that each part of the page has, and its Markdown."""
    config, sheet = schema_of(Config), schema_of(SampleRow)
    parts = []
    for path, block in blocks(config, config):
        parts.append(f"### {path}\n\n{table(block, config)}" if path else table(block, config))
    training = table(config["$defs"][TRAINING], config)
    parts.append(f"### training (of a model or a task)\n\n{training}")
    presets = {"qc": preset_table(QC_PRESETS), "size": preset_table(SIZES)}
    columns = table(sheet, sheet).replace("| key |", "| column |", 1)
    return {"columns": columns, "keys": "\n\n".join(parts)} | presets


def schemas() -> Iterator[tuple[Path, str]]:
    """Yield the files of the JSON Schemas of config and sample sheet, and their content."""
    for path, kind in SCHEMAS.items():
        content = yaml.safe_dump(dict(schema_of(kind)), sort_keys=False, allow_unicode=True)
        yield path, MADE + content
