"""``stream-scorer read``: prints the records of a topic."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final

import typer

from stream_scorer.cli import INTERRUPTED
from stream_scorer.cli.examples import with_examples
from stream_scorer.cli.options import (
    ConfigOption,
    FormatOption,
    OutOption,
    contact_options,
)
from stream_scorer.cli.output_formats import OutputFormat, RowWriter, chosen_format, row_output
from stream_scorer.cli.shared_options import sharing
from stream_scorer.core.desk.record_filter import RecordFilter, parse_filter
from stream_scorer.core.desk.record_rows import full_rows, table_rows
from stream_scorer.core.records import SourceRecord
from stream_scorer.desk.record_decoder import RecordDecoder, topic_key, topics_of
from stream_scorer.desk.topic_scan import TopicScan
from stream_scorer.errors import UsageError
from stream_scorer.settings import load_settings

_EMPTY: Final = "no record is selected"


@with_examples(
    "read scores --since 2h --limit 20",
    "read rejected C-1001 -o jsonl --raw",
    "read audit --batch 5f0c2b7e --config settings.toml",
)
@sharing(chosen=contact_options)
def read(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="Key of topics.* with - for _, such as scores or features-retry.")
    ],
    *,
    chosen: dict[str, Any],
    config: ConfigOption = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for later records, until Ctrl-C.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Also show key and value as base64.")] = False,
    output: FormatOption = None,
    out: OutOption = None,
) -> None:
    """Print the committed records of a topic, decoded, with place, time and headers.

    Reads from the first selected record to the present end, and changes nothing. A record that cannot be decoded is a
    row with its error. The records of each partition are in order; features-retry and callbacks-retry are all retry
    topics, one after the other. A table has the most important fields; the other formats have all. Of an audit event
    that is selected by contact, event or place, only the entries that match are printed, a row each. The output is
    personal data.
    """
    selection = parse_filter(now_ms=time.time_ns() // 1_000_000, **chosen)
    key = topic_key(topic)
    form = chosen_format(output, out)
    if raw and form is OutputFormat.TABLE:
        raise UsageError("--raw: a table has no room for it, use -o jsonl")
    settings = load_settings(config)
    with row_output(form, out, is_endless=follow, empty=_EMPTY) as writer:
        decoder = RecordDecoder(settings, key)
        scans = [TopicScan(settings, name, selection) for name in topics_of(settings, key)]
        printer = _Printer(decoder, selection, writer, is_table=form is OutputFormat.TABLE, raw=raw)
        if not follow:
            printer.print_all(record for scan in scans for record in scan.records())
            return
        try:
            _follow(scans, printer)
            is_interrupted = False
        except KeyboardInterrupt:
            is_interrupted = True
    # The output is complete only here.
    if is_interrupted:
        raise typer.Exit(INTERRUPTED)


def _follow(scans: list[TopicScan], printer: _Printer) -> None:
    batches: list[Iterator[list[SourceRecord]]] = [scan.follow() for scan in scans]
    while printer.is_wanted:
        for one in batches:
            printer.print_all(next(one))
        printer.flush()


class _Printer:
    """Prints the selected records, at most so many as the limit."""

    def __init__(
        self, decoder: RecordDecoder, selection: RecordFilter, writer: RowWriter, *, is_table: bool, raw: bool
    ) -> None:
        self._decoder = decoder
        self._selection = selection
        self._writer = writer
        self._is_table = is_table
        self._raw = raw
        self._remaining = selection.limit

    @property
    def is_wanted(self) -> bool:
        """Whether another record can be printed."""
        return self._remaining != 0 and self._writer.is_wanted

    def flush(self) -> None:
        """Show what was printed."""
        self._writer.flush()

    def print_all(self, records: Iterable[SourceRecord]) -> None:
        """Print those of the records that are selected."""
        for record in records:
            if not self.is_wanted:
                return
            self._print(record)

    def _print(self, record: SourceRecord) -> None:
        if not self._selection.may_match(record):
            return
        decoded = self._decoder.decode(record)
        if not self._selection.matches(record, decoded.ids):
            return
        rows = (
            table_rows(decoded, self._selection)
            if self._is_table
            else full_rows(decoded, self._selection, raw=self._raw)
        )
        for row in rows:
            self._writer.write(row)
        if self._remaining is not None:
            self._remaining -= 1
