"""Replay of rejected contacts: which records are selected, and what goes back to the features topic."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.record_counts import time_of_ms
from stream_scorer.core.desk.record_filter import RecordIds
from stream_scorer.core.desk.rejected_record import (
    REPLAY_OF_HEADER,
    REPLAYS_HEADER,
    RejectionState,
    parse_rejected,
)
from stream_scorer.core.desk.verdict import Decide, NotSelected, Output, Skip, SkipReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.core.desk.expression import Expression
    from stream_scorer.core.desk.record_filter import RecordFilter
    from stream_scorer.core.desk.rejected_record import RejectedRecord
    from stream_scorer.core.desk.verdict import Verdict
    from stream_scorer.core.records import Headers, SourceRecord
    from stream_scorer.core.retry_topics import Source
    from stream_scorer.core.scoring.types import ContactEvent


class ContactChanges(Protocol):
    """Changes to a contact."""

    @property
    def texts(self) -> Mapping[str, str]:
        """The changes as they were given, by name."""

    def apply(self, event: ContactEvent) -> ContactEvent:
        """Return the changed contact."""


@dataclass(frozen=True, slots=True)
class RejectedFilter:
    """Filter of rejected contacts; an empty part matches all.

    Attributes:
        records: the common options.
        reasons: reasons of the contract, section 5.
        expression: an expression about the contact; None: there is none.
        decode: decodes a value.
    """

    records: RecordFilter
    reasons: frozenset[str]
    expression: Expression | None
    decode: Callable[[bytes | None], ContactEvent]

    def event(self, record: SourceRecord) -> ContactEvent | None:
        """Return the contact of a record; None: its value is missing or cannot be decoded."""
        try:
            return self.decode(record.value)
        except UndecodableError:
            return None

    def matches(self, rejected: RejectedRecord, event: ContactEvent | None) -> bool:
        """Return whether a rejected contact is selected."""
        if not rejected.is_rejection:
            return False
        if self.reasons and rejected.reason not in self.reasons:
            return False
        ids = RecordIds() if event is None else RecordIds((event.contact_id,), (event.event_id,), rejected.batch_id)
        if not self.records.matches(rejected.record, ids):
            return False
        return self.expression is None or self.expression.matches(values_of(rejected, event))


class Replay:
    """Judge that puts rejected contacts back on the features topic.

    Args:
        selected: the filter.
        features: name of the features topic.
        partitions: its number of partitions.
        fits: whether the features topic accepts a record for its size.
        changes: changes to each contact; None: the value is replayed byte for byte.
        encode: the value of a changed contact.
        max_replays: a contact that was replayed so often is parked.
        original: returns the input of a contact whose value did not fit into its rejection; None: it is deleted.
        forwarded: the headers of the input that are its own.
    """

    action = Action.REPLAYED

    def __init__(
        self,
        selected: RejectedFilter,
        *,
        features: str,
        partitions: int,
        fits: Callable[[Output], bool],
        changes: ContactChanges | None,
        encode: Callable[[ContactEvent], bytes],
        max_replays: int,
        original: Callable[[RejectedRecord], SourceRecord | None],
        forwarded: Callable[[Headers], Headers],
    ) -> None:
        self._selected = selected
        self._features = features
        self._partitions = partitions
        self._fits = fits
        self._changes = changes
        self._encode = encode
        self._max_replays = max_replays
        self._original = original
        self._forwarded = forwarded

    def judge(self, record: SourceRecord, action: str | None) -> Verdict:
        """Return the verdict about a record of the rejected topic."""
        replayed = self.replayed(record, action)
        if not isinstance(replayed, Output):
            return replayed

        def publish(_: Decision) -> Output:
            return replayed

        return Decide(publish, {} if self._changes is None else self._changes.texts)

    def replayed(self, record: SourceRecord, action: str | None) -> Output | Skip | NotSelected:
        """Return what a replay of the record publishes, or why it is not replayed."""
        rejected = parse_rejected(record)
        event = self._selected.event(record)
        if not self._selected.matches(rejected, event):
            return NotSelected()
        origin = rejected.origin
        if origin is None or origin.topic != self._features:
            return Skip(SkipReason.FOREIGN)
        state = rejected.state(action, self._max_replays)
        if state is RejectionState.PARKED:
            return Skip(SkipReason.PARKED)
        if state is not RejectionState.OPEN:
            return Skip(SkipReason.DONE_BEFORE)
        return self._replay(rejected, origin, event)

    def _replay(self, rejected: RejectedRecord, origin: Source, event: ContactEvent | None) -> Output | Skip:
        record = rejected.record
        key, value, headers = record.key, record.value, record.headers
        if rejected.is_truncated:
            found = self._original(rejected)
            if found is None:
                return Skip(SkipReason.NOT_DECIDABLE)
            key, value, headers = found.key, found.value, found.headers
            event = self._selected.event(found)
        if self._changes is not None:
            if event is None:
                return Skip(SkipReason.NOT_DECIDABLE)
            value = self._encode(self._changes.apply(event))
        own: Headers = [
            (REPLAYS_HEADER, b"%d" % (rejected.replays + 1)),
            (REPLAY_OF_HEADER, rejected.place.encode()),
        ]
        partition = origin.partition if origin.partition < self._partitions else -1
        output = Output(self._features, key, value, [*self._forwarded(headers), *own], partition)
        return output if self._fits(output) else Skip(SkipReason.TOO_LARGE)


def values_of(rejected: RejectedRecord, event: ContactEvent | None) -> dict[str, Any]:
    """Return the values for an expression (see `stream_scorer.core.desk.expression.REJECTED_NAMES`)."""
    values: dict[str, Any] = {
        "reason": rejected.reason,
        "detail": rejected.detail,
        "status": rejected.status,
        "replays": rejected.replays,
        "rejected_at": _time(rejected.rejected_at),
    }
    if event is None:
        return values
    return values | {
        "contact_id": event.contact_id,
        "event_id": event.event_id,
        "campaign_id": event.campaign_id,
        "model_version": event.model_version,
        "occurred_at": time_of_ms(event.occurred_at_ms),
        "features": event.features,
        "attributes": dict(event.attributes),
    }


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
