"""Compatibility of reader and writer schemas, compared with fastavro."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from stream_scorer.core.avro.compatibility import compare, incompatibilities


def record(*fields: tuple[str, Any] | dict[str, Any], name: str = "R", **more: Any) -> dict[str, Any]:
    made = [one if isinstance(one, dict) else {"name": one[0], "type": one[1]} for one in fields]
    return {"type": "record", "name": name, "fields": made, **more}


def enum(*symbols: str, **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


INNER = record(("y", "int"), name="I")


@pytest.mark.parametrize(
    ("reader", "writer", "value"),
    [
        (record(("x", "long")), record(("x", "int")), {"x": 1}),
        (record(("x", "double")), record(("x", "long")), {"x": 1}),
        (record({"name": "y", "type": "int", "default": 3}), record(("x", "int")), {"x": 1}),
        (record({"name": "y", "type": "int", "aliases": ["x"]}), record(("x", "int")), {"x": 1}),
        (record(("x", ["null", "long"])), record(("x", "int")), {"x": 1}),
        (record(("x", ["null", "string"])), record(("x", ["string", "null"])), {"x": "a"}),
        (record(("x", enum("A", "B"))), record(("x", enum("B"))), {"x": "B"}),
        (
            record(("x", record(("y", "int"), name="I"))),
            record(("x", record(("y", "int"), name="n.I"))),
            {"x": {"y": 1}},
        ),
        (
            record(("x", {"type": "map", "values": "double"}), ("y", {"type": "array", "items": "bytes"})),
            record(("y", {"type": "array", "items": "bytes"}), ("x", {"type": "map", "values": "float"})),
            {"x": {"a": 1.5}, "y": [b"b"]},
        ),
    ],
)
def test_compatible(reader: dict[str, Any], writer: dict[str, Any], value: dict[str, Any]) -> None:
    assert incompatibilities(reader, writer) == []
    stream = BytesIO()
    schemaless_writer(stream, parse_schema(writer), value)
    stream.seek(0)
    schemaless_reader(stream, parse_schema(writer), parse_schema(reader))


@pytest.mark.parametrize(
    ("reader", "writer", "problem"),
    [
        (record(("x", "int")), record(("x", "long")), "x is written as long and read as int"),
        (record(("x", "int")), record(("y", "int")), "x is missing and has no default"),
        (record(name="R"), record(name="S"), "it is a record S, not a record R"),
        (record(("x", "int")), "string", "it is written as string and read as record R"),
        (record(("x", ["null", "int"])), record(("x", "string")), "x string is in no branch of [null, int]"),
        (record(("x", "int")), record(("x", ["null", "string"])), "x may be null, which int cannot take"),
        (
            record(("x", {"type": "fixed", "name": "F", "size": 2})),
            record(("x", {"type": "fixed", "name": "F", "size": 3})),
            "x has 3 bytes, not 2",
        ),
        (
            record(("x", {"type": "array", "items": record(("y", "int"), name="I")})),
            record(("x", {"type": "array", "items": record(("z", "int"), name="I")})),
            "x[].y is missing and has no default",
        ),
    ],
)
def test_no_value_can_be_read(reader: Any, writer: Any, problem: str) -> None:
    assert problem in compare(reader, writer).read_errors
    assert problem in incompatibilities(reader, writer)


@pytest.mark.parametrize(
    ("reader", "writer", "problem"),
    [
        (record(("x", "int")), record(("x", ["null", "int"])), "x may be null, which int cannot take"),
        (record(("x", enum("A"))), record(("x", enum("A", "B"))), "x may be B, which is not known"),
        (
            record(("x", ["null", enum("A")])),
            record(("x", ["null", enum("A", "B")])),
            "x may be B, which is not known",
        ),
    ],
)
def test_some_values_can_be_read(reader: Any, writer: Any, problem: str) -> None:
    assert compare(reader, writer).read_errors == []
    assert incompatibilities(reader, writer) == [problem]


def test_an_unknown_symbol_with_a_default_is_compatible() -> None:
    assert incompatibilities(record(("x", enum("A", default="A"))), record(("x", enum("A", "B")))) == []


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
DATE = {"type": "int", "logicalType": "date"}


@pytest.mark.parametrize(
    ("reader", "writer", "unit"),
    [
        (MILLIS, MICROS, "timestamp-micros"),
        (MILLIS, DATE, "date"),
        (MILLIS, [MILLIS, MICROS], "timestamp-micros"),
        (MILLIS, ["int", MICROS], "timestamp-micros"),
        (MILLIS, ["null", MICROS], "timestamp-micros"),
        (MILLIS, [DATE, MILLIS], "date"),
        (["null", MILLIS], MICROS, "timestamp-micros"),
        (["null", MILLIS], ["null", MICROS], "timestamp-micros"),
        (["null", record(("y", MILLIS), name="I")], ["null", record(("y", MICROS), name="I")], "timestamp-micros"),
        ({"type": "array", "items": MILLIS}, {"type": "array", "items": ["null", MICROS]}, "timestamp-micros"),
    ],
)
def test_no_value_is_read_in_another_unit(reader: Any, writer: Any, unit: str) -> None:
    """fastavro would read the number unchanged in each branch: a date in the year 55,840."""
    for problems in (
        compare(record(("x", reader)), record(("x", writer))).read_errors,
        incompatibilities(reader, writer),
    ):
        assert any(one.endswith(f"is written as {unit} and read as timestamp-millis") for one in problems)


@pytest.mark.parametrize("writer", ["long", "int", ["long", MILLIS], ["null", "string", MILLIS]])
def test_a_number_without_a_unit_is_in_milliseconds(writer: Any) -> None:
    assert compare(record(("x", MILLIS)), record(("x", writer))).read_errors == []


def test_a_branch_of_another_unit_is_read_by_the_same_branch_of_the_reader() -> None:
    assert incompatibilities(record(("x", [MICROS, "null", MILLIS])), record(("x", MILLIS))) == []
