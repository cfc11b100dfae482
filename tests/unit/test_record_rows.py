from __future__ import annotations

from typing import Any

import pytest
from desk_topics import START, START_MS, audit, callback, decision, entry, features, receipt, score

from stream_scorer.core.desk.decoded_record import DecodedRecord, ids_of
from stream_scorer.core.desk.record_filter import RecordFilter, RecordIds, parse_filter
from stream_scorer.core.desk.record_rows import full_rows, iso_time, table_rows
from stream_scorer.core.records import SourceRecord

ALL = RecordFilter()


def decoded(value: dict[str, Any] | None, schema: str | None, **fields: Any) -> DecodedRecord:
    given: dict[str, Any] = {
        "topic": "t",
        "partition": 1,
        "offset": 7,
        "key": b"anna",
        "value": b"\xff",
        "headers": [],
        "timestamp_ms": START_MS,
    }
    error = "" if schema else "the value is broken"
    return DecodedRecord(SourceRecord(**{**given, **fields}), schema, value, error)


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (features("a"), RecordIds(("a",), ("event-a",))),
        (score("a"), RecordIds(("a",), ("event-a",), "batch-1")),
        (
            audit([entry("a", "f/0/1"), entry("b", "f/0/2")]),
            RecordIds(("a", "b"), ("event-a", "event-b"), "batch-1", ("f/0/1", "f/0/2")),
        ),
        (
            callback(["a", "b"], ["s/0/1", "s/0/2"]),
            RecordIds(("a", "b"), ("event-a", "event-b"), None, ("s/0/1", "s/0/2")),
        ),
        (receipt(["a"], ["s/0/1"]), RecordIds(("a",), ("event-a",), None, ("s/0/1",))),
        (decision("r/0/1", result_place="f/0/9"), RecordIds(sources=("r/0/1", "f/0/9"))),
        (decision("r/0/1"), RecordIds(sources=("r/0/1",))),
    ],
    ids=["features", "score", "audit", "callback", "receipt", "replay", "discard"],
)
def test_the_ids_of_each_schema(value: dict[str, Any], ids: RecordIds) -> None:
    assert ids_of(value) == ids
    assert decoded(value, "X").ids == ids


def test_ids_of_an_undecodable_record_are_none() -> None:
    assert decoded(None, None).ids == RecordIds()


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (START_MS, START),
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, None),
        (-1000, "1969-12-31T23:59:59.000Z"),
        (2**62, 2**62),
        (-(2**62), -(2**62)),
    ],
)
def test_times(time_ms: int, text: object) -> None:
    assert iso_time(time_ms) == text


def test_headers_that_cannot_be_read_are_null() -> None:
    [row] = full_rows(decoded(features("a"), "ContactFeatures", headers_readable=False), ALL)
    assert row["headers"] is None
    assert "raw_value" not in row


def test_bytes_are_readable() -> None:
    [row] = full_rows(decoded(callback(["a"], ["s/0/1"], body=b"\xff{"), "CampaignCallback", key=None), ALL, raw=True)
    assert row["value"]["body"] == "\\xff{"
    assert (row["key"], row["raw_key"], row["raw_value"]) == (None, None, "/w==")


def test_a_line_of_a_table_has_the_headers_that_explain_the_record() -> None:
    headers = [
        ("stream-scorer-source", b"f/0/1"),
        ("stream-scorer-error-reason", b"out_of_range"),
        ("stream-scorer-not-before", b"%d" % START_MS),
        ("stream-scorer-error-detail", b"age is 400"),
        ("error-reason", b"of another program"),
    ]
    [line] = table_rows(decoded(features("a"), "ContactFeatures", headers=headers), ALL)
    assert list(line)[:3] == ["place", "timestamp", "contact_id"]
    assert (line["error-reason"], line["not-before"], line["source"]) == ("out_of_range", START, "f/0/1")
    [line] = table_rows(decoded(None, None, headers=headers), ALL)
    assert (line["key"], line["error"], line["error-detail"]) == ("anna", "the value is broken", "age is 400")


@pytest.mark.parametrize("header", [b"soon", b"9" * 40, "٣".encode(), b""])
def test_a_due_time_that_is_none_is_shown_as_it_is(header: bytes) -> None:
    one = decoded(features("a"), "ContactFeatures", headers=[("stream-scorer-not-before", header)])
    [line] = table_rows(one, ALL)
    assert line["not-before"] == header.decode()


def test_entries_of_an_audit_event() -> None:
    one = decoded(audit([entry("a", "f/0/1"), entry("b", "f/0/2"), entry("a", "f/0/3")]), "BatchAudit")
    [row] = full_rows(one, ALL)
    assert len(row["value"]["contacts"]) == 3
    selection = parse_filter(now_ms=0, contacts=["a"])
    assert [row["entry"]["source"] for row in full_rows(one, selection)] == ["f/0/1", "f/0/3"]
    assert [line["source"] for line in table_rows(one, selection)] == ["f/0/1", "f/0/3"]


def test_a_line_of_a_decision_has_the_decided_place_beside_its_own() -> None:
    [row] = table_rows(decoded(decision("r/0/1", result_place="f/0/9"), "Decision"), ALL)
    assert list(row) == ["place", "timestamp", "action", "decided_place", "operator", "note", "job", "result_place"]
    assert (row["place"], row["decided_place"], row["result_place"]) == ("t/1/7", "r/0/1", "f/0/9")
