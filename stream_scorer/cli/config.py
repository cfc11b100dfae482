"""``stream-scorer config``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

import typer
from pydantic import SecretStr

from stream_scorer.cli.config_init import init
from stream_scorer.cli.options import ConfigOption
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.errors import CheckFailed
from stream_scorer.kafka.admin.acls import scoring_rights
from stream_scorer.kafka.admin.output_topics import check_outputs
from stream_scorer.kafka.admin.retry_retention import check_retry_retention
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.client.config import check_properties, property_warnings
from stream_scorer.kafka.registry.serde import make_serde
from stream_scorer.redaction.properties import SECRET_PROPERTY
from stream_scorer.settings import LoadedSettings, Settings, load, service_link_notes
from stream_scorer.settings.key_catalog import SECTIONS
from stream_scorer.targets.factory import build_target, check_contact_lists

HIDDEN: Final = "***"

app = typer.Typer(help="Write a settings file, or check the settings.", no_args_is_help=True)
app.command()(init)


@app.command()
def check(
    config: ConfigOption = None,
    *,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect", help="Also check the scoring worker's broker and topics, token, model and contact lists."
        ),
    ] = False,
) -> None:
    """Check all settings that `run` needs, and print those in effect, without secrets."""
    loaded = load(config)
    settings = loaded.settings
    settings.require_api()
    check_properties(settings)
    make_serde(settings).close()
    if any(name.startswith("OTEL_") for name in os.environ):
        from stream_scorer.telemetry.otel_components import check_otel_environment  # noqa: PLC0415 - takes a second

        check_otel_environment(os.environ)
    for line in effective_lines(loaded):
        typer.echo(line)
    for warning in (*all_warnings(settings), *defaults_in_use(settings)):
        typer.echo(f"warning: {warning}", err=True)
    if connect:
        found = check_topics(settings, settings.scoring_topics, rights=scoring_rights(settings))
        for name, partitions in found.items():
            typer.echo(f"# topic {name}: {partitions} partitions")
        outputs = check_outputs(settings, settings.topics.scoring[1:])
        if outputs.unchecked is not None:
            typer.echo(f"warning: {outputs.unchecked}", err=True)
        if (unchecked := check_retry_retention(settings, settings.contact_retry_topics)) is not None:
            typer.echo(f"warning: {unchecked}", err=True)
        if outputs.audit_retention is not None:
            raise CheckFailed(outputs.audit_retention)
        from stream_scorer.wiring.scoring import check_model  # noqa: PLC0415 - imports telemetry, which takes a second

        typer.echo(f"# {check_model(settings)}")
        _check_contact_lists(settings)


def _check_contact_lists(settings: Settings) -> None:
    """Compare the contact lists of the campaign worker with ``callbacks.columns``.

    Raises:
        CheckFailed: a list cannot be read, or its contacts cannot be dialled.
    """
    if settings.callbacks.target != "genesys-outbound":
        return
    target = build_target(settings)
    try:
        problems = []
        for one in check_contact_lists(target):
            if one.info is None or one.problem is not None:
                problems.append(f"contact list {one.list_id}: {one.problem}")
                continue
            addresses = ", ".join(one.info.addresses)
            found = f"{len(one.info.columns)} columns, addresses in {addresses}; {one.info.size:,} contacts"
            typer.echo(f"# contact list {one.list_id}: {found}")
        if problems:
            raise CheckFailed("\n".join(problems))
    finally:
        target.close()


def all_warnings(settings: Settings) -> tuple[str, ...]:
    """Return warnings about settings that work and are probably not intended, one line each."""
    return (*settings.warnings, *property_warnings(settings), *service_link_notes(os.environ))


def defaults_in_use(settings: Settings) -> tuple[str, ...]:
    """Return the defaults in use that a production worker replaces; a worker with them is healthy."""
    return ("model.features is not set: the tutorial's model is used",) if settings.model.is_default else ()


def effective_lines(loaded: LoadedSettings) -> Iterator[str]:
    """Yield the settings as TOML, defaults included, without secrets; other values are followed by their origin."""
    for section, keys in SECTIONS.items():
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
