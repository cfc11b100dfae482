"""Reads contacts from a CSV or JSON Lines file: one `ContactEvent` a row, or a `BadRow` that says what is wrong.

Only what is wrong with the file as a whole ends the reading. A file may have been made by anyone: the length of a row
is limited, and a quote that is never closed costs its own row and not all that follow.
"""

from __future__ import annotations

import csv
import hashlib
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from stream_scorer.core.feature_rules import shown
from stream_scorer.errors import InputError, UsageError
from stream_scorer.file_lines import MAX_ROW_BYTES, Lines
from stream_scorer.file_rows import CONTACT_ID, NOT_FEATURES, Defaults, RowError, csv_event, json_event

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from stream_scorer.core.events import ContactEvent
    from stream_scorer.core.feature_rules import FeatureType


class FileFormat(StrEnum):
    """What a file of contacts can be."""

    CSV = "csv"
    JSON_LINES = "jsonl"


_SUFFIXES: Final = {
    ".csv": FileFormat.CSV,
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
    known = _SUFFIXES.get(path.suffix.lower())
    if known is None:
        names = ", ".join(_SUFFIXES)
        raise UsageError(
            f"{path}: the name does not end in {names}: say what it is with --format csv or --format jsonl"
        )
    return known


class ContactFile:
    """A file of contacts. Iterating it reads it once from its beginning.

    Attributes:
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
            path: the file.
            types: the model's features; every other column of a CSV file must be one of them.
            now_ms: the time of rows that name none, in Unix milliseconds, UTC.
            file_format: None: by the file's name.

        Raises:
            UsageError: the format is not given and the name does not say it.
            InputError: the file cannot be read.
        """
        self._path = path
        self._types = types
        self._format = file_format or format_of(path)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
                self.size_bytes = file.tell()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from error
        self._defaults = Defaults.of_file(digest.hexdigest(), now_ms)
        self.bytes_read = 0
        self.line = 0

    def __iter__(self) -> Iterator[Row]:
        """Yield the rows in order; lines without anything are skipped.

        Raises:
            InputError: the header is missing or cannot be used, or the file cannot be read any further.
        """
        try:
            with self._path.open("rb") as file:
                lines = Lines(str(self._path), file)
                rows = self._csv_rows(lines) if self._format is FileFormat.CSV else self._json_rows(lines)
                for self.line, row in rows:
                    self.bytes_read = lines.bytes_read
                    yield row
                self.bytes_read = self.size_bytes
        except OSError as error:
            raise InputError(f"{self._path}: {error.strerror or error}") from error

    def _json_rows(self, lines: Lines) -> Iterator[tuple[int, Row]]:
        for line, text in lines:
            if text is None:
                yield line, BadRow(line, _TOO_LONG)
            elif text.strip():
                try:
                    yield line, json_event(text, self._defaults, line)
                except RowError as error:
                    yield line, BadRow(line, str(error))

    def _csv_rows(self, lines: Lines) -> Iterator[tuple[int, Row]]:
        columns = self._header(lines)
        for line, cells in _records(lines):
            if isinstance(cells, str):
                yield line, BadRow(line, cells)
                continue
            try:
                yield line, csv_event(columns, cells, self._types, self._defaults, line)
            except RowError as error:
                yield line, BadRow(line, str(error))

    def _header(self, lines: Lines) -> list[str]:
        line, cells = next(_records(lines), (1, "the file is empty: its first line must name the columns"))
        if isinstance(cells, str):
            raise InputError(f"{self._path}:{line}: {cells}")
        columns = [cell.strip() for cell in cells]
        for column in columns:
            if columns.count(column) > 1:
                raise InputError(f"{self._path}:{line}: the header names column {shown(column)} twice")
        if CONTACT_ID not in columns:
            raise InputError(
                f"{self._path}:{line}: the header has no column {CONTACT_ID}; columns are separated by commas"
            )
        for column in columns:
            if column not in NOT_FEATURES and column not in self._types:
                known = ", ".join(self._types)
                raise InputError(
                    f"{self._path}:{line}: column {shown(column)} is no feature of the model ({known}): "
                    "leave it out, or add it to model.features"
                )
        return columns


_TOO_LONG: Final = f"is longer than {MAX_ROW_BYTES} bytes"
_UNCLOSED: Final = "has a quote that is not closed"


def _records(lines: Lines) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each CSV record's first line and its cells, or the text that says what is wrong with it.

    A quoted cell may hold line ends. So a line with an odd number of quotes is continued; if that does not come to a
    record, only its first line is bad, and the others are read again as lines of their own.
    """
    for number, line in lines:
        if line is not None and not line.strip():
            continue
        parts, more = [line], []
        # Counted as they come, and put together once: a quote that is never closed runs over a million lines.
        size, quotes = (0, 0) if line is None else (len(line), line.count(b'"'))
        while quotes % 2 and size <= MAX_ROW_BYTES and (following := next(lines, None)) is not None:
            more.append(following)
            parts.append(following[1])
            size += MAX_ROW_BYTES + 1 if following[1] is None else len(following[1])
            quotes += 0 if following[1] is None else following[1].count(b'"')
        cells = _TOO_LONG if None in parts or size > MAX_ROW_BYTES else _cells(b"".join(filter(None, parts)))
        if isinstance(cells, str) and more:
            lines.put_back(more)
            cells = _UNCLOSED
        yield number, cells


def _cells(record: bytes) -> list[str] | str:
    if record.count(b'"') % 2:
        return _UNCLOSED
    try:
        text = record.decode().removesuffix("\n").removesuffix("\r")
        return next(csv.reader([text], strict=True))
    except UnicodeDecodeError:
        return "is not UTF-8"
    except csv.Error as error:
        return f"is not CSV: {error}"
