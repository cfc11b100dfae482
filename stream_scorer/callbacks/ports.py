"""What the campaign worker needs of the outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer, Score
    from stream_scorer.core.exactly_once.stall_detector import ConsumerLag


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


class Log(Protocol):
    """A structlog logger, as far as it is used here."""

    def info(self, event: str, **fields: Any) -> Any:
        """Worth a line on a normal day."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Somebody may want to look."""


class Metrics(Protocol):
    """See ``telemetry.metrics.callbacks.CallbackMetrics``. Amounts are sums."""

    def consumed(self, records: int, *, poll_s: float, loop: str) -> None:
        """Records that one poll read."""

    def sent(self, records: int, *, loop: str) -> None:
        """Records of committed transactions."""

    def transaction(self, *, loop: str, outcome: str, send_s: float = 0.0, commit_s: float = 0.0) -> None:
        """One transaction: ``committed``, ``refused`` or ``failed``."""

    def processed(self, duration_s: float, *, loop: str) -> None:
        """What was read is committed: so long after the work on it began."""

    def partitions(self, owned: int, *, loop: str) -> None:
        """How many partitions are assigned."""

    def input(self, state: ConsumerLag, *, loop: str) -> None:
        """How far the input is."""

    def planned(self, callbacks: int, contacts: int) -> None:
        """Callbacks that are planned for good, and the contacts in them."""

    def finished(self, callbacks: int, *, outcome: str) -> None:
        """Callbacks with a receipt: ``delivered``, ``refused``, ``gave_up`` or ``expired``."""

    def unusable(self, records: int, *, reason: str) -> None:
        """Records set aside."""

    def postponed(self, callbacks: int, *, retry_topic: int, reason: str) -> None:
        """Callbacks written to a retry tier."""

    def attempt(self, duration_s: float, *, status: int | None, result: str) -> None:
        """One request to the campaign manager."""

    def in_flight(self, requests: int) -> None:
        """Requests at the campaign manager now."""

    def waiting(self, callbacks: Mapping[str, int]) -> None:
        """Callbacks in memory that are not under way, by reason."""

    def uncommitted(self, callbacks: int) -> None:
        """Callbacks read and not yet committed."""

    def holding(self, held: bool, *, loop: str, reason: str) -> None:
        """Whether a loop goes on with nothing: for ``target``, ``kafka`` or ``registry``."""
