"""Intake of the callbacks topic and the retry topics: decodes a record and routes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.callbacks.output_records import ROUNDS_HEADER
from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.avro.framing_detector import with_framing
from stream_scorer.core.callbacks.delivery_policy import DeferredDelivery, Delivery, route
from stream_scorer.core.callbacks.records import read_callback
from stream_scorer.core.callbacks.selection import Invalid
from stream_scorer.core.records import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.core.callbacks.delivery_policy import DeliveryRules
    from stream_scorer.core.records import SourceRecord
    from stream_scorer.core.retry_topics import NotDue


class CallbackIntake:
    """Decoder and router of single records.

    Args:
        codec: decodes ``CampaignCallback``.
        tiers: the level of each retry topic; any other topic has new callbacks.
        rules: how long the first record of a retry topic may pause its partition.
    """

    def __init__(self, codec: Codec, tiers: Mapping[str, int], rules: DeliveryRules) -> None:
        self._codec = codec
        self._tiers = tiers
        self._rules = rules

    def examine(self, record: SourceRecord, now_ms: int) -> Delivery | NotDue | DeferredDelivery | Invalid:
        """Return the delivery of a record, or why it is not due, deferred again or invalid."""
        try:
            callback = read_callback(self._codec, record)
        except UndecodableError as error:
            return Invalid(record, Reason.UNDECODABLE.value, with_framing(error, record.headers), now_ms)
        tier = self._tiers.get(record.topic, 0)
        return route(Delivery(record, callback, tier, _rounds(record, tier)), self._rules, now_ms)


def _rounds(record: SourceRecord, tier: int) -> int:
    """Return how many rounds have failed; without a valid header, the level of the retry topic."""
    for name, value in record.headers:
        if name == ROUNDS_HEADER and value is not None and value.isdigit() and len(value) == 1:
            return int(value)
    return tier
