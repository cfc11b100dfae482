"""Event ids of the last records of the features topic, to detect a file that was loaded before.

A contact that is loaded again is scored and billed again, so `produce` warns. The check is bounded in records and
seconds. It needs the right to read, which a producer may lack: unreadable records give no warning.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.errors import StreamScorerError
from stream_scorer.kafka.consumer.log_reader import LogReader, OffsetRange

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.avro.codec import Codec
    from stream_scorer.settings import Settings

MAX_RECORDS: Final = 100_000
_MAX_S: Final = 5.0
_TIMEOUT_S: Final = 2.0


def recent_event_ids(
    settings: Settings,
    topic: str,
    partitions: int,
    codec: Codec,
    *,
    max_records: int = MAX_RECORDS,
    clock: Callable[[], float] = time.monotonic,
) -> frozenset[str]:
    """Return the event ids of the topic's last records; empty: it has none, or is not readable.

    Args:
        settings: the cluster.
        topic: the features topic.
        partitions: its number of partitions.
        codec: decodes ``ContactFeatures``.
        max_records: limit of records, all partitions together.
        clock: monotonic seconds.
    """
    found: set[str] = set()
    decoder = ContactDecoder(codec)
    give_up_at = clock() + _MAX_S
    try:
        log = LogReader(settings, settings.kafka.group_id, timeout_s=_TIMEOUT_S)
        share = max(1, max_records // partitions)
        extents = {
            number: OffsetRange(max(extent.begin, extent.end - share), extent.end)
            for number, extent in log.stable_ranges(topic, partitions).items()
        }
        for batch in log.read(topic, extents):
            found |= {event_id for record in batch if (event_id := _event_id(decoder, record.value)) is not None}
            if clock() > give_up_at:
                break
    except StreamScorerError:
        pass
    return frozenset(found)


def _event_id(decoder: ContactDecoder, value: bytes | None) -> str | None:
    try:
        return decoder.decode(value).event_id
    except UndecodableError:
        return None
