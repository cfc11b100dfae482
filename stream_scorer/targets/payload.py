"""Body of a callback (contract, section 7). Equal scores give equal bytes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.callbacks.types import Score

MAX_BODY_BYTES: Final = 20_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def encode_entry(score: Score) -> bytes:
    """Return one contact in the form of ``data.contacts``; ``attributes`` are left out where there are none."""
    entry = {
        "event_id": score.event_id,
        "contact_id": score.contact_id,
        "score": score.score,
        "confidence_lower": score.confidence_lower,
        "confidence_upper": score.confidence_upper,
        "model_version": score.model_version,
        "occurred_at": iso_time(score.occurred_at_ms),
        "scored_at": iso_time(score.scored_at_ms),
    }
    return orjson.dumps({**entry, "attributes": score.attributes} if score.attributes else entry)


def encode_body(
    callback_id: str, campaign_id: str | None, model_id: str, planned_at_ms: int, entries: Sequence[bytes]
) -> bytes:
    """Return the whole body; ``entries`` are results of `encode_entry`."""
    data = {"callback_id": callback_id, "campaign_id": campaign_id, "model_id": model_id}
    head = orjson.dumps({"type": "contact.scored", "timestamp": iso_time(planned_at_ms), "data": data})
    return b"".join((head[:-2], b',"contacts":[', b",".join(entries), b"]}}"))


def iso_time(at_ms: int) -> str:
    """Return Unix milliseconds as ISO 8601 in UTC, such as ``2030-01-31T06:00:00.000Z``.

    The format has the years 1 to 9999, an Avro timestamp many more; a time beyond them is replaced by the nearest one.
    """
    try:
        at = _EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        at = _LAST if at_ms > 0 else _FIRST
    return f"{at.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


class PayloadTarget:
    """Base of the targets that have one destination, no quota, and this body.

    Attributes:
        name: name of the target, see `callbacks.ports.Target`.
        max_body_bytes: the largest body, in bytes.
    """

    name: str
    max_body_bytes = MAX_BODY_BYTES

    def target_of(self, _campaign_id: str | None) -> str:
        """Return `name`: there is one destination."""
        return self.name

    def entry(self, score: Score) -> bytes:
        """Return one contact in the form of a body."""
        return encode_entry(score)

    def body(
        self, callback_id: str, campaign_id: str | None, model_id: str, planned_at_ms: int, entries: Sequence[bytes]
    ) -> bytes:
        """Return the body of a callback (contract, section 7)."""
        return encode_body(callback_id, campaign_id, model_id, planned_at_ms, entries)

    def allowance(self) -> int | None:
        """Return None: there is no quota."""
        return None
