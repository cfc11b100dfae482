"""Descriptions of the settings, read from their definition: the text below each field, its type and its limits.

docs/settings.md and the file of ``config init`` are made of them, so no second list can differ.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from stream_scorer.settings.key_catalog import MAPPINGS, SECRETS
from stream_scorer.settings.settings import Settings
from stream_scorer.settings.types import MAX_DURATION_S, Section

_LIMITS: Final = ("ge", "gt", "le", "min_length", "max_length")
_ABSURD: Final = (MAX_DURATION_S, 1_000_000_000)
_WORDS: Final[Mapping[Any, str]] = {str: "text", int: "integer", float: "number", bool: "boolean"}


def section_class(section: str) -> type[Section]:
    """Return the class of a section."""
    found = Settings.model_fields[section].annotation
    if not (isinstance(found, type) and issubclass(found, Section)):
        raise TypeError(f"Settings.{section} is no section")
    return found


def field_texts(section: str) -> dict[str, str]:
    """Return the text below each field of a section, in Markdown, by key."""
    tree = ast.parse(inspect.getsource(section_class(section)))
    found = {}
    for definition in (one for one in tree.body if isinstance(one, ast.ClassDef)):
        for field, text in pairwise(definition.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found


def type_text(path: tuple[str, str]) -> str:
    """Return the type of a key and its limits, in Markdown; without the limits that only exclude absurd numbers."""
    if path in SECRETS:
        return "secret"
    if path in MAPPINGS:
        return "table"
    field = section_class(path[0]).model_fields[path[1]]
    kind, limits = _unwrapped(field.annotation, field.metadata)
    at_least, at_most = limits.get("min_length", limits.get("ge")), limits.get("max_length", limits.get("le"))
    if get_origin(kind) is tuple:
        return f"list of {at_least} to {at_most} numbers"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f"`{one}`" for one in get_args(kind))
    words = _WORDS[kind]
    if kind is str:
        return words
    bounds = {"over": limits.get("gt"), "at least": at_least, "at most": None if at_most in _ABSURD else at_most}
    return ", ".join([words, *(f"{word} {value:,}" for word, value in bounds.items() if value is not None)])


def _unwrapped(annotation: Any, metadata: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Return the type without `Annotated` and None, and its limits; of two limits the inner one comes first."""
    if get_origin(annotation) is Annotated:
        kind, *inner = get_args(annotation)
        return _unwrapped(kind, [*inner, *metadata])
    if get_origin(annotation) in (Union, UnionType):
        [kind] = (one for one in get_args(annotation) if one is not NoneType)
        return _unwrapped(kind, metadata)
    limits: dict[str, Any] = {}
    for one in metadata:
        for part in one.metadata if isinstance(one, FieldInfo) else [one]:
            limits |= {name: getattr(part, name) for name in _LIMITS if hasattr(part, name)}
    return annotation, limits


def toml_value(value: object) -> str:
    """Return a value as TOML; numbers without a fraction that is zero."""
    # JSON's strings, numbers, booleans and lists are valid TOML.
    if isinstance(value, Mapping):
        inner = ", ".join(f"{toml_key(name)} = {toml_value(one)}" for name, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # The only control character that JSON leaves as it is, and TOML does not allow.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(name: str) -> str:
    """Return a key as TOML."""
    is_bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if is_bare else toml_value(name)
