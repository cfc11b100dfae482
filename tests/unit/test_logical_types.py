"""Logical types that only the writer has: converted, or rejected with field and types; never read as text."""

from __future__ import annotations

import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.compatibility import compare
from stream_scorer.core.avro.confluent import ConfluentCodec, confluent_header
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.types import Reason, Rejected
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.intake import Intake

CASES = Path(__file__).parents[1] / "cases" / "schemas"
FEATURES = load_schema(SchemaFile.CONTACT_FEATURES)
CONTACT: dict[str, Any] = {
    "event_id": "e-1",
    "contact_id": "c-1",
    "features": {"calls": 3},
    "occurred_at": 1_790_000_000_000,
    "campaign_id": None,
    "model_version": None,
}
WHEN = dt.datetime(2026, 11, 29, 12, tzinfo=dt.UTC)
UNION = ["null", "boolean", "long", "double", "string"]


def logical(kind: str, unit: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": unit, **more}


def decimal(scale: Any = 0, kind: str = "bytes", **more: Any) -> dict[str, Any]:
    return logical(kind, "decimal", precision=18, scale=scale, **more)


def with_type(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    fields = [{**one, "type": kind, **more} if one["name"] == name else one for one in FEATURES["fields"]]
    return {**FEATURES, "fields": fields}


def with_values(*kinds: Any) -> dict[str, Any]:
    return with_type("features", {"type": "map", "values": kinds[0] if len(kinds) == 1 else list(kinds)})


def read(schema: dict[str, Any], **values: Any) -> Any:
    """Return the contact of a producer with this schema and fastavro's logical types."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), {**CONTACT, **values})
    codec = ConfluentCodec.confluent(FEATURES, {9: schema}.__getitem__)
    return ContactDecoder(codec).decode(confluent_header(9) + body.getvalue())


def raw(schema: dict[str, Any], **values: Any) -> Any:
    """Return the same for bytes that were written without the logical types."""
    body = io.BytesIO()
    bare = json.loads(json.dumps(schema).replace("logicalType", "was"))
    fastavro.schemaless_writer(body, fastavro.parse_schema(bare), {**CONTACT, **values})
    codec = ConfluentCodec.confluent(FEATURES, {9: schema}.__getitem__)
    return ContactDecoder(codec).decode(confluent_header(9) + body.getvalue())


def test_the_schema_of_the_field_trial() -> None:
    schema = json.loads((CASES / "decimal-contact-id.json").read_text())
    assert read(schema, contact_id=Decimal(825373492)).contact_id == "825373492"


@pytest.mark.parametrize("number", [0, -1, 255, 10**17, -(10**17)])
def test_an_integer_for_text_is_its_digits(number: int) -> None:
    assert read(with_type("event_id", decimal()), event_id=Decimal(number)).event_id == str(number)
    schema = with_type("campaign_id", ["null", decimal()])
    assert read(schema, campaign_id=Decimal(number)).campaign_id == str(number)
    assert read(schema, campaign_id=None).campaign_id is None


@pytest.mark.parametrize(
    ("scale", "value", "expected"),
    [
        (0, Decimal(12594), 12594),
        (2, Decimal("261.55"), 261.55),
        (2, Decimal("-0.01"), -0.01),
        (3, Decimal("7.000"), 7.0),
        (0, Decimal(10**17), 10**17),
    ],
)
def test_a_decimal_is_a_number_to_the_model(scale: int, value: Decimal, expected: float) -> None:
    """12594 is the bytes ``12``, which were formerly read as a text and sent as a segment."""
    for schema in (
        with_values(*UNION, decimal(scale)),
        with_values(decimal(scale)),
        with_values("null", decimal(scale)),
    ):
        read_value = read(schema, features={"time": value}).features["time"]
        assert repr(read_value) == repr(expected)


def test_a_decimal_beyond_avros_long_is_the_nearest_double() -> None:
    assert (
        repr(raw(with_values(decimal()), features={"a": (2**64).to_bytes(9)}).features["a"]) == "1.8446744073709552e+19"
    )


@pytest.mark.parametrize(
    ("field", "kind", "value", "types"),
    [
        ("contact_id", decimal(2), Decimal("1234.00"), r"bytes \(decimal\) and read as string"),
        ("contact_id", decimal("2"), b"12", r"bytes \(decimal\) and read as string"),
        ("contact_id", decimal(-1), b"12", r"bytes \(decimal\) and read as string"),
        ("contact_id", decimal(0, "fixed", name="D", size=8), Decimal(12), r"fixed D \(decimal\) and read as string"),
        ("contact_id", logical("fixed", "uuid", name="U", size=16), b"u" * 16, r"fixed U \(uuid\) and read as string"),
        ("contact_id", logical("bytes", "big-decimal"), b"12", r"bytes \(big-decimal\) and read as string"),
        ("contact_id", logical("bytes", "no\nsuch"), b"12", r"bytes \('no\\nsuch'\) and read as string"),
        ("model_version", ["null", decimal(1)], Decimal("1.5"), r"bytes \(decimal\) and read as \[null, string\]"),
        ("model_version", ["null", decimal(0, "fixed", name="D", size=8)], Decimal(1), r"may be fixed D \(decimal\)"),
        ("occurred_at", logical("int", "date"), WHEN.date(), r"written as date and read as timestamp-millis"),
        ("occurred_at", logical("long", "timestamp-micros"), WHEN, "written as timestamp-micros and read as"),
        (
            "occurred_at",
            logical("long", "local-timestamp-millis"),
            WHEN,
            "written as local-timestamp-millis and read as",
        ),
        (
            "occurred_at",
            logical("string", "iso8601"),
            "2026",
            r"string \(iso8601\) and read as long \(timestamp-millis",
        ),
    ],
)
def test_a_type_without_counterpart_is_rejected_with_field_and_types(
    field: str, kind: Any, value: Any, types: str
) -> None:
    write = raw if isinstance(value, bytes) else read
    with pytest.raises(UndecodableError, match=f"{field} .*{types}") as caught:
        write(with_type(field, kind), **{field: value})
    assert str(caught.value).isprintable()


TIMES: list[tuple[Any, Any]] = [
    (logical("int", "date"), WHEN.date()),
    (logical("int", "time-millis"), WHEN.time()),
    (logical("long", "time-micros"), WHEN.time()),
    (logical("long", "timestamp-millis"), WHEN),
    (logical("long", "timestamp-micros"), WHEN),
    (logical("long", "timestamp-nanos"), 5),
    (logical("long", "local-timestamp-micros"), WHEN.replace(tzinfo=None)),
    (logical("fixed", "duration", name="Span", size=12), b"d" * 12),
    (logical("double", "celsius"), 5.0),
    (decimal(2, "fixed", name="Money", size=8), Decimal("1.50")),
]


@pytest.mark.parametrize(("kind", "value"), TIMES, ids=[kind["logicalType"] for kind, _ in TIMES])
def test_no_other_logical_type_is_a_feature(kind: Any, value: Any) -> None:
    unit = kind["logicalType"]
    only = with_values(kind)
    with pytest.raises(UndecodableError, match=rf"features{{}} .*\({unit}\) is in no branch"):
        read(only, features={"last": value})
    # In a union only the values of that branch are refused.
    mixed = with_values("null", "string", kind)
    for good in ({}, {"last": "x"}, {"last": None}):
        assert read(mixed, features=good).features == good
    with pytest.raises(UndecodableError, match=rf"features{{}} .*\({unit}\)"):
        read(mixed, features={"first": "x", "last": value})


@pytest.mark.parametrize("kind", [logical("string", "uuid"), {"type": "string", "avro.java.string": "String"}])
def test_text_stays_text(kind: Any) -> None:
    contact_id = UUID(int=7) if "logicalType" in kind else "c-7"
    schema = with_type("contact_id", kind)
    assert read(schema, contact_id=contact_id).contact_id == str(contact_id)
    assert read(with_values(*UNION[:-1], kind), features={"a": contact_id}).features == {"a": str(contact_id)}


@pytest.mark.parametrize(
    ("name", "kind", "problem"),
    [
        # Found here: Debezium has no logical types, it names the unit in an attribute of its own.
        (
            "occurred_at",
            {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"},
            "written as timestamp-micros",
        ),
        ("occurred_at", {"type": "long", "connect.name": "io.debezium.time.NanoTime"}, "io.debezium.time.NanoTime"),
        (
            "contact_id",
            {"type": "bytes", "connect.name": "org.apache.kafka.connect.data.Decimal"},
            "connect.data.Decimal",
        ),
        ("features", {"type": "map", "values": {"type": "int", "connect.name": "io.debezium.time.Date"}}, "int (date)"),
    ],
)
def test_the_units_of_kafka_connect_and_debezium_count_too(name: str, kind: Any, problem: str) -> None:
    [found] = compare(FEATURES, with_type(name, kind)).read_errors
    assert found.startswith(name)
    assert problem in found


@pytest.mark.parametrize("unit", ["org.apache.kafka.connect.data.Timestamp", "io.debezium.time.Timestamp"])
def test_foreign_names_of_milliseconds_are_accepted(unit: str) -> None:
    schema = with_type("occurred_at", {"type": "long", "connect.version": 1, "connect.name": unit})
    assert read(schema).occurred_at_ms == CONTACT["occurred_at"]


@pytest.mark.parametrize("kind", ["long", {"type": "long"}, ["null", "long"]])
def test_a_logical_type_beside_the_type_is_checked(kind: Any) -> None:
    """Found here: the most common mistake with logical types; Avro ignores it, the producer writes microseconds."""
    with pytest.raises(UndecodableError, match="occurred_at is written as timestamp-micros and read as timestamp-mil"):
        read(with_type("occurred_at", kind, logicalType="timestamp-micros"))
    assert read(with_type("occurred_at", kind, logicalType="timestamp-millis")).occurred_at_ms == 1_790_000_000_000


def test_a_large_decimal_has_bounded_cost() -> None:
    with pytest.raises(UndecodableError, match=r"features{} .*\(decimal\).*: it has 1000000 bytes, not 1 to 32"):
        raw(with_values(decimal()), features={"a": b"\x7f" * 1_000_000})
    with pytest.raises(UndecodableError, match="it has 0 bytes"):
        raw(with_type("contact_id", decimal()), contact_id=b"")


def test_the_rejection_names_field_and_types() -> None:
    schema = with_values("null", "string", logical("int", "date"))
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), {**CONTACT, "features": {"last": WHEN.date()}})
    record = SourceRecord("features", 0, 0, b"c", confluent_header(9) + body.getvalue(), [])
    intake = Intake(
        codec=ConfluentCodec.confluent(FEATURES, {9: schema}.__getitem__),
        checker=ContactChecker(FeatureList([Feature("last", "integer")])),
        encode=lambda _contact_id, _features: b"{}",
        fits=lambda _contact: True,
        model_version=None,
    )
    rejected = intake.examine(record, 0)
    assert isinstance(rejected, Rejected)
    assert rejected.reasons == (Reason.UNDECODABLE,)
    assert "features{} is written as int (date) and read as [null, boolean, long, double, string]" in rejected.detail
