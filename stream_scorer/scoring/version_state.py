"""State of a model version: when requests for it succeeded, its batch size, and its circuit breaker.

::

    closed     trip ─▶ open
    open       first usable result ─▶ half-open, from a single contact
    half-open  the batch size has reached its limit ─▶ closed, trip ─▶ open

The API's own circuit breaker (`scoring.circuit_breaker`) is open while those of all versions in use are open.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from stream_scorer.core.scoring.batch_size import BatchSize

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

NEVER: Final = float("-inf")
IN_USE_S: Final = 600.0


class Phase(StrEnum):
    """State of a circuit breaker."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"


_OPEN: Final = Phase.OPEN  # compared for each contact; an enumeration's member is found slowly


class VersionState:
    """State of one model version. Times are monotonic seconds.

    Attributes:
        model_version: the version; None: the platform's own choice.
        phase: of its circuit breaker.
        reason: why the breaker opened last.
        opened_at: when the breaker opened last.
        opened_alone: whether it was reported then, because the API's breaker stayed closed.
        failures_in_row: failed requests since the last success, without those of deferred contacts.
        waiting_control_failed: whether a waiting contact failed as a control since the last success. It may be as bad
            as the other contacts of its producer: the next control is a contact with a score.
        succeeded_at: when a usable result was last received.
        succeeded_sent_at: when the latest of the requests that succeeded was sent.
        used_at: when a contact for it was last sent.
        batch_size: maximum contacts of its next request.
    """

    def __init__(self, model_version: str | None, max_contacts: int) -> None:
        self.model_version: Final = model_version
        self.phase = Phase.CLOSED
        self.reason = ""
        self.opened_at = NEVER
        self.opened_alone = False
        self.failures_in_row = 0
        self.waiting_control_failed = False
        self.succeeded_at = NEVER
        self.succeeded_sent_at = NEVER
        self.used_at = NEVER
        self.batch_size = BatchSize(max_contacts)

    @property
    def is_open(self) -> bool:
        """Whether only probes are sent for it."""
        return self.phase is _OPEN

    def record_success(self, contacts: int, sent_at: float, now: float, *, is_control: bool) -> None:
        """Record a request with a usable result; ``contacts``: its size."""
        self.failures_in_row = 0
        self.waiting_control_failed = False
        self.succeeded_at = now
        self.succeeded_sent_at = max(self.succeeded_sent_at, sent_at)
        if self.is_open:
            self.half_open()
        if not is_control or self.phase is Phase.HALF_OPEN:
            self.batch_size.record_success(contacts, now)
        if self.phase is Phase.HALF_OPEN and self.batch_size.size >= self.batch_size.limit:
            self.phase = Phase.CLOSED

    def half_open(self) -> None:
        """Start to send again, from a single contact."""
        self.phase = Phase.HALF_OPEN
        self.batch_size.restart()

    def trip(self, reason: str, now: float) -> None:
        """Open the circuit breaker."""
        self.phase, self.reason, self.opened_at, self.opened_alone = Phase.OPEN, reason, now, False
        self.waiting_control_failed = False


class VersionStates:
    """The states of the versions in use.

    Args:
        max_contacts: ``scoring.max_contacts``.
    """

    def __init__(self, max_contacts: int) -> None:
        self._max_contacts = max_contacts
        self._states: dict[str | None, VersionState] = {}

    def __iter__(self) -> Iterator[VersionState]:
        return iter(self._states.values())

    def use(self, model_version: str | None, now: float) -> VersionState:
        """Return the state of a version and mark it as in use now."""
        state = self.get(model_version, now)
        state.used_at = now
        return state

    def get(self, model_version: str | None, now: float) -> VersionState:
        """Return the state of a version; one not seen before joins an open API breaker."""
        state = self._states.get(model_version)
        if state is None:
            api_reason = self.api_open_reason(now)
            state = self._states[model_version] = VersionState(model_version, self._max_contacts)
            if api_reason is not None:
                state.trip(api_reason, now)
        return state

    def api_open_reason(self, now: float, waiting: Collection[str | None] = ()) -> str | None:
        """Return why the API's breaker is open; None: the breaker of a version in use or waiting is not open."""
        in_use = [one for one in self if now - one.used_at <= IN_USE_S or one.model_version in waiting] or list(self)
        return in_use[-1].reason if in_use and all(state.is_open for state in in_use) else None

    @property
    def opened(self) -> int:
        """Number of versions with an open breaker."""
        return sum(state.is_open for state in self)

    def succeeded_at(self, model_version: str | None) -> float:
        """Return when a usable result of a version was last received."""
        state = self._states.get(model_version)
        return NEVER if state is None else state.succeeded_at

    def others_succeeded_at(self, model_version: str | None) -> float:
        """Return when a usable result of any other version was last received."""
        return max((state.succeeded_at for state in self if state.model_version != model_version), default=NEVER)

    def forget_idle(self, now: float, waiting: set[str | None]) -> list[VersionState]:
        """Drop the states of versions that are neither in use nor waiting, except the last one; return the dropped."""
        dropped = []
        for state in list(self):
            if len(self._states) > 1 and now - state.used_at > IN_USE_S and state.model_version not in waiting:
                del self._states[state.model_version]
                dropped.append(state)
        return dropped
