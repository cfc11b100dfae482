"""Record of received callbacks by id, of contacts, and of answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from typing import Any, NamedTuple

DROPPED = "dropped"
HUNG = "hung"


class MalformedCallback(ValueError):
    """The signed body is not a callback of contract section 7."""


class ReceivedCallback(NamedTuple):
    """Callback with a valid signature. ``planned_at`` is its ``timestamp``, unchanged."""

    callback_id: str
    campaign_id: str | None
    contact_ids: tuple[str, ...]
    planned_at: str
    digest: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """Deliveries of one callback id, as ``GET /_receiver/callbacks`` returns them.

    Attributes:
        campaign_id: its campaign; None without one.
        contact_ids: its contacts, in its order.
        planned_at: the ``timestamp`` in its body.
        digest: SHA-256 of its body, in hex.
        attempts: number of deliveries with a valid signature, answered or not.
        accepted: number of accepted deliveries.
        first_at_ms: Unix milliseconds of the first attempt.
        accepted_at_ms: Unix milliseconds of the first accepted delivery; None before it.
    """

    campaign_id: str | None
    contact_ids: tuple[str, ...]
    planned_at: str
    digest: str
    attempts: int
    accepted: int
    first_at_ms: int
    accepted_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Stats:
    """Snapshot of the record, as ``GET /_receiver/stats`` returns it.

    Attributes:
        requests: finished requests by status, which may be ``dropped`` or ``hung``.
        callbacks: distinct accepted callback ids.
        repeats: accepted deliveries of callbacks that were accepted before.
        contacts: distinct contact ids in accepted callbacks.
        changed: callbacks that were repeated with a different body. There must be none.
        unverified: requests whose signature is missing, wrong or expired.
        in_flight_max: maximum number of requests in flight at the same time.
    """

    requests: dict[str, int]
    callbacks: int
    repeats: int
    contacts: int
    changed: int
    unverified: int
    in_flight_max: int


@dataclass(slots=True)
class DeliveryLog:
    """Counters of callbacks. Not thread-safe: used in the server's event loop only."""

    requests: Counter[str] = field(default_factory=Counter)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    contacts: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    changed: int = 0
    unverified: int = 0
    in_flight: int = 0
    in_flight_max: int = 0

    def begun(self) -> None:
        """Count a request as in flight."""
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def ended(self) -> None:
        """Remove a request from those in flight."""
        self.in_flight -= 1

    def finished(self, outcome: int | str) -> None:
        """Count a finished request with its status, `DROPPED` or `HUNG`."""
        self.requests[str(outcome)] += 1

    def attempted(self, arrival: ReceivedCallback, at_ms: int) -> bool:
        """Record an attempt to deliver; return False if its id is known with a different body."""
        known = self.deliveries.get(arrival.callback_id)
        if known is None:
            self.deliveries[arrival.callback_id] = Delivery(
                campaign_id=arrival.campaign_id,
                contact_ids=arrival.contact_ids,
                planned_at=arrival.planned_at,
                digest=arrival.digest,
                attempts=1,
                accepted=0,
                first_at_ms=at_ms,
                accepted_at_ms=None,
            )
            return True
        self.deliveries[arrival.callback_id] = replace(known, attempts=known.attempts + 1)
        if known.digest == arrival.digest:
            return True
        self.changed += 1
        return False

    def accepted(self, arrival: ReceivedCallback, at_ms: int) -> None:
        """Record an accepted callback."""
        known = self.deliveries.get(arrival.callback_id)
        if known is None:  # the record was reset during the request
            return
        if known.accepted:
            self.repeats += 1
        else:
            self.contacts.update(set(arrival.contact_ids))
        first_ms = at_ms if known.accepted_at_ms is None else known.accepted_at_ms
        self.deliveries[arrival.callback_id] = replace(known, accepted=known.accepted + 1, accepted_at_ms=first_ms)

    def reset(self) -> None:
        """Empty the record, except for the requests in flight."""
        empty = DeliveryLog(in_flight=self.in_flight, in_flight_max=self.in_flight)
        for one in fields(self):
            setattr(self, one.name, getattr(empty, one.name))

    def stats(self) -> Stats:
        """Return a snapshot of the record."""
        return Stats(
            requests=dict(self.requests),
            callbacks=sum(delivery.accepted > 0 for delivery in self.deliveries.values()),
            repeats=self.repeats,
            contacts=len(self.contacts),
            changed=self.changed,
            unverified=self.unverified,
            in_flight_max=self.in_flight_max,
        )

    def listed(self) -> dict[str, dict[str, Any]]:
        """Return every received callback, by id."""
        return {callback_id: asdict(delivery) for callback_id, delivery in self.deliveries.items()}


def read_callback(webhook_id: str, content: Any, body: bytes) -> ReceivedCallback:
    """Return the callback of a body with a valid signature.

    Raises:
        MalformedCallback: the body is not a callback, or its id differs from the header's; one line.
    """
    try:
        data, planned_at = content["data"], content["timestamp"]
        arrival = ReceivedCallback(
            data["callback_id"],
            data["campaign_id"],
            tuple(contact["contact_id"] for contact in data["contacts"]),
            planned_at,
            sha256(body).hexdigest(),
        )
        kind = content["type"]
    except (KeyError, TypeError):
        raise MalformedCallback("the body is no callback: one of its keys is absent or of another type") from None
    if kind != "contact.scored":
        raise MalformedCallback("the type is not contact.scored")
    if arrival.callback_id != webhook_id:
        raise MalformedCallback("data.callback_id is not the webhook-id")
    texts = (*arrival.contact_ids, arrival.campaign_id or "", arrival.planned_at)
    if not arrival.contact_ids or not all(isinstance(text, str) for text in texts):
        raise MalformedCallback("the body is no callback: its contacts, campaign_id or timestamp are no texts")
    return arrival
