"""Sources of settings. Each source returns one `Layer`: flat keys with value and origin.

Names are checked here, for file and environment alike. The usual loaders ignore a variable with a mistyped section, and
the operator would run with a default instead of the intended value.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from stream_scorer.core.charset import decode_text
from stream_scorer.core.parse_errors import parse_error_place
from stream_scorer.errors import SettingsError
from stream_scorer.file_reader import read_file
from stream_scorer.settings.key_catalog import IN_FILES, MAPPINGS, SECRETS, SECTIONS, STRUCTURED
from stream_scorer.settings.names import PREFIX, KeyPath, did_you_mean, dotted, variable
from stream_scorer.settings.secret_file import SecretFile
from stream_scorer.settings.secret_text import SecretTextError, clean_secret
from stream_scorer.settings.service_links import is_service_link

_FILE_SUFFIX: Final = "_FILE"
# Names that the platform's own tools use. STREAM_SCORER_GENESYS__… overrides them.
PLATFORM_VARIABLES: Final[Mapping[str, KeyPath]] = MappingProxyType(
    {f"GENESYS_{key.upper()}": ("genesys", key) for key in ("client_id", "client_secret", "model_id")}
)


@dataclass(frozen=True, slots=True)
class Entry:
    """Value and its origin, for error lines.

    ``secret_file``: the file of the secret; None: it was given directly or by a pipe.
    """

    value: Any = field(repr=False)
    origin: str
    secret_file: SecretFile | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """Entries and problems of one source; valid entries are kept beside problems, so that all problems are found."""

    entries: Mapping[KeyPath, Entry]
    problems: tuple[str, ...] = ()


class _Builder:
    def __init__(self) -> None:
        self.entries: dict[KeyPath, Entry] = {}
        self.problems: list[str] = []

    def put(self, path: KeyPath, value: Any, origin: str) -> None:
        """Add a value; for tables of free names, each name is an entry of its own."""
        if path in MAPPINGS and isinstance(value, Mapping) and value:
            self.entries.update({(*path, name): Entry(item, origin) for name, item in value.items()})
        elif path in SECRETS and isinstance(value, str) and value:
            self._put_secret(path, value, origin)
        else:
            self.entries[path] = Entry(value, origin)

    def put_secret_file(self, path: KeyPath, file: Path, origin: str) -> None:
        if path in self.entries:
            other = self.entries[path].origin
            self.problems.append(f"{dotted(path)} is given twice, by {other} and {origin}: keep one")
            return
        secret_file = SecretFile(dotted(path), file, origin)
        try:
            if path in MAPPINGS:
                self._put_secret_table(path, secret_file.read_text(), str(secret_file))
            else:
                secret = secret_file.read()
                self.entries[path] = Entry(secret, str(secret_file), secret_file if secret_file.is_kept else None)
        except SettingsError as error:
            self.problems.append(str(error))

    def _put_secret(self, path: KeyPath, text: str, origin: str) -> None:
        try:
            self.entries[path] = Entry(clean_secret(text), origin)
        except SecretTextError as error:
            self.problems.append(f"{dotted(path)}, given by {origin}, {error}")

    def _put_secret_table(self, path: KeyPath, text: str, origin: str) -> None:
        """Add the names of a secret table to those of the plain table; none may be in both."""
        try:
            table = json.loads(text)
        except (ValueError, RecursionError):
            table = None
        if not isinstance(table, dict):
            self.problems.append(f"{dotted(path)} in {origin} is no JSON object: write it as in {STRUCTURED[path]}")
            return
        for name, value in table.items():
            place = (*path, name)
            if place in self.entries:
                other = self.entries[place].origin
                self.problems.append(f"{dotted(place)} is given twice, by {other} and {origin}: keep one")
            else:
                self.entries[place] = Entry(value, origin)

    def layer(self) -> Layer:
        return Layer(self.entries, tuple(self.problems))


def file_layer(file: Path) -> Layer:
    """Read a TOML file. Paths of secret files in it are relative to its folder."""
    builder = _Builder()
    try:
        text = decode_text(read_file(file))
        document = tomllib.loads(text.replace("\r\n", "\n").replace("\r", "\n"))
    except OSError as error:
        builder.problems.append(f"cannot read the settings file {file}: {error.strerror}")
        return builder.layer()
    except UnicodeDecodeError:
        builder.problems.append(f"{file} is not UTF-8 text")
        return builder.layer()
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = parse_error_place(error)
        hint = ": texts need quotes, and a key may stand only once" if place.startswith(" at") else ""
        builder.problems.append(f"{file} is not valid TOML{place}{hint}")
        return builder.layer()
    except ValueError:  # Python's limit, not TOML's
        builder.problems.append(f"{file} is not valid TOML: a number in it has thousands of digits")
        return builder.layer()
    secret_files: list[tuple[KeyPath, Path]] = []
    for path, value in _file_keys(document, builder, file):
        section, key = path
        secret = (section, key.removesuffix(_FILE_SUFFIX.lower()))
        if key in SECTIONS[section]:
            builder.put(path, value, str(file))
        elif secret in IN_FILES and secret != path:
            if isinstance(value, str) and value:
                secret_files.append((secret, file.parent / value))
            else:
                builder.problems.append(f"{dotted(path)} in {file} must be the path of a file")
        else:
            builder.problems.append(_unknown_key(section, key, file))
    for path, secret_file in secret_files:
        builder.put_secret_file(path, secret_file, f"{dotted(path)}_file in {file}")
    return builder.layer()


def _file_keys(document: Mapping[str, Any], builder: _Builder, file: Path) -> Iterator[tuple[KeyPath, Any]]:
    for section, table in document.items():
        if section not in SECTIONS:
            homes = [f"{name}.{section}" for name, keys in SECTIONS.items() if section in keys]
            hint = f"; did you mean {' or '.join(homes)}?" if homes else did_you_mean(section, SECTIONS)
            builder.problems.append(f"unknown section {section!r} in {file}{hint}")
        elif not isinstance(table, Mapping):
            builder.problems.append(f"{section} in {file} is a section: write [{section}] and its keys below")
        else:
            yield from (((section, key), value) for key, value in table.items())


def _unknown_key(section: str, key: str, file: Path) -> str:
    homes = [name for name, keys in SECTIONS.items() if key in keys]
    hint = f"; did you mean {homes[0]}.{key}?" if homes else did_you_mean(key, SECTIONS[section])
    return f"unknown key {section}.{key} in {file}{hint}"


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """Read the ``STREAM_SCORER_…`` variables. An empty one is not set, since containers cannot unset a variable."""
    builder = _Builder()
    known = {variable(path): path for path in _all_paths()}
    secret_files = {variable(path) + _FILE_SUFFIX: path for path in IN_FILES}
    ours = {
        name: value
        for name, value in environ.items()
        if name.upper().startswith(PREFIX) and not is_service_link(name, value)
    }
    for name, value in ours.items():
        if name not in known and name not in secret_files:
            builder.problems.append(f"unknown environment variable {name}{_meant(name, (*known, *secret_files))}")
        elif value and name in known:
            _put_text(builder, known[name], value, name)
    for name, path in secret_files.items():
        if ours.get(name):
            builder.put_secret_file(path, Path(ours[name]), name)
    return builder.layer()


def platform_layer(environ: Mapping[str, str]) -> Layer:
    """Read ``GENESYS_CLIENT_ID``, ``GENESYS_CLIENT_SECRET`` (or ``…_FILE``) and ``GENESYS_MODEL_ID``."""
    builder = _Builder()
    for name, path in PLATFORM_VARIABLES.items():
        if environ.get(name):
            builder.put(path, environ[name], name)
        if path in SECRETS and environ.get(name + _FILE_SUFFIX):
            builder.put_secret_file(path, Path(environ[name + _FILE_SUFFIX]), name + _FILE_SUFFIX)
    return builder.layer()


def flags_layer(flags: Mapping[str, Any]) -> Layer:
    """Return the layer of a command's flags, by dotted key. None: the flag was not given.

    A secret is rejected, since every user of the machine can read command lines.
    """
    builder = _Builder()
    for name, value in flags.items():
        path = tuple(name.split(".", 1))
        if path in SECRETS:
            builder.problems.append(f"{name} is a secret and cannot be a flag: set {variable(path)}")
        elif path not in _all_paths():
            builder.problems.append(f"unknown setting {name}{did_you_mean(name, map(dotted, _all_paths()))}")
        elif value is not None:
            builder.put(path, value, "the command line")
    return builder.layer()


def _all_paths() -> tuple[KeyPath, ...]:
    return tuple((section, key) for section, keys in SECTIONS.items() for key in keys)


def _meant(name: str, known: tuple[str, ...]) -> str:
    """Return a suggestion: the name that differs in underscores or capitals only, else the nearest name."""
    exact = [candidate for candidate in known if candidate.replace("_", "") == name.upper().replace("_", "")]
    return f"; did you mean {exact[0]}?" if exact else did_you_mean(name.upper(), known)


def _put_text(builder: _Builder, path: KeyPath, text: str, origin: str) -> None:
    if path not in STRUCTURED:
        builder.put(path, text, origin)
        return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        builder.problems.append(f"{dotted(path)} in {origin} is not valid JSON: write it as in {STRUCTURED[path]}")
        return
    builder.put(path, value, origin)
