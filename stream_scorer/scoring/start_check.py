"""Start check: the API confirms token and model before the worker joins its group.

A worker with a wrong secret, scope or model would own partitions without scoring. A worker that starts during an outage
waits outside the group, so that the other workers keep all partitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from stream_scorer.core.scoring.backoff import next_delay_s
from stream_scorer.core.scoring.model_check import ModelConfirmed, ModelRefused
from stream_scorer.errors import ApiRefused

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from stream_scorer.core.scoring.api_response import Exchange
    from stream_scorer.core.scoring.model_check import ModelCheck, ModelUnavailable
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.scoring.observer import Observer
    from stream_scorer.scoring.ports import Quota

_HEARTBEAT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class StartBackoff:
    """Backoff of the start check: that of any retry, and after ``max_retries`` at least ``probe_interval_s``.

    ``max_retry_after_s``: the longest wait for a ``Retry-After``. A daily cap may demand hours; a new attempt detects
    whether it was raised in the meantime.
    """

    base_s: float
    max_s: float
    max_retries: int
    probe_interval_s: float
    max_retry_after_s: float

    def delay_s(self, attempt: int, retry_after_s: float | None, jitter: float) -> float:
        """Return the seconds to wait after ``attempt`` failed attempts; see `next_delay_s`."""
        if retry_after_s is not None:
            return min(retry_after_s, self.max_retry_after_s)
        delay_s = next_delay_s(attempt, base_s=self.base_s, max_s=self.max_s, retry_after_s=None, jitter=jitter)
        return delay_s if attempt <= self.max_retries else max(delay_s, self.probe_interval_s)


class StartCheck:
    """Check that is repeated until the API confirms token and model, or refuses them.

    Args:
        check: one check; may block up to the deadlines of API and login service.
        backoff: the delay before the next check.
        quota: every check is a request.
        clock: the time.
        observe: gets every result, and a heartbeat during a wait.
        stopping: ends a wait immediately.
    """

    def __init__(
        self,
        *,
        check: Callable[[], ModelCheck],
        backoff: StartBackoff,
        quota: Quota,
        clock: Clock,
        observe: Observer,
        stopping: threading.Event,
    ) -> None:
        self._check = check
        self._backoff = backoff
        self._quota = quota
        self._clock = clock
        self._observe = observe
        self._stopping = stopping

    def confirm(self) -> bool:
        """Return True once token and model are confirmed; False: ``stopping`` was set before.

        Raises:
            ApiRefused: the platform itself refuses the client or the model; one line with what to check.
        """
        began_at = self._clock.monotonic()
        attempt = 0
        while not self._stopping.is_set():
            attempt += 1
            self._quota.sent(self._clock.monotonic())
            result = self._check()
            self._update_quota(result.exchange)
            self._observe.model_checked(result)
            if isinstance(result, ModelConfirmed):
                self._observe.model_confirmed(result.exchange.status, attempts=attempt, began_at=began_at)
                return True
            if isinstance(result, ModelRefused):
                raise ApiRefused(result.message)
            self._wait(result, attempt, began_at)
        return False

    def _update_quota(self, exchange: Exchange) -> None:
        if exchange.quota is None:
            self._quota.answered()
        else:
            self._quota.update(exchange.quota, self._clock.monotonic())

    def _wait(self, result: ModelUnavailable, attempt: int, began_at: float) -> None:
        now = self._clock.monotonic()
        delay_s = self._backoff.delay_s(attempt, result.retry_after_s, self._clock.jitter())
        if result.exchange.status == HTTPStatus.TOO_MANY_REQUESTS:
            self._quota.block_until(now + delay_s)
        next_at = now + max(delay_s, self._quota.wait_s(now))
        while (left_s := next_at - self._clock.monotonic()) > 0 and not self._stopping.is_set():
            self._observe.start_delayed(result.message, since=began_at, next_attempt_at=next_at)
            self._stopping.wait(min(left_s, _HEARTBEAT_S))
