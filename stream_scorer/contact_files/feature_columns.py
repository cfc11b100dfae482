"""Features of a model, guessed from a CSV file: the columns that are not a contact's own, with their types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_scorer.contact_files.csv_records import BadRecord, CsvRecords
from stream_scorer.contact_files.lines import Lines
from stream_scorer.contact_files.rows import NOT_FEATURES, cell_type
from stream_scorer.contact_files.source import FileSource
from stream_scorer.core.attributes import ATTRIBUTE_PREFIX
from stream_scorer.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from stream_scorer.core.scoring.feature_types import FeatureType

MAX_ROWS: Final = 100_000


@dataclass(slots=True)
class FeatureColumn:
    """Feature by a column of a file.

    Attributes:
        name: its name in the header.
        type: the narrowest type of all values; None: no row has a value.
        empty: number of rows without a value.
        rows: number of rows that were read.
    """

    name: str
    type: FeatureType | None = None
    empty: int = 0
    rows: int = 0

    def add(self, cell: str) -> None:
        """Add the cell of a row."""
        self.rows += 1
        if not cell.strip():
            self.empty += 1
            return
        found = cell_type(cell)
        if self.type is None or self.type == found:
            self.type = found
        else:
            self.type = "number" if {self.type, found} == {"integer", "number"} else "string"


def read_feature_columns(path: Path) -> list[FeatureColumn]:
    """Return the features of a CSV file, in the order of its columns, by its first 100,000 valid rows.

    Raises:
        InputError: the file cannot be read, its header is invalid, or no column is a feature.
    """
    source = FileSource(path)
    try:
        with source.open() as (content, place):
            records = CsvRecords(source.name, Lines(source.name, content, place), None)
            columns = {
                number: FeatureColumn(name)
                for number, name in enumerate(records.columns)
                if name not in NOT_FEATURES and not name.startswith(ATTRIBUTE_PREFIX)
            }
            rows = 0
            for _, record in records:
                cells = records.fit(record) if isinstance(record, list) else record
                if isinstance(cells, BadRecord):
                    continue
                for number, column in columns.items():
                    column.add(cells[number])
                rows += 1
                if rows == MAX_ROWS:
                    break
    finally:
        source.close()
    if not columns:
        raise InputError(f"{source.name}: no column is a feature: all are a contact's own fields or attributes")
    return list(columns.values())
