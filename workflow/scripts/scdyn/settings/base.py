"""Base class of all blocks of settings: typed, frozen, without unknown keys."""

from __future__ import annotations

import difflib
import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeAlias, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Kind = TypeVar("Kind", bound="Settings")
# Values that Snakemake's params, JSON and YAML can have.
Plain: TypeAlias = dict[str, JsonValue]


class Mark:
    """Annotation of a setting."""


# Settings that change the speed of a run but not its result, such as the number of GPUs.
HARDWARE = Mark()


def refuse(before: str, key: str = "", after: str = "") -> PydanticCustomError:
    """Return the error of a validator of a whole block.

    Parameters
    ----------
    before, after
        The message, or its parts before and after the key.
    key
        A key of the block; the names of the enclosing blocks are added where they are known.
    """
    parts = {"before": before, "key": key, "after": after}
    return PydanticCustomError("refused", "{before}{key}{after}", parts)


@dataclass(frozen=True)
class Pattern:
    """Validator of text by a regular expression.

    Attributes
    ----------
    name
        Name of this type in config/README.md; if empty, the type is text.
    pattern
        A regular expression that is valid in both Python and JSON Schema.
    meaning
        The pattern in words.
    """

    name: str
    pattern: str
    meaning: str

    def matches(self, text: str) -> bool:
        """Tell whether text matches; unlike ``$`` in Python, a final line break does not."""
        return not text.endswith("\n") and re.search(self.pattern, text) is not None

    def check(self, text: str) -> str:
        """Return text that matches, and refuse other text."""
        if not self.matches(text):
            parts = {"pattern": self.pattern, "meaning": self.meaning}
            raise PydanticCustomError("fits", "must match {pattern} ({meaning})", parts)
        return text

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Check the pattern after the type."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Describe the pattern in the JSON schema."""
        title = {"title": self.name} if self.name else {}
        return {**handler(schema), **title, "pattern": self.pattern}


def check_unique(values: list[Any]) -> list[Any]:
    """Refuse a list with duplicates."""
    for i, value in enumerate(values):
        if value in values[:i]:
            raise PydanticCustomError("repeated", "has a duplicate {value}", {"value": value})
    return values


PLAIN_LINE = r"^(?!.*<[/!A-Za-z])[^{}\x00-\x1f\x7f]+$"
_LINE = r"^(?!.*<[/!A-Za-z])[^`\s\x00-\x1f\x7f]([^`\x00-\x1f\x7f]*[^`\s\x00-\x1f\x7f])?$"

Name = Annotated[
    str, Pattern("name", r"^[A-Za-z][A-Za-z0-9_]{0,63}$", "A name that becomes a folder")
]
PathText = Annotated[
    str,
    Pattern(
        "path",
        PLAIN_LINE,
        "A path without control characters, tags and braces (Snakemake reads braces as wildcards)",
    ),
]
# The report's captions show it as literal text, which a backtick ends, and the report's script has
# the rules' params, in which a tag ends the script.
Text = Annotated[
    str,
    Pattern("text", _LINE, "A line of text without backticks and HTML tags"),
]
# Columns are sorted, because Snakemake compares params with the order of their keys.
Selection = Annotated[
    dict[Text, Annotated[list[Text | int | float | bool], Field(min_length=1)]],
    AfterValidator(lambda selection: dict(sorted(selection.items()))),
    Field(title="selection"),
]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Unique = (AfterValidator(check_unique), Field(json_schema_extra={"uniqueItems": True}))
Seeds = Annotated[list[Seed], *Unique, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """A block of settings; its fields are the keys, with type, bounds, default and description."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Add the keys to the docstring, for ``help``."""
        lines = [f"{cls.summary()}\n\nAttributes\n----------"]
        for name, field in cls.model_fields.items():
            has_default = not field.is_required() and field.default_factory is None
            lines.append(name + (f", default {field.get_default()!r}" if has_default else ""))
            lines.append(textwrap.indent(field.description or "", "    "))
        cls.__doc__ = "\n".join(lines)

    @classmethod
    def summary(cls) -> str:
        """Return the docstring without the keys."""
        return inspect.cleandoc(cls.__doc__ or "").split("\n\nAttributes\n")[0]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, content: Any) -> Any:
        if isinstance(content, Mapping) and cls.model_config["extra"] == "forbid":
            for key in content:
                if key not in cls.model_fields:
                    close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    known = ", ".join(cls.model_fields)
                    hint = f"did you mean '{close[0]}'?" if close else f"the keys are {known}."
                    raise refuse("unknown key '", str(key), f"'; {hint}")
        return content

    @field_validator("*", mode="wrap")
    @classmethod
    def _read_text(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """Convert text to the type of the key.

        YAML reads 1e-3 as text, as Snakemake does with values in braces of ``--config``.
        """
        try:
            return validate(value)
        except ValidationError as error:
            meant = read_text(value)
            if meant is value or error.errors()[0]["type"] == "fits":
                raise
            return validate(meant)

    def without_hardware(self) -> Plain:
        """Dump the settings that determine the result: all except those of hardware."""
        chosen = self.model_dump()
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if HARDWARE in field.metadata:
                del chosen[name]
            elif isinstance(value, Settings):
                chosen[name] = value.without_hardware()
        return chosen

    def with_hardware(self, block: Settings) -> Self:
        """Return these settings with the settings of hardware of another block.

        Parameters
        ----------
        block
            Has at least the keys of hardware of these settings.
        """
        changes = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if HARDWARE in field.metadata:
                changes[name] = getattr(block, name)
            elif isinstance(value, Settings):
                changes[name] = value.with_hardware(getattr(block, name))
        return self.model_copy(update=changes)

    def part(self, kind: type[Kind]) -> Kind:
        """Return the subset of these settings that are keys of ``kind``."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})


def read_text(value: Any) -> Any:
    """Convert text to a number, boolean, list or null if YAML or ``float`` reads it as such."""
    if isinstance(value, list):
        meant = [read_text(part) for part in value]
        return value if all(a is b for a, b in zip(meant, value, strict=True)) else meant
    if not isinstance(value, str):
        return value
    try:
        read = yaml.safe_load(value)
        read = float(read) if isinstance(read, str) else read
    except (ValueError, yaml.YAMLError):
        return value
    return read if read is None or isinstance(read, bool | int | float | list) else value


def dump_given(block: Any) -> Any:
    """Return a block as a mapping, without defaults if it is a :class:`Settings`."""
    return block.model_dump(exclude_unset=True) if isinstance(block, Settings) else block
