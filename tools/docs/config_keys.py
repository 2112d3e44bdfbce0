"""Every key of the config and every column of the sample sheet, from workflow/schemas/."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "workflow/schemas"
HEAD = "| key | value | default | meaning |\n|---|---|---|---|"
# Blocks of the schema that are called by their name instead of being described at each use.
NAMED = ("name", "selection", "training")
# Kinds of text, whose patterns tell a reader nothing.
WORDS = {
    "path": "path",
    "path_or_null": "path or null",
    "text": "text",
    "text_or_null": "text or null",
    "layer": "text",
}

Schema = Mapping[str, Any]


def resolved(part: Schema, root: Schema) -> Schema:
    """Follow ``$ref``; what stands beside it goes before what it leads to."""
    if "$ref" not in part:
        return part
    return {**root["$defs"][part["$ref"].rsplit("/", 1)[1]], **part}


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
    if referred(part) in NAMED:
        return referred(part)
    if referred(part) in WORDS:
        return WORDS[referred(part)]
    part = resolved(part, root)
    if "enum" in part:
        return joined([shown(value) for value in part["enum"]])
    if "anyOf" in part:
        return joined(sorted((values(one, root) for one in part["anyOf"]), key="null".__eq__))
    types = [part["type"]] if isinstance(part["type"], str) else list(part["type"])
    if "array" in types:
        inner = values(part["items"], root)
        types[types.index("array")] = f"list of ({inner})" if "," in inner else f"list of {inner}"
    if part.get("not") == {"const": True}:
        types[types.index("boolean")] = "false"
    text = joined(types).replace("object", "mapping")
    if "pattern" in part:
        text += f" that fits `{part['pattern']}`"
    return ", ".join(filter(None, [text, bounds(part)])).replace("|", "\\|")


def default(key: str, part: Schema, block: Schema) -> str:
    """Say what stands in for a key that is not given."""
    if key in block.get("required", []):
        return "required"
    if "by" in part:
        return f"by `{part['by']}`"
    if part.get("default", {}) == {}:
        return "-"
    return f"`{shown(part['default'])}`" if part["default"] != "" else "empty"


def table(block: Schema, root: Schema) -> str:
    """Lay out one block's keys, a row each."""
    rows = []
    for key, raw in block["properties"].items():
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
        if referred(raw) not in NAMED:
            inner = f"{path}.{key}".removeprefix(".")
            for one in [raw, *raw.get("anyOf", [])]:
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


def key_tables(config: Schema, sheet: Schema) -> dict[str, str]:
    """Lay out all keys: the mark that each part of the page has, and its Markdown."""
    parts = []
    for path, block in blocks(config, config):
        parts.append(f"### {path}\n\n{table(block, config)}" if path else table(block, config))
    training = config["$defs"]["training"]
    parts.append(f"### training (of a model or a task)\n\n{table(training, config)}")
    presets = {name: preset_table(config["presets"][name]) for name in ("qc", "size")}
    columns = table(sheet, sheet).replace("| key |", "| column |", 1)
    return {"columns": columns, "keys": "\n\n".join(parts)} | presets


def read_tables() -> dict[str, str]:
    """Lay out the keys that the schemas have now."""
    config, sheet = (
        yaml.safe_load((SCHEMAS / f"{name}.schema.yaml").read_text())
        for name in ("config", "samples")
    )
    return key_tables(config, sheet)
