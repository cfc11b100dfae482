"""``stream-scorer topics``."""

from __future__ import annotations

import typer

from stream_scorer.cli.options import ConfigOption
from stream_scorer.kafka.topics import PARTITIONS, create_topics
from stream_scorer.settings import load_settings

app = typer.Typer(help="Make the Kafka topics that are missing.", no_args_is_help=True)


@app.command()
def create(config: ConfigOption = None) -> None:
    """Make the topics that are missing; what exists is left as it is."""
    report = create_topics(load_settings(config))
    for name in report.created:
        typer.echo(f"created   {name} ({PARTITIONS} partitions)")
    for name in report.existing:
        typer.echo(f"existing  {name}")
