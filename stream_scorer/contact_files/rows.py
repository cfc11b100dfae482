"""Conversion of one row to a `ContactEvent`: a CSV record by its columns, or a JSON object by its keys.

An invalid row raises `RowError`, which names the column and the remedy. The model is not checked here, except that it
gives the type of a CSV cell.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

import orjson

from stream_scorer.core.attributes import ATTRIBUTE_PREFIX, attributes_problem
from stream_scorer.core.scoring.event_time import time_problem, unit_of
from stream_scorer.core.scoring.feature_types import MAX_INTEGER
from stream_scorer.core.scoring.types import ContactEvent
from stream_scorer.core.text import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_scorer.core.scoring.feature_types import FeatureType
    from stream_scorer.core.scoring.types import FeatureValue

# Namespace of default event ids. Never change it: a file must have the same ids in every version.
_NAMESPACE: Final = uuid.UUID("4f1d5f6e-0a55-5c0b-9d0c-6a7f3b8f2c11")
_LONG: Final = range(-(2**63), 2**63)
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE: Final = re.compile(r"[+-]?[0-9]+\.0+")
_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+")
# Long digits shortened by a spreadsheet, and the formula that programs write to avoid it.
_SHORTENED: Final = re.compile(r"[0-9]([.,][0-9]+)?[Ee]\+[0-9]{2,}")
# Whole numbers of a column with gaps, as pandas writes them.
_WHOLE_WITH_FRACTION: Final = re.compile(r"[0-9]+\.0+")
# A long number, such as that of a phone, in a column with gaps.
_NUMBER_WITH_FRACTION: Final = re.compile(r"[0-9]{7,}\.0+")
_NUMBERED: Final = ("contact_id", "campaign_id")
_FORMULA_TEXT: Final = re.compile(r'="[^"]*"')
_NOT_FINITE: Final = re.compile(rb"NaN|-?Infinity")
_EXAMPLE: Final = '{"contactId": "…", "features": {…}}'
_ABSENT: Final = object()
_MAX_DIGITS: Final = 400  # more than any double has; Python's conversion of millions of digits is slow
_DATE: Final = re.compile(r"(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])")
_TIME_WANTED: Final = "a time with its zone, such as 2030-01-31T06:00:00Z, or milliseconds since 1970"
_BOOLEANS: Final = {"true": True, "false": False}

CONTACT_ID: Final = "contact_id"
# CSV columns that are not features, with their JSON keys.
_JSON_NAMES: Final = {
    CONTACT_ID: "contactId",
    "event_id": "eventId",
    "occurred_at": "occurredAt",
    "campaign_id": "campaignId",
    "model_version": "modelVersion",
}
NOT_FEATURES: Final = frozenset(_JSON_NAMES)
# The key of all attributes in JSON Lines.
_ATTRIBUTES: Final = "attributes"
_JSON_KEYS: Final = {key: column for column, name in _JSON_NAMES.items() for key in (column, name)}


class RowError(ValueError):
    """Invalid row; the message names the column and the remedy."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """Defaults for missing fields: an event id derived from file and line, and ``now_ms`` as the time."""

    namespace: uuid.UUID
    now_ms: int

    @classmethod
    def of_file(cls, sha256_hex: str, now_ms: int) -> Defaults:
        """Return the defaults of a file with this content."""
        return cls(uuid.uuid5(_NAMESPACE, sha256_hex), now_ms)

    def event_id(self, line: int) -> str:
        """Return the UUIDv5 of the file's hash and the line (from 1)."""
        return str(uuid.uuid5(self.namespace, str(line)))


def csv_event(
    columns: Sequence[str], cells: Sequence[str], types: Mapping[str, FeatureType], defaults: Defaults, line: int
) -> ContactEvent:
    """Read one CSV record.

    Args:
        columns: names in the header; those in ``types`` are features, others with ``attributes.`` attributes.
        cells: one for each column; an empty one is null, and ``="00123"`` is the text 00123.
        types: features of the model.
        defaults: values for missing fields.
        line: first line of the record.

    Raises:
        RowError: a cell does not match the type of its column, or the contact id is empty.
    """
    features: dict[str, FeatureValue | None] = {}
    others: dict[str, str] = {}
    attributes: dict[str, str] = {}
    for column, written in zip(columns, cells, strict=True):
        cell = written[2:-1] if written.startswith("=") and _FORMULA_TEXT.fullmatch(written) else written
        if column in types:
            features[column] = parse_cell(column, cell, types[column]) if cell else None
        elif "+" in cell and _SHORTENED.fullmatch(cell) and column != "occurred_at":
            name = column if column in NOT_FEATURES else quoted(column)
            raise RowError(f"{name} was shortened by a spreadsheet: make its column text, and export it again")
        elif column in _NUMBERED and cell.endswith(".0") and _WHOLE_WITH_FRACTION.fullmatch(cell):
            raise RowError(
                f"{column} has become a number with a fraction: read its column as text (pandas: dtype=str), and"
                " export it again"
            )
        elif column in NOT_FEATURES:
            if cell:
                others[column] = cell
        elif cell:
            attributes[column.removeprefix(ATTRIBUTE_PREFIX)] = _attribute(column, cell)
    return _event(others, features, attributes, defaults, line)


def json_event(text: bytes, types: Mapping[str, FeatureType], defaults: Defaults, line: int) -> ContactEvent:
    """Read one line of JSON Lines: ``{"contactId": …, "features": {…}}`` and the optional keys.

    A line without ``features``, as pandas exports it, has the features of the model beside the other keys.

    Raises:
        RowError: the line is not such an object.
    """
    value = _json_object(text)
    features = value.pop("features", _ABSENT)
    if features is _ABSENT:
        features = {key: value.pop(key) for key in [*value] if key in types} or None
    if not isinstance(features, dict):
        raise RowError('has no object "features", and no feature of the model beside the other keys')
    attributes = _json_attributes(value.pop(_ATTRIBUTES, None))
    known = {name: _json_value(name, given) for name, given in features.items()}
    return _event(_others(value), known, attributes, defaults, line)


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RowError(f"is not JSON (character {error.pos + 1}){_json_remedy(text)}") from None
    except RecursionError:
        raise RowError("is not JSON that can be read: it is nested too deep") from None
    if isinstance(value, list):
        raise RowError("is a JSON array: write one object a line (pandas: orient='records', lines=True)")
    if not isinstance(value, dict):
        raise RowError(f"is no JSON object: write {_EXAMPLE}")
    return value


def _json_remedy(text: bytes) -> str:
    try:
        text.decode()
    except UnicodeDecodeError:
        return ": save the file as UTF-8"
    if text.lstrip().startswith(b"["):
        return ": a JSON array is not read; write one object a line"
    if number := _NOT_FINITE.search(text):
        return f": write null, not {number[0].decode()}"
    return f": write one object a line, such as {_EXAMPLE}"


def _others(value: Mapping[str, Any]) -> dict[str, str]:
    """Return a JSON object's values other than features, by CSV column name."""
    others: dict[str, str] = {}
    for key, given in value.items():
        column = _JSON_KEYS.get(key)
        if column is None:
            raise RowError(
                f"has an unknown key {quoted(key)}: use features, attributes, {', '.join(_JSON_NAMES.values())}"
            )
        if column in others:
            raise RowError(f"has both {_JSON_NAMES[column]} and {column}: leave one out")
        if given is None:
            continue
        if column == "occurred_at" and type(given) in (int, float):
            others[column] = str(given)  # parsed below, as in a CSV file
        elif isinstance(given, str):
            others[column] = given
        else:
            raise RowError(f"{key} must be a string: put it into quotation marks")
    return others


def _event(
    others: Mapping[str, str],
    features: dict[str, FeatureValue | None],
    attributes: dict[str, str],
    defaults: Defaults,
    line: int,
) -> ContactEvent:
    contact_id = others.get(CONTACT_ID)
    if not contact_id:
        raise RowError(f"{CONTACT_ID} is empty")
    if (problem := attributes_problem(attributes)) is not None:
        raise RowError(f"attributes {problem}: leave out what the campaign does not need")
    occurred_at = others.get("occurred_at")
    return ContactEvent(
        others.get("event_id") or defaults.event_id(line),
        contact_id,
        features,
        defaults.now_ms if occurred_at is None else parse_time(occurred_at),
        others.get("campaign_id"),
        others.get("model_version"),
        attributes,
    )


def _attribute(column: str, cell: str) -> str:
    if _NUMBER_WITH_FRACTION.fullmatch(cell):
        raise RowError(
            f"{quoted(column)} has become a number with a fraction: read its column as text (pandas: dtype=str), and"
            " export it again"
        )
    return cell


def _json_attributes(given: Any) -> dict[str, str]:
    """Return the attributes of a JSON object; null is the same as left out."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise RowError(f"{_ATTRIBUTES} must be an object of strings")
    for name, value in given.items():
        if value is not None and not isinstance(value, str):
            raise RowError(f"attribute {quoted(name)} must be a string: put it into quotation marks")
    return {name: value for name, value in given.items() if value is not None}


def cell_type(cell: str) -> FeatureType:
    """Return the type that a cell that is not empty suggests; digits that begin with 0 or + are text, such as an id."""
    text = cell.strip()
    if text.lower() in _BOOLEANS:
        return "boolean"
    digits = text.removeprefix("-")
    if len(text) <= _MAX_DIGITS and not re.match(r"\+|0[0-9]", digits):
        if _INTEGER.fullmatch(text) and abs(int(text)) <= MAX_INTEGER:
            return "integer"
        if _DECIMAL.fullmatch(text) and isfinite(float(text)):
            return "number"
    return "string"


def parse_cell(column: str, cell: str, wanted: FeatureType) -> FeatureValue:
    """Return the value of a feature from its text. Raises `RowError`, which names ``column``."""
    if wanted == "string":
        return cell
    text = cell.strip()
    if wanted == "boolean":
        if text.lower() not in _BOOLEANS:
            raise RowError(f"{quoted(column)} must be true or false; leave it empty where it is missing")
        return _BOOLEANS[text.lower()]
    if len(text) <= _MAX_DIGITS:
        if _INTEGER.fullmatch(text) and int(text) in _LONG:
            return int(text)
        if _DECIMAL.fullmatch(text) and isfinite(number := float(text)):
            if wanted == "number":
                return number
            if number.is_integer() and int(number) in _LONG:
                return int(number)
    remedy = (
        "a point before its fraction" if _COMMA.fullmatch(text) else "nothing else; leave it empty where it is missing"
    )
    raise RowError(f"{quoted(column)} must be {'an integer' if wanted == 'integer' else 'a number'}, with {remedy}")


def _json_value(name: str, value: Any) -> FeatureValue | None:
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        # Beyond Avro's long the value is the nearest double, as usual in JSON.
        return value if value in _LONG else float(value)
    raise RowError(f"feature {quoted(name)} must be a number, a string, true, false or null")


def parse_time(text: str) -> int:
    """Parse a time: ISO 8601 with a zone, or Unix milliseconds in the years 1990 to 2100.

    Spreadsheets and databases export times as numbers of many units; read as milliseconds, most lie in 1970.

    Raises:
        RowError: it is neither.
    """
    text = text.strip()
    if _WHOLE.fullmatch(text):  # pandas writes whole numbers of a column with gaps as doubles
        text = text.partition(".")[0]
    if _INTEGER.fullmatch(text):
        number = int(text) if len(text) <= _MAX_DIGITS else 0
        unit = unit_of(number)
        if unit == "milliseconds":
            return number
        given = (
            "a date without separators" if _DATE.fullmatch(text) else f"in {unit}" if unit else "outside 1990 to 2100"
        )
        raise RowError(f"occurred_at is {given}: write {_TIME_WANTED}")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        hint = "; a spreadsheet has made a number of it" if _DECIMAL.fullmatch(text) else ""
        raise RowError(f"occurred_at must be {_TIME_WANTED}{hint}")
    at_ms = round(moment.timestamp() * 1000)
    if (problem := time_problem(at_ms)) is not None:
        raise RowError(f"occurred_at {problem}: write {_TIME_WANTED}")
    return at_ms
