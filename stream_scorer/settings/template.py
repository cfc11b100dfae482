"""Commented settings file: every section and key with its description, type and default.

A line that is commented out holds the default, so a later version may change it. Chosen values are lines of their own.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.settings.descriptions import field_texts, section_class, toml_key, toml_value, type_text
from stream_scorer.settings.key_catalog import IN_FILES, SECTIONS
from stream_scorer.settings.model import tutorial_features
from stream_scorer.settings.names import file_key, variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from stream_scorer.settings.names import KeyPath

_WIDTH: Final = 100
_LINK: Final = re.compile(r"\[([^\]]+)\]\([^)]*\)")
# Stands for a value that the operator has to choose.
_OPEN: Final = "..."
_FEATURES: Final = ("model", "features")
# Its default is random.
_GENERATED: Final = frozenset({("kafka", "instance_id")})


def settings_file(
    head: Sequence[str], values: Mapping[KeyPath, Any], features: Iterable[tuple[str, str, str]] = ()
) -> str:
    """Return a settings file.

    Args:
        head: lines of its first comment.
        values: chosen values by key; all other keys are commented out.
        features: name, type and comment of each feature; without any, those of the tutorial are commented out.
    """
    lines = [f"# {line}".rstrip() for line in head]
    for section, keys in SECTIONS.items():
        lines += ["", "", f"[{section}]"]
        texts, defaults = field_texts(section), section_class(section)()
        for key in keys:
            path = (section, key)
            if path == _FEATURES:
                continue  # a table of its own, behind the other keys
            lines += _comment(texts[key], f"{type_text(path)}; {variable(path)}")
            lines += _key_lines(path, getattr(defaults, key), values)
        if section == _FEATURES[0]:
            lines += _feature_lines(texts[_FEATURES[1]], list(features))
    return "\n".join(lines) + "\n"


def _key_lines(path: tuple[str, str], default: object, values: Mapping[KeyPath, Any]) -> Iterator[str]:
    _, key = path
    if path in values:
        yield f"{key} = {toml_value(values[path])}"
        return
    yield f"# {key} = {_OPEN if default is None or path in _GENERATED else toml_value(default)}"
    if path in IN_FILES:
        yield f"# {file_key(key)} = {_OPEN}"


def _feature_lines(text: str, features: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    yield from _comment(text, "more keys of a feature: impute, minimum, maximum, choices")
    if features:
        yield "[model.features]"
        for name, kind, comment in features:
            line = f"{toml_key(name)} = {{ type = {toml_value(kind)} }}"
            yield f"{line}  # {comment}" if comment else line
        return
    yield "# [model.features]"
    for feature in tutorial_features().values():
        parts = {"type": feature.type, "impute": feature.impute}
        yield f"# {toml_key(feature.name)} = {toml_value(parts)}"


def _comment(text: str, facts: str) -> list[str]:
    """Return a description as comment lines, without Markdown."""
    plain = _LINK.sub(r"\1", f"{text} ({facts})").replace("`", "")
    return ["", *(f"# {line}" for line in textwrap.wrap(plain, _WIDTH, break_on_hyphens=False))]
