"""Loader of the settings: a TOML file, then the environment, then flags; the later source wins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from stream_scorer.errors import SettingsError, printable
from stream_scorer.settings.error_messages import problem_lines
from stream_scorer.settings.key_catalog import MAPPINGS, REREAD
from stream_scorer.settings.names import file_key
from stream_scorer.settings.settings import Settings
from stream_scorer.settings.sources import (
    Entry,
    environment_layer,
    file_layer,
    flags_layer,
    platform_layer,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stream_scorer.settings.names import KeyPath


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """Settings, and the origin of each value that is not a default."""

    settings: Settings
    origins: Mapping[KeyPath, str]


def load_settings(
    file: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Load and check the settings.

    Args:
        file: a TOML file with the sections of the contract; None: no file.
        flags: values by dotted key, such as ``{"kafka.start_from": "latest"}``; a value of None: not given.
        environ: the environment; None: this process's.

    Raises:
        SettingsError: one line for every problem, with key, origin and remedy, without secrets.
    """
    return load(file, flags=flags, environ=environ).settings


def load(
    file: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Load as `load_settings` does, and return the origins too."""
    environ = os.environ if environ is None else environ
    layers = (
        *((file_layer(file),) if file is not None else ()),
        platform_layer(environ),
        environment_layer(environ),
        flags_layer(flags or {}),
    )
    problems = [problem for layer in layers for problem in layer.problems]
    entries: dict[KeyPath, Entry] = {}
    for layer in layers:
        entries |= layer.entries
    try:
        settings = Settings.model_validate(_nested(entries))
    except ValidationError as error:
        problems += problem_lines(error, {path: entry.origin for path, entry in entries.items()})
    if problems:
        raise SettingsError("\n".join(dict.fromkeys(map(printable, problems))))
    return LoadedSettings(settings, {path: entry.origin for path, entry in entries.items()})


def _nested(entries: Mapping[KeyPath, Entry]) -> dict[str, dict[str, Any]]:
    """Return flat keys as sections. A value that should be a table and is not stays, for the validation to reject."""
    nested: dict[str, dict[str, Any]] = {}
    for (section, key, *name), entry in entries.items():
        table = nested.setdefault(section, {})
        if name and (section, key) in MAPPINGS:
            if not isinstance(table.get(key), dict):
                table[key] = {}
            table[key][name[0]] = entry.value
        else:
            table[key] = entry.value
            if entry.secret_file is not None and (section, key) in REREAD:
                table[file_key(key)] = entry.secret_file
    return nested
