"""Error lines for pydantic's findings: key, problem and origin in the operator's terms, never a secret."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.text import truncated
from stream_scorer.settings.key_catalog import MAPPINGS, SECRETS
from stream_scorer.settings.names import KeyPath, dotted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_MAX_CHARACTERS: Final = 61
# Values that may contain a credential are not printed either.
_UNSHOWN: Final = SECRETS | MAPPINGS | {("schema_registry", "url"), ("callbacks", "url")}
_UNSHOWN_WORDS: Final = ("://", "@")

# By pydantic's error type; {…} refer to its context.
_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "bool_parsing": "must be true or false",
        "bool_type": "must be true or false",
        "dict_type": "must be a table",
        "finite_number": "must be a finite number",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "greater_than": "must be greater than {gt:g}",
        "greater_than_equal": "must be at least {ge:g}",
        "int_from_float": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_parsing_size": "must be a whole number of reasonable size",
        "int_type": "must be a whole number",
        "less_than_equal": "must be at most {le}",
        "literal_error": "must be one of {expected}",
        "mapping_type": "must be a table",
        "string_too_long": "must be at most {max_length} characters long",
        "string_too_short": "must not be empty",
        "string_type": "must be text",
        "string_unicode": "must be valid Unicode",
        "too_long": "must have at most {max_length} items",
        "too_short": "must not be empty",
        "tuple_type": "must be a list",
        "value_error": "{error}",
    }
)


def problem_lines(error: ValidationError, origins: Mapping[KeyPath, str]) -> list[str]:
    """Return one line for each problem; ``origins`` holds the source of each value."""
    lines: dict[KeyPath, str] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "conflict":
            context = details["ctx"]
            keys = [tuple(key.split(".", 2)) for key in context["keys"].split(",")]
            lines.setdefault(keys[0], context["text"] + _from(keys, origins))
        else:
            # A union fails once for each member, a list once for each item: the first error is enough.
            path = _path(details)
            lines.setdefault(path, _field_line(path, details, origins))
    return list(lines.values())


def _path(details: ErrorDetails) -> KeyPath:
    location = tuple(str(part) for part in details["loc"])
    return location[:3] if location[:2] in MAPPINGS else location[:2]


def _field_line(path: KeyPath, details: ErrorDetails, origins: Mapping[KeyPath, str]) -> str:
    if path[1:2] == ("properties",) and len(path) > 2:  # noqa: PLR2004 - the third part is the property's name
        what = "must be text, a number, true or false"
    else:
        template = _WORDS.get(details["type"])
        what = template.format(**details.get("ctx", {})) if template else details["msg"].lower()
    return f"{dotted(path)} {what}{_shown(path, details['input'])}{_from([path], origins)}"


def _shown(path: KeyPath, value: Any) -> str:
    if path[:2] in _UNSHOWN or not isinstance(value, str | int | float):
        return ""
    text = repr(value)
    if any(word in text for word in _UNSHOWN_WORDS):
        return ""
    return f", not {truncated(text, _MAX_CHARACTERS)}"


def _from(paths: list[tuple[str, ...]], origins: Mapping[KeyPath, str]) -> str:
    found = dict.fromkeys(origins[path] for path in paths if path in origins)
    return f" (from {', '.join(found)})" if found else ""
