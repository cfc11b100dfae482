"""Protocols of the callback service's collaborators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer, Score


class Target(Protocol):
    """A campaign manager: builds bodies for the planner, delivers them for the deliverer.

    The planner's thread calls ``entry`` and ``body``, which are pure: the same arguments give the same bytes. The
    deliverer's pool threads call ``deliver``, several at once.

    Attributes:
        name: kind and host of the target in callbacks and receipts, such as ``webhook https://host``; without user
            information, path, query or anything else that may be a secret.
        max_body_bytes: exclusive upper limit of a body.
    """

    name: str
    max_body_bytes: int

    def target_of(self, campaign_id: str | None) -> str:
        """Return ``name``, or what identifies the destination of a campaign's callbacks more exactly."""

    def entry(self, score: Score) -> bytes:
        """Return the part of a body for one contact."""

    def body(
        self, callback_id: str, campaign_id: str | None, model_id: str, planned_at_ms: int, entries: Sequence[bytes]
    ) -> bytes:
        """Return the body of a callback, sent unchanged at every attempt."""

    def allowance(self) -> int | None:
        """Return how many attempts may be made now, uncounted ones in flight included; None: any number.

        More attempts would wait inside ``deliver`` and look like a slow receiver.
        """

    def deliver(self, callback: Callback, traceparent: str | None = None, /) -> DeliveryAnswer:
        """Make one attempt. Block until the response or the deadline; failures of the receiver are not raised.

        ``traceparent``: the W3C trace context of the attempt, for targets that propagate it.
        """

    def close(self) -> None:
        """Close its connections."""
