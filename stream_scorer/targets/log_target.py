"""Target for trials: each callback is a line in the log instead of a request."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind
from stream_scorer.targets.body_fit import fits_log
from stream_scorer.targets.payload import PayloadTarget
from stream_scorer.targets.response_policy import made_for_another_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.callbacks.types import Callback


class Log(Protocol):
    """Structured logger, such as structlog's."""

    def info(self, event: str, /, **fields: Any) -> Any:
        """Write ``event`` with its fields."""


class LogTarget(PayloadTarget):
    """Target that logs ids and counts of each callback, no score and no feature, and counts it as delivered.

    Attributes:
        name: ``log``.
    """

    name = "log"

    def __init__(self, log: Log, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Use this log."""
        self._log = log
        self._monotonic = monotonic

    def deliver(self, callback: Callback, _traceparent: str | None = None, /) -> DeliveryAnswer:
        """Log the callback, unless it was planned for a target that calls."""
        if not fits_log(callback.target):
            return made_for_another_target(callback)
        started = self._monotonic()
        self._log.info(
            "callback",
            callback_id=callback.callback_id,
            campaign_id=callback.campaign_id,
            contacts=len(callback.contact_ids),
            contact_ids=list(callback.contact_ids),
            attempts=callback.attempts,
            body_bytes=len(callback.body),
        )
        latency_ms = (self._monotonic() - started) * 1000.0
        return DeliveryAnswer(DeliveryKind.DELIVERED, "written to the log", None, latency_ms)

    def close(self) -> None:
        """Do nothing."""
