from __future__ import annotations

from typing import Any

import pytest

from stream_scorer.core.audit.events import audited_id
from stream_scorer.core.desk.record_filter import Bound, RecordFilter, RecordIds, parse_filter
from stream_scorer.core.records import SourceRecord
from stream_scorer.errors import UsageError

NOW_MS = 1_900_000_000_000
HOUR_MS = 3_600_000


def record(**fields: Any) -> SourceRecord:
    given = {
        "topic": "scores",
        "partition": 1,
        "offset": 7,
        "key": b"anna",
        "value": b"\xc3\x01 anna event-1",
        "headers": [("stream-scorer-source", b"features/0/17"), ("stream-scorer-batch", b"batch-1")],
        "timestamp_ms": NOW_MS,
    }
    return SourceRecord(**{**given, **fields})


IDS = RecordIds(contact_ids=("anna",), event_ids=("event-1",), batch_id=None)


def selects(one: SourceRecord | None = None, ids: RecordIds = IDS, **options: Any) -> bool:
    selection = parse_filter(now_ms=NOW_MS, **options)
    one = record() if one is None else one
    matches = selection.matches(one, ids)
    # The search in the bytes never misses a matching record.
    assert selection.may_match(one) or not matches
    return matches


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("2h", Bound(time_ms=NOW_MS - 2 * HOUR_MS)),
        ("90s", Bound(time_ms=NOW_MS - 90_000)),
        ("15m", Bound(time_ms=NOW_MS - 900_000)),
        ("7d", Bound(time_ms=NOW_MS - 7 * 24 * HOUR_MS)),
        ("0s", Bound(time_ms=NOW_MS)),
        ("999999999d", Bound(time_ms=0)),
        ("17", Bound(offset=17)),
        ("0", Bound(offset=0)),
        ("2030-01-31T06:00:00Z", Bound(time_ms=1_896_069_600_000)),
        ("2030-01-31T07:00:00.250+01:00", Bound(time_ms=1_896_069_600_250)),
        ("1900-01-01T00:00:00Z", Bound(time_ms=0)),
        ("0001-01-01T00:00:00+23:59", Bound(time_ms=0)),
    ],
)
def test_bounds(text: str, bound: Bound) -> None:
    assert parse_filter(now_ms=NOW_MS, since=text).since == bound
    assert parse_filter(now_ms=NOW_MS, until=text).until == bound


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"since": "yesterday"}, "--since 'yesterday'"),
        ({"since": ""}, "--since ''"),
        ({"until": "2030-01-31T06:00:00"}, "--until '2030-01-31T06:00:00' has no zone"),
        ({"until": "2030-01-31"}, "has no zone"),
        ({"since": "-5"}, "--since '-5'"),
        ({"since": "2 h"}, "--since '2 h'"),
        ({"since": "٣h"}, "--since '٣h'"),
        ({"since": "9" * 30}, "--since '999"),
        ({"since": "1h", "until": "2h"}, "--since is not before --until"),
        ({"since": "5", "until": "5"}, "--since is not before --until"),
        ({"limit": 0}, "--limit 0"),
        ({"partition": -1}, "--partition -1"),
        ({"places": ["features/0"]}, "--place 'features/0': must be TOPIC/PARTITION/OFFSET"),
        ({"places": ["features/0/-1"]}, "--place"),
        ({"places": ["fea tures/0/1"]}, "--place"),
        ({"places": ["\udcff/0/1"]}, "--place"),
        ({"events": [""]}, "--event ''"),
        ({"batches": ["\udcff"]}, "--batch"),
        ({"contacts": [""]}, "contact id ''"),
        ({"contacts": ["\udcff"]}, "contact id"),
        ({"since": "a\nb\x1b[31m"}, r"--since 'a\nb\x1b[31m'"),
    ],
)
def test_malformed_options_are_named_in_one_line(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(now_ms=NOW_MS, **options)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_without_options_every_record_matches() -> None:
    assert parse_filter(now_ms=NOW_MS) == RecordFilter()
    assert selects()
    assert selects(record(value=None, key=None, headers=[], timestamp_ms=-1), RecordIds())


def test_since_is_selected_and_until_is_not() -> None:
    assert selects(since="7")
    assert not selects(since="8")
    assert selects(until="8")
    assert not selects(until="7")
    assert selects(since="0s")
    assert not selects(until="0s")
    assert selects(record(timestamp_ms=NOW_MS - 1), until="0s")
    assert not selects(record(timestamp_ms=NOW_MS - 1), since="0s")


def test_partition() -> None:
    assert selects(partition=1)
    assert not selects(partition=0)


def test_a_place_is_that_of_the_record_or_of_its_source() -> None:
    assert selects(places=["scores/1/7"])
    assert not selects(places=["scores/1/8"])
    assert not selects(places=["scores/0/7"])
    assert selects(places=["features/0/17"])
    assert selects(places=["features/9/9", "features/0/17"])
    callback = record(value=b"scores/0/3", headers=[])
    assert selects(callback, RecordIds(sources=("scores/0/2", "scores/0/3")), places=["scores/0/3"])
    assert not selects(callback, RecordIds(sources=("scores/0/33",)), places=["scores/0/3"])
    assert not selects(record(headers=[("stream-scorer-source", b"\xff\n")]), places=["features/0/17"])


def test_many_places_are_not_searched_for_in_the_bytes() -> None:
    many = parse_filter(now_ms=NOW_MS, places=[f"features/0/{offset}" for offset in range(1000)])
    assert many.may_match(record(value=b"", headers=[]))
    assert not many.matches(record(value=b"", headers=[]), RecordIds())
    assert many.matches(record(), IDS)


def test_event_and_batch() -> None:
    assert selects(events=["event-1"])
    assert not selects(events=["event"])
    assert selects(events=["other", "event-1"])
    assert selects(batches=["batch-1"])
    assert not selects(batches=["batch"])
    audit = record(value=b"batch-7", headers=[])
    assert selects(audit, RecordIds(batch_id="batch-7"), batches=["batch-7"])


def test_a_contact_is_that_of_the_value_not_of_the_key() -> None:
    assert selects(contacts=["anna"])
    assert selects(contacts=["bert", "anna"])
    assert not selects(contacts=["ann"])
    other = record(key=b"bert")
    assert not selects(other, contacts=["bert"])
    # Undecodable: the key is all that is known.
    assert selects(record(value=b"broken"), RecordIds(), contacts=["anna"])
    assert not selects(record(value=b"anna broken"), RecordIds(), contacts=["bert"])


def test_an_id_is_found_in_the_audit_where_it_is_truncated() -> None:
    long = "ä" * 200
    audit = record(value=audited_id(long).encode(), key=b"chain")
    assert selects(audit, RecordIds(contact_ids=("x", audited_id(long))), contacts=[long])
    # In the other topics it has its full length.
    assert selects(record(value=long.encode()), RecordIds(contact_ids=(long,)), contacts=[long])
    assert not selects(record(value=long.encode()), RecordIds(contact_ids=(long[:-1],)), contacts=[long])


def test_conditions_of_several_kinds_must_all_match() -> None:
    assert selects(contacts=["anna"], events=["event-1"], batches=["batch-1"], places=["features/0/17"])
    for other in ({"events": ["e"]}, {"batches": ["b"]}, {"places": ["features/0/1"]}, {"partition": 0}):
        assert not selects(contacts=["anna"], **other)


@pytest.mark.parametrize("name", ["=1+1", "-5", "a b", "äöü", "a\nb", "\x1b[31m", "名前", "--help", "a/0/1"])
def test_odd_contact_ids(name: str) -> None:
    one = record(value=b"\xc3\x01" + name.encode(), key=name.encode())
    assert selects(one, RecordIds(contact_ids=(name,)), contacts=[name])
    assert not selects(one, RecordIds(contact_ids=(name,)), contacts=[name + "x"])


def test_bytes_without_the_id_are_not_decoded() -> None:
    selection = parse_filter(now_ms=NOW_MS, contacts=["anna"])
    assert selection.may_match(record())
    assert not selection.may_match(record(value=b"bert", key=b"bert"))
    assert selection.may_match(record(value=None))
    assert not parse_filter(now_ms=NOW_MS, contacts=["anna"], since="8").may_match(record())


def test_the_entries_of_an_audit_event_that_are_selected() -> None:
    def entries(**options: Any) -> bool:
        selection = parse_filter(now_ms=NOW_MS, **options)
        return selection.selects_entries(record()) and selection.matches_entry(
            record(), "anna", "event-1", "features/0/17"
        )

    assert entries(contacts=["bert", "anna"])
    assert entries(contacts=["anna"], events=["event-1"], places=["features/0/17"])
    assert not entries(contacts=["bert"])
    assert not entries(contacts=["anna"], events=["event-2"])
    assert not entries(contacts=["anna"], places=["features/0/1"])
    # The whole event.
    assert not entries(places=["scores/1/7"])
    assert not entries(batches=["batch-1"])
