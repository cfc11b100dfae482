"""Search for the audit entry of a rejected contact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.record_filter import Bound, RecordFilter
from stream_scorer.desk.topic_scan import TopicScan
from stream_scorer.schema_files import SchemaFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.desk.rejected_record import RejectedRecord
    from stream_scorer.kafka.registry.serde import Serde
    from stream_scorer.settings import Settings

# A rejection and its audit event are written in one transaction, so their timestamps are close.
_AROUND_MS: Final = 60_000


class AuditEntries:
    """Reader of single audit entries.

    Args:
        settings: the cluster.
        framing: decodes audit events.
    """

    def __init__(self, settings: Settings, framing: Serde) -> None:
        self._settings = settings
        self._codec = framing.reader(SchemaFile.BATCH_AUDIT)

    def find(self, rejected: RejectedRecord) -> Mapping[str, Any] | None:
        """Return the entry of a rejected contact with the fields of its event; None: it is not there.

        Raises:
            BrokerError: the audit topic cannot be read.
        """
        if not rejected.batch_id or rejected.origin is None:
            return None
        source = "/".join(map(str, rejected.origin))
        at_ms = rejected.record.timestamp_ms
        selection = RecordFilter(
            since=Bound(time_ms=max(0, at_ms - _AROUND_MS)),
            until=Bound(time_ms=at_ms + _AROUND_MS),
            batch_ids=frozenset({rejected.batch_id}),
        )
        for record in TopicScan(self._settings, self._settings.topics.audit, selection).records():
            if not selection.may_match(record):
                continue
            try:
                event = self._codec.decode(record.value)
            except UndecodableError:
                continue
            for entry in event["contacts"]:
                if entry["source"] == source and event["batch_id"] == rejected.batch_id:
                    return {**{name: value for name, value in event.items() if name != "contacts"}, **entry}
        return None
