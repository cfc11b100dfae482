"""Reader of contacts from a CSV or JSON Lines file: one `ContactEvent` a row, or a `BadRow` with its problem.

Only a problem of the whole file ends the reading. Files come from untrusted sources: the length of a row is limited,
and an unclosed quote invalidates its own row only.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from stream_scorer.contact_files.csv_records import BadRecord, CsvRecords
from stream_scorer.contact_files.lines import TOO_LONG, Lines
from stream_scorer.contact_files.rows import Defaults, RowError, csv_event, json_event
from stream_scorer.contact_files.source import STANDARD_INPUT, FileSource, refuse_other_files
from stream_scorer.core.charset import decode_text
from stream_scorer.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stream_scorer.core.scoring.feature_types import FeatureType
    from stream_scorer.core.scoring.types import ContactEvent


_MAX_DEFAULT_IDS: Final = 50_000


class FileFormat(StrEnum):
    """Format of a contact file."""

    CSV = "csv"
    JSON_LINES = "jsonl"


_SUFFIXES: Final = {
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".jsonl": FileFormat.JSON_LINES,
    ".ndjson": FileFormat.JSON_LINES,
}


class BadRow(NamedTuple):
    """Invalid row. ``line`` is its first line, from 1."""

    line: int
    message: str


Row: TypeAlias = "ContactEvent | BadRow"


def format_of(path: Path) -> FileFormat:
    """Return a file's format by its name.

    Raises:
        UsageError: the name has no known ending.
        InputError: it has none, and the file is a workbook or another file that is not text.
    """
    name = Path(path.stem) if path.suffix.lower() == ".gz" else path
    known = _SUFFIXES.get(name.suffix.lower())
    if known is None:
        refuse_other_files(path)
        names = ", ".join(_SUFFIXES)
        raise UsageError(
            f"{printable(str(path))}: the name does not end in {names}, with .gz or without:"
            " add --format csv or --format jsonl"
        )
    return known


class ContactFile:
    """File of contacts. Iterating it reads it once from its beginning.

    Attributes:
        name: name of the file in messages.
        size_bytes: size of the whole file.
        bytes_read: number of bytes that are read.
        line: first line of the last row that was read, from 1.
    """

    def __init__(
        self,
        path: Path,
        types: Mapping[str, FeatureType],
        *,
        now_ms: int,
        file_format: FileFormat | None = None,
    ) -> None:
        """Hash the file, for default event ids.

        Args:
            path: the file, or ``-`` for standard input.
            types: features of the model; any other column of a CSV file must be a contact's own field or attribute.
            now_ms: time of rows without one, in Unix milliseconds, UTC.
            file_format: None: by the file's name; for standard input by its first character.

        Raises:
            UsageError: the format is not given and the name has no known ending.
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
        """Yield the default event ids of rows from a line on; in a large file those of evenly spaced lines."""
        step = max(1, (self._source.lines - first_line) // _MAX_DEFAULT_IDS)
        for line in range(first_line, self._source.lines + 1, step):
            yield self._defaults.event_id(line)

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows in order, without empty lines.

        Raises:
            InputError: the header is missing or invalid, or reading fails.
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
