"""Reads contacts from a CSV or JSON Lines file: one `ContactEvent` a row, or a `BadRow` that says what is wrong.

Only what is wrong with the file as a whole ends the reading. A file may have been made by anyone: the length of a row
is limited, and a quote that is never closed costs its own row and not all that follow.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from stream_scorer.contact_files.csv_records import BadRecord, CsvRecords
from stream_scorer.contact_files.lines import TOO_LONG, Lines
from stream_scorer.contact_files.rows import Defaults, RowError, csv_event, json_event
from stream_scorer.contact_files.source import STANDARD_INPUT, FileSource
from stream_scorer.core.charset import decode_text
from stream_scorer.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.records import ContactEvent
    from stream_scorer.core.scoring.feature_types import FeatureType


_MAX_DEFAULT_IDS: Final = 50_000


class FileFormat(StrEnum):
    """What a file of contacts can be."""

    CSV = "csv"
    JSON_LINES = "jsonl"


_SUFFIXES: Final = {
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".jsonl": FileFormat.JSON_LINES,
    ".ndjson": FileFormat.JSON_LINES,
}


class BadRow(NamedTuple):
    """A row that is no contact. ``line`` is where it begins, counted from 1."""

    line: int
    message: str


Row: TypeAlias = "ContactEvent | BadRow"


def format_of(path: Path) -> FileFormat:
    """Tell a file's format by its name.

    Raises:
        UsageError: the name does not say it.
    """
    name = Path(path.stem) if path.suffix.lower() == ".gz" else path
    known = _SUFFIXES.get(name.suffix.lower())
    if known is None:
        names = ", ".join(_SUFFIXES)
        raise UsageError(
            f"{printable(str(path))}: the name does not end in {names}, with .gz or without:"
            " say what it is with --format csv or --format jsonl"
        )
    return known


class ContactFile:
    """A file of contacts. Iterating it reads it once from its beginning.

    Attributes:
        name: what a message calls the file.
        size_bytes: of the whole file.
        bytes_read: how far the reading has come.
        line: where the last row that was read begins, counted from 1.
    """

    def __init__(
        self,
        path: Path,
        types: Mapping[str, FeatureType],
        *,
        now_ms: int,
        file_format: FileFormat | None = None,
    ) -> None:
        """Hash the file, which default event ids are made from.

        Args:
            path: the file, or ``-`` for standard input.
            types: the model's features; every other column of a CSV file must be one of them.
            now_ms: the time of rows that name none, in Unix milliseconds, UTC.
            file_format: None: by the file's name; of standard input by its first character.

        Raises:
            UsageError: the format is not given and the name does not say it.
            InputError: the file cannot be read.
        """
        known = file_format if file_format or path == STANDARD_INPUT else format_of(path)
        self._source = FileSource(path)
        self._types = types
        self._format = known or _format_like(self._source.head)
        self._defaults = Defaults.of_file(self._source.sha256_hex, now_ms)
        self.name = self._source.name
        self.size_bytes = self._source.size_bytes
        self.bytes_read = 0
        self.line = 0

    def default_event_ids(self, first_line: int = 1) -> Iterator[str]:
        """Yield the event ids that rows without one have from a line on; of many those of some lines, evenly spread."""
        step = max(1, (self._source.lines - first_line) // _MAX_DEFAULT_IDS)
        for line in range(first_line, self._source.lines + 1, step):
            yield self._defaults.event_id(line)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows in order; lines without anything are skipped.

        Raises:
            InputError: the header is missing or cannot be used, or the file cannot be read any further.
        """
        with self._source.open() as (content, place):
            lines = Lines(self.name, content, place)
            rows = self._csv_rows(lines) if self._format is FileFormat.CSV else self._json_rows(lines)
            for self.line, row in rows:
                self.bytes_read = lines.bytes_read
                yield row
            self.bytes_read = self.size_bytes
        self._source.close()

    def _json_rows(self, lines: Lines) -> Iterator[tuple[int, Row]]:
        for line, text in lines:
            if text is None:
                yield line, BadRow(line, TOO_LONG)
            elif text.strip():
                try:
                    yield line, json_event(text, self._types, self._defaults, line)
                except RowError as error:
                    yield line, BadRow(line, str(error))

    def _csv_rows(self, lines: Lines) -> Iterator[tuple[int, Row]]:
        records = CsvRecords(self.name, lines, self._types)
        for line, record in records:
            cells = records.fit(record) if isinstance(record, list) else record
            if isinstance(cells, BadRecord):
                yield line, BadRow(line, cells.problem)
                continue
            try:
                yield line, csv_event(records.columns, cells, self._types, self._defaults, line)
            except RowError as error:
                yield line, BadRow(line, str(error))


def _format_like(head: bytes) -> FileFormat:
    return FileFormat.JSON_LINES if decode_text(head, "replace").lstrip().startswith(("{", "[")) else FileFormat.CSV
