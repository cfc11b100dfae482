"""What asking the API needs of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stream_scorer.core.events import Answer, QuotaReading
    from stream_scorer.core.requests import Request


class Pool(Protocol):
    """See ``scoring.pool.RequestPool``."""

    size: int

    def submit(self, request: Request) -> None:
        """Starts an attempt."""

    def answers(self, wait_s: float = 0.0) -> list[tuple[Request, Answer]]:
        """The attempts that have ended."""


class Quota(Protocol):
    """See ``genesys.quota.Quota``. Times are monotonic seconds."""

    def wait_s(self, now: float) -> float:
        """Seconds until a request may be sent."""

    def reason(self, now: float) -> str | None:
        """Why that is not now."""

    def may_close_early(self, now: float) -> bool:
        """Whether a batch that is not full is worth a request now."""

    def closed_early(self, now: float) -> None:
        """A batch that is not full was taken."""

    def remaining(self, now: float) -> int:
        """Requests that may be sent now at once."""

    def sent(self, now: float) -> None:
        """A request goes out."""

    def learn(self, reading: QuotaReading, now: float) -> None:
        """An answer has come, and says this of the quota."""

    def answered(self) -> None:
        """An answer has come that says nothing of the quota, or none will."""

    def block_until(self, until: float) -> None:
        """The API said not to come back before."""
