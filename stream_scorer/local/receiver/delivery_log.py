"""What has arrived: every callback by its id, every contact, and every answer given."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from typing import Any, NamedTuple

DROPPED = "dropped"
HUNG = "hung"


class MalformedCallback(ValueError):
    """A signed body that is no callback of contract section 7."""


class ReceivedCallback(NamedTuple):
    """One callback whose signature is good. ``planned_at`` is its ``timestamp``, as it came."""

    callback_id: str
    campaign_id: str | None
    contact_ids: tuple[str, ...]
    planned_at: str
    digest: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one callback id, as ``GET /_receiver/callbacks`` gives it.

    Attributes:
        campaign_id: its campaign; None where it has none.
        contact_ids: its contacts, in its order.
        planned_at: the ``timestamp`` in its body.
        digest: SHA-256 of its body, in hex.
        attempts: how often it came with a good signature, answered or not.
        accepted: how often it was taken and counted.
        first_at_ms: Unix milliseconds of the first attempt.
        accepted_at_ms: Unix milliseconds of when it was first taken; None before it.
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
    """The account at one moment, as ``GET /_receiver/stats`` gives it.

    Attributes:
        requests: finished requests by status; ``dropped`` and ``hung`` are two as well.
        callbacks: different callback ids that were taken.
        repeats: how often one was taken again.
        contacts: different contact ids in the callbacks that were taken.
        changed: callbacks that came again under their id with other bytes. There must be none.
        unverified: requests whose signature is missing, wrong or out of time.
        in_flight_max: the most callbacks there ever were at once.
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
    """Counts as the callbacks come. Not thread-safe: it lives in the server's event loop."""

    requests: Counter[str] = field(default_factory=Counter)
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    contacts: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    changed: int = 0
    unverified: int = 0
    in_flight: int = 0
    in_flight_max: int = 0

    def begun(self) -> None:
        """A request is being worked on."""
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)

    def ended(self) -> None:
        """A request is no longer worked on."""
        self.in_flight -= 1

    def finished(self, outcome: int | str) -> None:
        """A request ended with this status, `DROPPED` or `HUNG`."""
        self.requests[str(outcome)] += 1

    def attempted(self, arrival: ReceivedCallback, at_ms: int) -> bool:
        """A callback has come; False where its id was known with other bytes."""
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
        """A callback is taken."""
        known = self.deliveries.get(arrival.callback_id)
        if known is None:  # the books were closed while it was on its way
            return
        if known.accepted:
            self.repeats += 1
        else:
            self.contacts.update(set(arrival.contact_ids))
        first_ms = at_ms if known.accepted_at_ms is None else known.accepted_at_ms
        self.deliveries[arrival.callback_id] = replace(known, accepted=known.accepted + 1, accepted_at_ms=first_ms)

    def reset(self) -> None:
        """Empty the books; the requests in flight are still counted."""
        empty = DeliveryLog(in_flight=self.in_flight, in_flight_max=self.in_flight)
        for one in fields(self):
            setattr(self, one.name, getattr(empty, one.name))

    def stats(self) -> Stats:
        """The account as of now."""
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
        """Every callback that came, by id."""
        return {callback_id: asdict(delivery) for callback_id, delivery in self.deliveries.items()}


def read_callback(webhook_id: str, content: Any, body: bytes) -> ReceivedCallback:
    """What arrived under a good signature.

    Raises:
        MalformedCallback: it is no callback, or has another id than its header; one line.
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
