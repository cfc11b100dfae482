"""Scan of the last records of the features topic: bounded, and optional for the load of a file."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.core.avro.codec import Codec
from stream_scorer.errors import BrokerRefused, StreamScorerError
from stream_scorer.kafka.consumer import recent_events
from stream_scorer.kafka.consumer.log_reader import OffsetRange
from stream_scorer.kafka.consumer.recent_events import recent_event_ids
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CODEC = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
SETTINGS = load_settings(environ={})


def value(event_id: str) -> bytes:
    return CODEC.encode(
        {
            "event_id": event_id,
            "contact_id": "c",
            "features": {},
            "occurred_at": 0,
            "campaign_id": None,
            "model_version": None,
            "attributes": {},
        }
    )


class Log:
    """A topic whose records are read two at a time."""

    def __init__(
        self, values: list[bytes | None], extents: dict[int, OffsetRange], end: StreamScorerError | None
    ) -> None:
        self.values = values
        self.extents = extents
        self.end = end
        self.asked: dict[int, OffsetRange] = {}

    def stable_ranges(self, _topic: str, _partitions: int) -> dict[int, OffsetRange]:
        return self.extents

    def read(self, _topic: str, extents: Mapping[int, OffsetRange]) -> Iterator[list[Any]]:
        self.asked = dict(extents)
        for at in range(0, len(self.values), 2):
            yield [SimpleNamespace(value=one) for one in self.values[at : at + 2]]
        if self.end is not None:
            raise self.end


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Log]:
    def make(*values: bytes | None, extents: dict[int, OffsetRange] | None = None, end: Any = None) -> Log:
        log = Log(list(values), extents or {0: OffsetRange(0, len(values))}, end)
        monkeypatch.setattr(recent_events, "LogReader", lambda *_args, **_more: log)
        return log

    return make


def test_ids_of_decodable_records(topic: Callable[..., Log]) -> None:
    topic(value("a"), None, b"{}", value("b"), value("a"))
    assert recent_event_ids(SETTINGS, "features", 1, CODEC) == {"a", "b"}


def test_the_last_records_of_each_partition_are_read(topic: Callable[..., Log]) -> None:
    log = topic(extents={0: OffsetRange(0, 5), 1: OffsetRange(100, 900), 2: OffsetRange(7, 7)})
    assert recent_event_ids(SETTINGS, "features", 3, CODEC, max_records=30) == frozenset()
    assert log.asked == {0: OffsetRange(0, 5), 1: OffsetRange(890, 900), 2: OffsetRange(7, 7)}


def test_unreadable_topics_have_no_ids(topic: Callable[..., Log]) -> None:
    topic(value("a"), end=BrokerRefused("Topic authorization failed"))
    assert recent_event_ids(SETTINGS, "features", 1, CODEC) == {"a"}


def test_the_scan_has_a_time_limit(topic: Callable[..., Log]) -> None:
    topic(*(value(f"e-{n}") for n in range(100)))
    ticks = count(0, 2)
    assert len(recent_event_ids(SETTINGS, "features", 1, CODEC, clock=lambda: next(ticks))) == 6
