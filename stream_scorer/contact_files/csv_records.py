"""Records of a CSV file, as spreadsheets and databases export them.

The separator is a comma, a semicolon, a tab or a bar: that of Excel's ``sep=`` line, else the one that gives the first
line a column of contact ids. An unclosed quote invalidates its own line only.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.contact_files.lines import MAX_ROW_BYTES, TOO_LONG
from stream_scorer.contact_files.rows import CONTACT_ID, NOT_FEATURES
from stream_scorer.core.attributes import ATTRIBUTE_PREFIX
from stream_scorer.core.text import quoted
from stream_scorer.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stream_scorer.contact_files.lines import Lines
    from stream_scorer.core.scoring.feature_types import FeatureType

_SEPARATORS: Final = ",;\t|"
_SEPARATOR_LINE: Final = re.compile(rb'"?sep=([^\r\n"])"?', re.IGNORECASE)
_UNCLOSED: Final = "has a quote that is not closed"
_QUOTED: Final = "put the cell into quotation marks, and write each of its own twice"
# Python's reader limits cells to 131,072 characters; the limit of a row applies instead.
csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))


class BadRecord(NamedTuple):
    """Problem of an invalid record."""

    problem: str


Record = list[str] | BadRecord


class CsvRecords:
    """Records of a file after its header, each with the number of its first line. Empty ones are skipped.

    A quoted cell may contain line ends, so a line with an odd number of quotes is continued. If that gives no valid
    record, only its first line is invalid, and the others are read again as separate lines.
    """

    def __init__(self, name: str, lines: Lines, types: Mapping[str, FeatureType] | None) -> None:
        """Read the header.

        Args:
            name: name of the file in errors.
            lines: lines of the file.
            types: features of the model; every other column must be one of a contact's own fields or an attribute.
                None: the model is not known, so any other column is a feature.

        Raises:
            InputError: the header is missing or invalid.
        """
        self._lines = lines
        self._separator = self._find_separator()
        self._skips_empty = False
        self.columns = self._header(name, types)
        self._skips_empty = True

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        for number, line in self._lines:
            if line is not None and not line.strip():
                continue
            parts, more = [line], []
            # Counted line by line and joined once: after an unclosed quote a million lines may follow.
            size, quotes = (0, 0) if line is None else (len(line), line.count(b'"'))
            while quotes % 2 and size <= MAX_ROW_BYTES and (following := next(self._lines, None)) is not None:
                more.append(following)
                parts.append(following[1])
                size += MAX_ROW_BYTES + 1 if following[1] is None else len(following[1])
                quotes += 0 if following[1] is None else following[1].count(b'"')
            too_long = None in parts or size > MAX_ROW_BYTES
            cells = BadRecord(TOO_LONG) if too_long else _cells(b"".join(filter(None, parts)), self._separator)
            if isinstance(cells, BadRecord) and more:
                self._lines.put_back(more)
                cells = BadRecord(_UNCLOSED)
            if not (self._skips_empty and isinstance(cells, list) and not any(cells)):
                yield number, cells

    def fit(self, cells: list[str]) -> list[str] | BadRecord:
        """Return as many cells as there are columns, without surplus empty cells at the end."""
        while len(cells) > len(self.columns) and not cells[-1].strip():
            cells.pop()
        if len(cells) == len(self.columns):
            return cells
        remedy = (
            f"a cell with {_called(self._separator)} inside needs quotation marks"
            if len(cells) > len(self.columns)
            else "write a separator for each empty cell"
        )
        return BadRecord(f"has {len(cells)} cells, but the header names {len(self.columns)} columns: {remedy}")

    def _find_separator(self) -> str:
        first = next(((number, line) for number, line in self._lines if line is None or line.strip()), None)
        if first is None:
            return ","
        line = first[1] or b""
        said = _SEPARATOR_LINE.fullmatch(line.rstrip(b"\r\n"))
        if said is not None:
            return said[1].decode("ascii", "replace")
        self._lines.put_back([first])
        by_separator = {one: _cells(line, one) for one in _SEPARATORS}
        return next((one for one, cells in by_separator.items() if CONTACT_ID in _names(cells)), ",")

    def _header(self, name: str, types: Mapping[str, FeatureType] | None) -> list[str]:
        line, cells = next(iter(self), (1, BadRecord("the file is empty: its first line must name the columns")))
        place = f"{name}:{line}"
        if isinstance(cells, BadRecord):
            raise InputError(f"{place}: {cells.problem}")
        columns = _names(cells)
        while columns and not columns[-1]:
            columns.pop()
        twice = next((column for column, count in Counter(columns).items() if count > 1 and column), None)
        if twice is not None:
            raise InputError(f"{place}: the header names column {quoted(twice)} twice")
        if CONTACT_ID not in columns:
            raise InputError(f"{place}: the header has no column {CONTACT_ID}{_nearest(columns)}")
        for number, column in enumerate(columns, 1):
            if not column:
                raise InputError(
                    f"{place}: column {number} has no name: name it or leave it out (pandas: to_csv(index=False))"
                )
            is_attribute = column.startswith(ATTRIBUTE_PREFIX) and column != ATTRIBUTE_PREFIX
            if types is not None and column not in NOT_FEATURES and column not in types and not is_attribute:
                known = ", ".join(types)
                raise InputError(
                    f"{place}: column {quoted(column)} is no feature of the model ({known}): "
                    f"leave it out, add it to model.features, or name it {ATTRIBUTE_PREFIX}… for the campaign"
                )
        return columns


def _names(cells: Record) -> list[str]:
    return [cell.strip() for cell in cells] if isinstance(cells, list) else []


def _nearest(columns: Sequence[str]) -> str:
    """Return the remedy: the expected spelling of the name, or the separators."""
    for column in columns:
        if re.sub(r"[\W_]", "", column).lower() == CONTACT_ID.replace("_", ""):
            return f": write {CONTACT_ID}, not {quoted(column)}"
    return "; columns are separated by commas, semicolons, tabs or bars"


def _called(separator: str) -> str:
    return {"\t": "a tab", ",": "a comma", ";": "a semicolon"}.get(separator, f"a {quoted(separator)}")


def _cells(record: bytes, separator: str) -> Record:
    if record.count(b'"') % 2:
        return BadRecord(_UNCLOSED)
    try:
        text = record.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return BadRecord("is not UTF-8: save the file as CSV UTF-8")
    try:
        return next(csv.reader([text], strict=True, delimiter=separator))
    except csv.Error:
        what = "a line end outside of quotation marks" if "\r" in text else "a quotation mark inside of a cell"
        return BadRecord(f"has {what}: {_QUOTED}")
