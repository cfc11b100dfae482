"""``stream-scorer schemas``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stream_scorer.cli.options import ConfigOption
from stream_scorer.errors import CheckFailed, SettingsError
from stream_scorer.kafka.registry.serde import subject_of
from stream_scorer.kafka.registry.subjects import Comparison, compare, compare_released, schemas_of
from stream_scorer.kafka.registry.subjects import register as register_schema
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import Settings, load_settings

if TYPE_CHECKING:
    from stream_scorer.kafka.registry.client import SchemaRegistry

app = typer.Typer(help="Register the Avro schemas, or compare them.", no_args_is_help=True)


@app.command()
def register(config: ConfigOption = None) -> None:
    """Register the schema of every topic's values under its subject, <topic>-value; registered schemas stay unchanged.

    A schema that cannot read records of an earlier version of its subject is rejected: one line for each reason, and
    the exit code is 1.
    """
    settings = load_settings(config)
    if settings.schema_registry.url is None:
        raise SettingsError("schema_registry.url is not set: there is no registry to register the schemas with")
    registry = _registry(settings)
    topics = schemas_of(settings)
    _report([register_schema(registry, subject_of(topic), load_schema(schema)) for topic, schema in topics.items()])


@app.command()
def check(config: ConfigOption = None) -> None:
    """Compare the schemas of this version with every release, and with the registry if one is configured.

    Nothing is registered. The exit code is 1 if a schema is missing from the registry, or cannot read records of an
    earlier version.
    """
    settings = load_settings(config)
    problems = []
    for schema in SchemaFile:
        releases, found = compare_released(schema)
        problems += found
        if not found:
            typer.echo(f"{schema.value}: reads what {', '.join(releases)} wrote")
    for problem in problems:
        typer.echo(problem, err=True)
    if settings.schema_registry.url is None:
        typer.echo("no registry: schema_registry.url is not set")
        comparisons = []
    else:
        registry = _registry(settings)
        topics = schemas_of(settings)
        comparisons = [compare(registry, subject_of(topic), load_schema(schema)) for topic, schema in topics.items()]
    _report([one if one.registered or one.problems else _missing(one) for one in comparisons], len(problems))


def _missing(comparison: Comparison) -> Comparison:
    problem = f"{comparison.subject}: not registered: run `stream-scorer schemas register`"
    return comparison._replace(problems=[problem])


def _report(comparisons: list[Comparison], more: int = 0) -> None:
    for one in comparisons:
        if one.registered is not None:
            typer.echo(f"{one.subject}: id {one.registered.schema_id}, version {one.registered.version}")
        for problem in one.problems:
            typer.echo(problem, err=True)
    failed = more + sum(not one.registered for one in comparisons)
    if failed:
        raise CheckFailed(f"{failed} schemas are missing or incompatible")


def _registry(settings: Settings) -> SchemaRegistry:
    from stream_scorer.kafka.registry.client import SchemaRegistry  # noqa: PLC0415 - half a second, not for `--help`

    return SchemaRegistry(settings)
