"""``stream-scorer topics``."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.options import ConfigOption
from stream_scorer.core.text import quoted
from stream_scorer.errors import UsageError
from stream_scorer.kafka.admin.output_topics import update_audit_retention
from stream_scorer.kafka.admin.topics import (
    BROKERS_REPLICATION,
    PARTITIONS,
    NewTopics,
    create_topics,
    missing_topics,
)
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from stream_scorer.settings import Settings

app = typer.Typer(help="Create the Kafka topics that are missing.", no_args_is_help=True)

_UNITS_MS: Final = {"h": 3_600_000, "d": 86_400_000}
_RETENTION: Final = re.compile(r"([1-9][0-9]{0,5})([hd])", re.ASCII)


class Service(StrEnum):
    """Service whose topics are created."""

    SCORING = "scoring"
    CALLBACKS = "callbacks"


@app.command()
@with_examples(
    "topics create --dry-run",
    "topics create --partitions 12 --retention 30d",
    "topics create --only scoring --update-retention",
)
def create(
    config: ConfigOption = None,
    *,
    partitions: Annotated[
        int, typer.Option("--partitions", metavar="N", min=1, help="Partitions of each new topic.")
    ] = PARTITIONS,
    replication: Annotated[
        int | None,
        typer.Option(
            "--replication-factor", metavar="N", min=1, help="Replicas of each partition; else the brokers' default."
        ),
    ] = None,
    retention: Annotated[
        str | None,
        typer.Option(
            "--retention",
            metavar="TIME",
            help="How long new topics keep records, such as 72h or 30d. Audit, decisions and retry topics keep them"
            " longer where they need it.",
        ),
    ] = None,
    only: Annotated[
        Service | None, typer.Option("--only", help="Only the topics of this service, and those of the desk.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be created. Nothing is changed.")
    ] = False,
    update_retention: Annotated[
        bool,
        typer.Option("--update-retention", help="Set an existing audit topic to audit.retention_days."),
    ] = False,
) -> None:
    """Create the topics that are missing; existing ones stay unchanged."""
    kept_ms = None if retention is None else _retention_ms(retention)
    settings = load_settings(config)
    replicas = BROKERS_REPLICATION if replication is None else replication
    new = NewTopics(_names(settings, only), partitions, replicas, kept_ms)
    if dry_run:
        _print_missing(settings, new)
        return
    report = create_topics(settings, new)
    for name in report.created:
        typer.echo(f"created   {name} ({partitions} partitions)")
    for name in report.existing:
        typer.echo(f"existing  {name}")
    if update_retention and update_audit_retention(settings):
        typer.echo(f"retention {settings.topics.audit} ({settings.audit.retention_days} days)")


def _print_missing(settings: Settings, new: NewTopics) -> None:
    missing = missing_topics(settings, new)
    for name in new.of(settings):
        if name not in missing:
            typer.echo(f"existing  {name}")
            continue
        properties = ", ".join(f"{key}={value}" for key, value in missing[name].items())
        typer.echo(f"missing   {name} ({new.partitions} partitions{', ' if properties else ''}{properties})")


def _names(settings: Settings, only: Service | None) -> tuple[str, ...] | None:
    if only is None:
        return None
    campaign = settings.topics.campaign(levels=len(settings.callbacks.retry_delays_s))
    names = settings.scoring_topics if only is Service.SCORING else campaign
    return tuple(dict.fromkeys((*names, settings.topics.decisions)))


def _retention_ms(text: str) -> int:
    match = _RETENTION.fullmatch(text)
    if match is None:
        raise UsageError(f"--retention {quoted(text)}: write hours or days, such as 72h or 30d")
    return int(match[1]) * _UNITS_MS[match[2]]
