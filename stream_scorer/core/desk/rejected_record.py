"""Record of the rejected topic: the reason in its headers, and its state by the decisions."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.retry_topics import SOURCE_HEADER, parse_number, parse_source

if TYPE_CHECKING:
    from stream_scorer.core.records import Headers, SourceRecord
    from stream_scorer.core.retry_topics import Source

REPLAYS_HEADER: Final = "stream-scorer-replays"
REPLAY_OF_HEADER: Final = "stream-scorer-replay-of"
REASON_HEADER: Final = "stream-scorer-error-reason"
_MAX_DIGITS: Final = 4


class RejectionState(StrEnum):
    """State of a rejected record for an operator."""

    OPEN = "open"
    REPLAYED = "replayed"
    PARKED = "parked"
    DISCARDED = "discarded"


class RejectedRecord(NamedTuple):
    """Rejected contact, as it stands on the rejected topic.

    Attributes:
        record: the record; its key, value and foreign headers are those of the input.
        origin: place of the input; None: the record is not from a scoring worker.
        reason: the first reason of the contract, section 5.
        detail: the sentence about it.
        status: HTTP status of the API; None: there was none.
        batch_id: the batch of its audit entry.
        rejected_at: ISO 8601; empty if it is not there.
        replays: how often the contact was replayed before.
        is_truncated: the value is missing because it was too large.
    """

    record: SourceRecord
    origin: Source | None
    reason: str
    detail: str
    status: int | None
    batch_id: str
    rejected_at: str
    replays: int
    is_truncated: bool

    @property
    def is_rejection(self) -> bool:
        """Whether it is one: a topic may hold scores and audit events beside rejections."""
        return bool(self.reason)

    def state(self, action: str | None, max_replays: int) -> RejectionState:
        """Return its state; ``action``: what was decided about it, None: nothing."""
        if action == Action.REPLAYED:
            return RejectionState.REPLAYED
        if action is not None:
            return RejectionState.DISCARDED
        return RejectionState.PARKED if self.replays >= max_replays else RejectionState.OPEN


def is_replayed(headers: Headers) -> bool:
    """Return whether the headers are those of a replayed contact."""
    return any(name == REPLAYS_HEADER for name, _ in headers)


def parse_rejected(record: SourceRecord) -> RejectedRecord:
    """Return the rejected contact of a record of the rejected topic."""
    found: dict[str, bytes] = {}
    for name, value in record.headers:
        found.setdefault(name, value or b"")

    def text(name: str) -> str:
        return found.get(name, b"").decode(errors="replace")

    return RejectedRecord(
        record,
        parse_source(text(SOURCE_HEADER)),
        text(REASON_HEADER),
        text("stream-scorer-error-detail"),
        parse_number(found.get("stream-scorer-error-status"), _MAX_DIGITS),
        text("stream-scorer-batch"),
        text("stream-scorer-error-timestamp"),
        parse_number(found.get(REPLAYS_HEADER), _MAX_DIGITS) or 0,
        "stream-scorer-error-truncated" in found,
    )
