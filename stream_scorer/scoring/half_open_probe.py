"""Probes of an open circuit breaker: one contact is sent alone, and its result is used.

Every ``genesys.probe_interval_s`` one probe is sent, never before a ``Retry-After``: a different contact each time,
every second one a control, deferred contacts last. If all contacts that were read have failed as probes, more are read.
If there are none, and no control, they are sent once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream_scorer.core.records import Partition, key_of
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.records import RecordKey
    from stream_scorer.core.scoring.response_policy import Failure
    from stream_scorer.core.scoring.types import Contact
    from stream_scorer.scoring.circuit_breaker import CircuitBreaker
    from stream_scorer.scoring.control_contacts import ControlContacts
    from stream_scorer.scoring.request_queue import RequestQueue
    from stream_scorer.scoring.version_state import VersionState, VersionStates


class HalfOpenProbe:
    """See the module docstring. Times are monotonic seconds.

    Args:
        queue: the contacts that wait.
        controls: the contacts that have their score.
        breaker: of the API; it has the probe interval, and the time of the next probe while it is open.
        versions: the model versions with their breakers.
        new_id: makes batch ids.
        max_retry_after_s: ``genesys.max_retry_after_s``.
    """

    def __init__(
        self,
        *,
        queue: RequestQueue,
        controls: ControlContacts,
        breaker: CircuitBreaker,
        versions: VersionStates,
        new_id: Callable[[], str],
        max_retry_after_s: float,
    ) -> None:
        self._queue = queue
        self._controls = controls
        self._breaker = breaker
        self._versions = versions
        self._new_id = new_id
        self._max_retry_after_s = max_retry_after_s
        self._batch_id: str | None = None
        self._next_at = 0.0
        self._is_control_turn = False
        self._turn = 0
        self._offered: Request | None = None
        self._tried: set[RecordKey] = set()

    def next(self, now: float) -> Request | None:
        """Return the next probe, if one is due and none is in flight."""
        state = self._breaker.open_state
        self._release_offered(now, is_api_open=state is not None)
        if self._batch_id is not None:
            return None
        if now < (self._next_at if state is None else state.next_probe_at):
            return None
        versions = [one for one in self._versions if one.is_open]
        if not versions:
            return None
        self._turn += 1
        # Alternates per round over the versions: if it alternated per probe, one of two versions got all controls.
        self._is_control_turn = self._turn // len(versions) % 2 == 1
        for index in range(len(versions)):
            version = versions[(self._turn + index) % len(versions)]
            probe = self._probe_for(version, now)
            if probe is not None:
                self._batch_id = probe.batch_id
                return probe
        return None

    def offer(self, contact: Contact, now: float) -> bool:
        """Accept a contact as the next probe of its version, whose breaker alone is open; False: none is needed."""
        if self._offered is not None or self._batch_id is not None or now < self._next_at:
            return False
        key = BatchKey(contact.model_version, contact.version_from_event)
        self._offered = Request(self._new_id(), key, (contact,), now)
        return True

    @property
    def offered(self) -> Request | None:
        """The contact that waits to be the next probe."""
        return self._offered

    def drop_unowned(self) -> None:
        """Drop the offered contact if its partition was revoked."""
        if self._offered is not None:
            self._offered = self._queue.still_wanted(self._offered)

    def ended(self, batch_id: str) -> bool:
        """Record the end of a request, and return whether it was the probe."""
        if batch_id != self._batch_id:
            return False
        self._batch_id = None
        return True

    def succeeded(self) -> None:
        """Record that the probe was answered with a result."""
        self._tried.clear()

    def failed(self, request: Request, failure: Failure, now: float) -> None:
        """Record that the probe failed; a 429 is no failure."""
        if not request.is_control:
            self._tried.add(key_of(request.contacts[0].record))
        after_s = failure.retry_after_s
        until = 0.0 if after_s is None else now + min(after_s, self._max_retry_after_s)
        self._next_at = max(until, now + self._breaker.probe_interval_s)
        self._breaker.probe_failed(failure.message, now, until=until)

    def defer_until(self, until: float, now: float) -> None:
        """Send no probe for a version alone before ``until``."""
        self._next_at = max(until, now + self._breaker.probe_interval_s)

    @property
    def all_failed(self) -> bool:
        """Whether all contacts that wait have failed as probes of the API's breaker."""
        return (
            self._breaker.open_state is not None and self._batch_id is None and not self._queue.has_contact(self._tried)
        )

    def _release_offered(self, now: float, *, is_api_open: bool) -> None:
        """Put the offered contact into the batches once its version needs no separate probe."""
        offered = self._offered
        if offered is not None and (is_api_open or not self._versions.get(offered.key.model_version, now).is_open):
            self._offered = None
            self._queue.put_back([offered])

    def _probe_for(self, version: VersionState, now: float) -> Request | None:
        if self._offered is not None and self._offered.key.model_version == version.model_version:
            offered, self._offered = self._offered, None
            return offered
        key = BatchKey(version.model_version, version_from_event=False)
        control = self._controls.take(key, now) if self._is_control_turn else None
        tried = {Partition(record.topic, record.partition) for record in self._tried}
        waiting = control or self._queue.take_contact(version.model_version, self._tried, avoid=tried)
        if waiting is None and not self._is_control_turn:
            waiting = self._controls.take(key, now)
        return waiting or self._queue.take_contact(version.model_version, ())
