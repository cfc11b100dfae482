"""``stream-scorer produce``: puts the contacts of a file on the features topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from stream_scorer.cli.options import ConfigOption
from stream_scorer.files import BadRow, ContactFile, FileFormat
from stream_scorer.kafka.config import plain_producer_config, silent_logger
from stream_scorer.kafka.framing import make_patient_framing
from stream_scorer.kafka.loading import Loader
from stream_scorer.kafka.rights import producing_rights
from stream_scorer.kafka.topics import check_topics
from stream_scorer.schema_files import SchemaFile
from stream_scorer.settings import load_settings
from stream_scorer.tracing.building import producer_trace

_REDRAWN_S: Final = 0.1


def produce(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV or JSON Lines, packed by gzip or not; - for standard input.")
    ],
    *,
    config: ConfigOption = None,
    rate: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most so many contacts a second.")] = None,
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="What the file is, where its name does not say it.")
    ] = None,
) -> None:
    """Put the contacts of a file on the features topic.

    CSV needs a column contact_id and may have event_id, occurred_at, campaign_id and model_version; every other column
    is a feature of the model, an empty cell is null. Columns are separated by commas, semicolons, tabs or bars. In JSON
    Lines each line is {"contactId": …, "features": {…}}, or has the features beside contactId.
    A row that cannot be read is reported with its line, and the rest is loaded; the exit code is 1 then.
    """
    settings = load_settings(config)
    types = {name: feature.type for name, feature in settings.model.features.items()}
    contacts = ContactFile(file, types, now_ms=time.time_ns() // 1_000_000, file_format=file_format)
    topic = settings.topics.features
    check_topics(settings, [topic], rights=producing_rights(settings))
    codec = make_patient_framing(settings).writer(SchemaFile.CONTACT_FEATURES, (topic,))
    producer = plain_producer_config(settings, logger=silent_logger())
    trace = producer_trace(settings)
    with closing(trace), Loader(producer, topic, codec, rate_per_s=rate, trace=trace) as loader:
        try:
            bad_rows = _load(contacts, loader)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: at least {loader.delivered} contacts are on {topic}")
            raise
    for undelivered in loader.undelivered:
        more = f" (and {undelivered.contacts - 1} more)" if undelivered.contacts > 1 else ""
        typer.echo(f"{contacts.name}:{undelivered.line}: not delivered{more}: {undelivered.message}", err=True)
    lost = sum(undelivered.contacts for undelivered in loader.undelivered)
    typer.echo(f"{loader.delivered} contacts are on {topic}; {bad_rows} bad rows, {lost} not delivered")
    if loader.stopped:
        typer.echo(f"stopped at line {contacts.line}: what follows was not loaded", err=True)
    if bad_rows or lost:
        raise typer.Exit(1)


def _load(contacts: ContactFile, loader: Loader) -> int:
    """Load all rows and return how many were bad."""
    bad_rows = 0
    console = Console(stderr=True)
    with _progress(console, contacts) as step:
        for row in contacts:
            step()
            if isinstance(row, BadRow):
                bad_rows += 1
                # Not through rich's markup, and above the bar.
                console.print(
                    f"{contacts.name}:{row.line}: {row.message}", markup=False, highlight=False, soft_wrap=True
                )
            else:
                loader.put(row, contacts.line)
                if loader.stopped:
                    break
        loader.finish()
    return bad_rows


@contextmanager
def _progress(console: Console, contacts: ContactFile) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, and nothing elsewhere. What is yielded is called once a row."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("line {task.fields[line]:,}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("loading", total=contacts.size_bytes, line=0)

        shown_s = 0.0

        def step() -> None:
            nonlocal shown_s
            if time.monotonic() - shown_s > _REDRAWN_S:
                shown_s = time.monotonic()
                progress.update(task, completed=contacts.bytes_read, line=contacts.line)

        yield step
        progress.update(task, completed=contacts.bytes_read, line=contacts.line)
