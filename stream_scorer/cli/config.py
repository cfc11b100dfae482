"""``stream-scorer config``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

import typer
from pydantic import SecretStr

from stream_scorer.cli.config_init import init
from stream_scorer.cli.connection_check import check_connections, output_marks
from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.options import ConfigOption
from stream_scorer.cli.score_check import check_score
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.errors import UsageError
from stream_scorer.kafka.client.config import check_properties, property_warnings
from stream_scorer.kafka.registry.serde import make_serde
from stream_scorer.redaction.properties import SECRET_PROPERTY
from stream_scorer.settings import LoadedSettings, Settings, load, service_link_notes
from stream_scorer.settings.key_catalog import SECTIONS

HIDDEN: Final = "***"

app = typer.Typer(help="Write a settings file, or check the settings.", no_args_is_help=True)
app.command()(init)


@app.command()
@with_examples(
    "config check --config scorer.toml",
    "config check --config scorer.toml --connect",
    "config check --config scorer.toml --score contacts.csv --yes",
)
def check(
    config: ConfigOption = None,
    *,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect",
            help="Also check, step by step, the scoring worker's Kafka, topics, rights, retention, login and model, and"
            " the endpoint of callbacks.",
        ),
    ] = False,
    score: Annotated[
        Path | None,
        typer.Option(
            "--score",
            metavar="FILE",
            help="Send the first contact of a CSV or JSON Lines file, which is billed, and compare the answer with the"
            " form that is assumed.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --score: send without a question.")] = False,
    show_all: Annotated[
        bool, typer.Option("--all", help="Print all settings, also those that have their defaults.")
    ] = False,
) -> None:
    """Check all settings that `run` needs, and print those that are set, each with its source and without secrets.

    The verdict is the last line. With --connect, it is followed by a line for each further step. A failed one has its
    remedy below it, and steps that do not depend on it are made all the same; the exit code is then 1.

    With --score in place of it, one contact is scored and billed, and each assumption about the form of the answer is
    printed with its verdict. Features and scores are not printed, and nothing is written to Kafka.
    """
    if show_all and score is not None:
        raise UsageError("--all: --score prints no settings: run one after the other")
    if yes and score is None:
        raise UsageError("--yes: add --score FILE, the only check that costs something")
    if score is not None and connect:
        raise UsageError("--score and --connect are two checks: run one after the other")
    loaded = load(config)
    settings = loaded.settings
    if not connect:
        check_settings(settings)
    if score is not None:
        check_score(settings, score, yes=yes)
        return
    for line in effective_lines(loaded) if show_all else set_lines(loaded):
        typer.echo(line)
    for warning in (*all_warnings(settings), *defaults_in_use(settings)):
        typer.echo(f"warning: {warning}", err=True)
    if connect:
        check_connections(settings, lambda: check_settings(settings))
    else:
        hint = "" if show_all else " (--all prints the defaults, too)"
        typer.echo(f"# {output_marks().passed} settings: complete{hint}")


def check_settings(settings: Settings) -> None:
    """Check what `run` checks before it connects.

    Raises:
        SettingsError: a setting or an environment variable is missing or invalid.
    """
    settings.require_api()
    check_properties(settings)
    make_serde(settings).close()
    if any(name.startswith("OTEL_") for name in os.environ):
        from stream_scorer.telemetry.otel_components import check_otel_environment  # noqa: PLC0415 - takes a second

        check_otel_environment(os.environ)


def all_warnings(settings: Settings) -> tuple[str, ...]:
    """Return warnings about settings that work and are probably not intended, one line each."""
    return (*settings.warnings, *property_warnings(settings), *service_link_notes(os.environ))


def defaults_in_use(settings: Settings) -> tuple[str, ...]:
    """Return the defaults in use that a production worker replaces; a worker with them is healthy."""
    return ("model.features is not set: the tutorial's model is used",) if settings.model.is_default else ()


def set_lines(loaded: LoadedSettings) -> Iterator[str]:
    """Yield the settings that are not left at their defaults as TOML, without secrets, each with its origin."""
    for section, keys in SECTIONS.items():
        set_keys = {path[1] for path in loaded.origins if path[0] == section}
        if set_keys:
            yield from _section_lines(loaded, section, [key for key in keys if key in set_keys])


def effective_lines(loaded: LoadedSettings) -> Iterator[str]:
    """Yield the settings as TOML, defaults included, without secrets; other values are followed by their origin."""
    for section, keys in SECTIONS.items():
        yield from _section_lines(loaded, section, keys)


def _section_lines(loaded: LoadedSettings, section: str, keys: Iterable[str]) -> Iterator[str]:
    yield f"[{section}]"
    tables = []
    values = getattr(loaded.settings, section)
    for key in keys:
        value = getattr(values, key)
        if isinstance(value, Mapping):
            tables.append((key, value))
        elif value is None:
            yield f"# {key} is not set"
        else:
            yield f"{key} = {_shown((section, key), value)}{_origin(loaded, (section, key))}"
    for key, table in tables:
        for name, value in table.items():
            line = f"{key}.{json.dumps(name)} = {_shown((section, key, name), value)}"
            yield line + _origin(loaded, (section, key, name))
    yield ""


def _origin(loaded: LoadedSettings, path: tuple[str, ...]) -> str:
    origin = loaded.origins.get(path)
    return f"  # {origin}" if origin else ""


def _shown(path: tuple[str, ...], value: Any) -> str:
    if isinstance(value, SecretStr) or (path[1:2] == ("properties",) and SECRET_PROPERTY.search(path[-1])):
        return json.dumps(HIDDEN)
    if isinstance(value, Feature):
        parts = ((part.name, getattr(value, part.name)) for part in fields(Feature) if part.name != "name")
        return "{ " + ", ".join(f"{name} = {_plain(part)}" for name, part in parts if part is not None) + " }"
    if isinstance(value, str) and "://" in value:
        return json.dumps(_without_credentials(value, whole_path=path == ("callbacks", "url")))
    return _plain(value)


def _plain(value: Any) -> str:
    # JSON's strings, numbers, booleans and lists are valid TOML.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _without_credentials(url: str, *, whole_path: bool) -> str:
    """Hide user, password and query; for a webhook the path too, since in many services it is the secret."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    path = f"/{HIDDEN}" if whole_path and parts.path.strip("/") else parts.path
    return urlunsplit((parts.scheme, netloc, path, HIDDEN if parts.query else "", ""))
