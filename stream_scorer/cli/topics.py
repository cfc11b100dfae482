"""``stream-scorer topics``."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_scorer.cli.options import ConfigOption
from stream_scorer.kafka.admin.output_topics import update_audit_retention
from stream_scorer.kafka.admin.topics import PARTITIONS, create_topics
from stream_scorer.settings import load_settings

app = typer.Typer(help="Create the Kafka topics that are missing.", no_args_is_help=True)


@app.command()
def create(
    config: ConfigOption = None,
    *,
    update_retention: Annotated[
        bool,
        typer.Option("--update-retention", help="Set an existing audit topic to audit.retention_days."),
    ] = False,
) -> None:
    """Create the topics that are missing; existing ones stay unchanged."""
    settings = load_settings(config)
    report = create_topics(settings)
    for name in report.created:
        typer.echo(f"created   {name} ({PARTITIONS} partitions)")
    for name in report.existing:
        typer.echo(f"existing  {name}")
    if update_retention and update_audit_retention(settings):
        typer.echo(f"retention {settings.topics.audit} ({settings.audit.retention_days} days)")
