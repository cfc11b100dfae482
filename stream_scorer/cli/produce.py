"""``stream-scorer produce``: sends the contacts of a file to the features topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from stream_scorer.cli import INTERRUPTED
from stream_scorer.cli.interrupts import interrupting
from stream_scorer.cli.options import ConfigOption
from stream_scorer.contact_files.reader import BadRow, ContactFile, FileFormat, Row
from stream_scorer.kafka.admin.acls import producing_rights
from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.client.config import plain_producer_config, silent_logger
from stream_scorer.kafka.consumer.recent_events import recent_event_ids
from stream_scorer.kafka.producer.bulk_producer import BulkProducer
from stream_scorer.kafka.registry.serde import make_blocking_serde
from stream_scorer.schema_files import SchemaFile
from stream_scorer.settings import load_settings
from stream_scorer.telemetry.tracing.factory import producer_trace

_REDRAWN_S: Final = 0.1


def produce(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV or JSON Lines, gzip or plain; - for standard input.")
    ],
    *,
    config: ConfigOption = None,
    rate: Annotated[int | None, typer.Option(metavar="N", min=1, help="Maximum number of contacts a second.")] = None,
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="Format of the file, if its name does not show it.")
    ] = None,
    from_line: Annotated[int, typer.Option(metavar="N", min=1, help="Skip the rows that begin before line N.")] = 1,
) -> None:
    """Send the contacts of a file to the features topic.

    CSV needs a column contact_id and may have event_id, occurred_at, campaign_id and model_version. A column
    attributes.NAME is an attribute for the campaign, such as a phone number. Every other column is a feature of the
    model; an empty cell is null. Columns are separated by commas, semicolons, tabs or bars. In JSON Lines each line is
    {"contactId": …, "features": {…}}, or has the features beside contactId, and may have "attributes": {…}.
    A row that cannot be read is reported with its line, and the rest is sent; the exit code is then 1. Ctrl-C stops
    with exit code 130 and prints the line to continue from. A file that was loaded before gets a warning.
    """
    settings = load_settings(config)
    types = {name: feature.type for name, feature in settings.model.features.items()}
    contacts = ContactFile(file, types, now_ms=time.time_ns() // 1_000_000, file_format=file_format)
    topic = settings.topics.features
    partitions = check_topics(settings, [topic], rights=producing_rights(settings))[topic]
    framing = make_blocking_serde(settings)
    codec = framing.writer(SchemaFile.CONTACT_FEATURES, (topic,))
    known = recent_event_ids(settings, topic, partitions, framing.reader(SchemaFile.CONTACT_FEATURES))
    console = Console(stderr=True)
    # Without rich's markup, and above the bar.
    show = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    repeats = _Repeats(contacts.name, topic, known, show)
    repeats.look(contacts.default_event_ids(from_line))
    producer = plain_producer_config(settings, logger=silent_logger())
    trace = producer_trace(settings)
    with (
        closing(trace),
        BulkProducer(producer, topic, codec, rate_per_s=rate, trace=trace) as loader,
        interrupting(loader.interrupt),
        _progress(console, contacts) as step,
    ):
        rows = _Rows(contacts, loader, repeats, show)
        rows.load(from_line, step)
        loader.finish()
    for undelivered in loader.undelivered:
        more = f" (and {undelivered.contacts - 1} more)" if undelivered.contacts > 1 else ""
        typer.echo(f"{contacts.name}:{undelivered.line}: not delivered{more}: {undelivered.message}", err=True)
    lost = sum(undelivered.contacts for undelivered in loader.undelivered)
    typer.echo(f"{loader.delivered} contacts are on {topic}; {rows.bad} bad rows, {lost} not delivered")
    line = loader.first_unconfirmed or rows.next_line
    if line is not None:
        how = "interrupted" if loader.interrupted else "stopped"
        typer.echo(f"{how}: to load the rest, repeat the command with --from-line {line}", err=True)
    if line is not None and loader.interrupted:
        raise typer.Exit(INTERRUPTED)
    if rows.bad or lost:
        raise typer.Exit(1)


class _Repeats:
    """Warning, given once, for a file whose event ids are on the topic already."""

    def __init__(self, name: str, topic: str, known: frozenset[str], show: Callable[[str], None]) -> None:
        self._text = (
            f"{name}: warning: event ids of this file are on {topic} already, so it was loaded before: each contact"
            " that is loaded again is scored and billed again"
        )
        self._known = known
        self._show = show

    def look(self, event_ids: Iterable[str]) -> None:
        """Warn if one of these ids is on the topic."""
        if self._known and not self._known.isdisjoint(event_ids):
            self._known = frozenset()
            self._show(self._text)


class _Rows:
    """Loader for the rows of a file.

    Attributes:
        bad: number of unreadable rows.
        next_line: line of the first row that was not sent; None: all were.
    """

    def __init__(
        self, contacts: ContactFile, loader: BulkProducer, repeats: _Repeats, show: Callable[[str], None]
    ) -> None:
        self._contacts = contacts
        self._loader = loader
        self._repeats = repeats
        self._show = show
        self.bad = 0
        self.next_line: int | None = None

    def load(self, from_line: int, step: Callable[[], None]) -> None:
        """Send the rows that begin at ``from_line`` or later; ``step`` is called once a row."""
        contacts = self._contacts
        for row in contacts:
            step()
            if contacts.line < from_line:
                continue
            if not self._take(row):
                self.next_line = contacts.line
                break

    def _take(self, row: Row) -> bool:
        if self._loader.is_ending:
            return False
        if isinstance(row, BadRow):
            self.bad += 1
            self._show(f"{self._contacts.name}:{row.line}: {row.message}")
            return True
        self._repeats.look((row.event_id,))
        return self._loader.send(row, self._contacts.line)


@contextmanager
def _progress(console: Console, contacts: ContactFile) -> Iterator[Callable[[], None]]:
    """Show a bar on a terminal, and nothing elsewhere. The yielded function is called once a row."""
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
