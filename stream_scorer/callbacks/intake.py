"""Intake of the callbacks topic and the retry topics: decodes a record and routes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.callbacks.output_records import LAST_STATUS_HEADER
from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.framing_detector import with_framing
from stream_scorer.core.callbacks.records import UNANSWERED_HEADER, read_callback
from stream_scorer.core.callbacks.retry_policy import DeferredDelivery, Delivery, route
from stream_scorer.core.callbacks.selection import Invalid
from stream_scorer.core.retry_topics import HELD_HEADER, ROUNDS_HEADER, parse_number
from stream_scorer.core.scoring.types import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.retry_policy import Completed, DeliveryRules
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.retry_topics import NotDue


class CallbackIntake:
    """Decoder and router of single records.

    Args:
        codec: decodes ``CampaignCallback``.
        levels: the level of each retry topic; any other topic has new callbacks.
        rules: how long the first record of a retry topic may pause its partition.
        started_ms: start of the worker, in Unix milliseconds. A callback that was held before is due: it may fit the
            present settings.
    """

    def __init__(self, codec: Codec, levels: Mapping[str, int], rules: DeliveryRules, started_ms: int) -> None:
        self._codec = codec
        self._levels = levels
        self._rules = rules
        self._started_ms = started_ms

    def examine(self, record: SourceRecord, now_ms: int) -> Delivery | NotDue | DeferredDelivery | Completed | Invalid:
        """Return the delivery of a record, or why it is not due, deferred again or invalid."""
        try:
            callback = read_callback(self._codec, record)
        except UndecodableError as error:
            return Invalid(record, Reason.UNDECODABLE.value, with_framing(error, record.headers), now_ms)
        level = self._levels.get(record.topic, 0)
        headers = dict(record.headers)
        delivery = Delivery(
            record,
            callback,
            retry_level=level,
            rounds=level if (rounds := parse_number(headers.get(ROUNDS_HEADER), 1)) is None else rounds,
            last_status=parse_number(headers.get(LAST_STATUS_HEADER), 3),
            is_unanswered=headers.get(UNANSWERED_HEADER) == b"true",
            may_be_repeat=headers.get(UNANSWERED_HEADER) == b"maybe",
            was_held=HELD_HEADER in headers,
        )
        return route(delivery, self._rules, now_ms, self._started_ms)

    def level(self, topic: str) -> int:
        """Return the level of a retry topic; 0 for any other topic."""
        return self._levels.get(topic, 0)

    def planned_at_ms(self, record: SourceRecord) -> int:
        """Return when the callback of a record that was examined was planned."""
        return read_callback(self._codec, record).planned_at_ms
