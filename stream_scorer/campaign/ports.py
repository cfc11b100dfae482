"""What the campaign worker needs of the outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.core.callbacks import Callback, DeliveryAnswer, Score


class Target(Protocol):
    """A campaign manager, as far as planner and deliverer know it.

    The planner's thread calls ``entry`` and ``body``, which are pure: the same arguments give the same bytes. The
    deliverer's pool threads call ``deliver``, several at once.

    Attributes:
        name: kind and place of the target as callbacks and receipts say it, such as ``webhook https://host``;
            without user information, path, query or anything else that may be a secret.
        max_body_bytes: a body stays below this.
    """

    name: str
    max_body_bytes: int

    def entry(self, score: Score) -> bytes:
        """One contact as it stands in a body."""

    def body(
        self, callback_id: str, campaign_id: str | None, model_id: str, planned_at_ms: int, entries: Sequence[bytes]
    ) -> bytes:
        """The body of a callback: what is sent, byte for byte, at every attempt."""

    def allowance(self) -> int | None:
        """How many attempts may be made now, those under way included if they are not counted yet; None: any number.

        More than that would only wait inside ``deliver``, and look like a receiver that hangs.
        """

    def deliver(self, callback: Callback, traceparent: str | None = None, /) -> DeliveryAnswer:
        """Makes one attempt. Blocks until the answer or the deadline; nothing that a receiver does is raised.

        ``traceparent``: the W3C trace context of the attempt, for targets that hand it on.
        """

    def close(self) -> None:
        """Lets its connections go."""
