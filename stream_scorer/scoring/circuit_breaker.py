"""Holding: one small state machine that knows whether requests may go out, and if not, since when, why, how long.

::

    open     pause ─▶ paused, begin ─▶ holding
    paused   resume ─▶ open, begin ─▶ holding
    holding  probe_failed ─▶ holding, end ─▶ open

*Holding* (``current``; causes ``api`` and ``contract``): no new request but a probe. One waiting contact is asked about
alone every ``probe_interval_s``, never before a ``Retry-After``. The first probe that the API answers ends the hold.

*Paused* (causes ``quota`` and ``budget``): what is due waits for a time that is known. Below `_PAUSE_WORTH_SAYING_S`
that is the ordinary pace of a backlog, of which nobody is told.

Somebody is told (`on_change`) when a state begins, when its cause or reason becomes another one, and when it ends: not
once a probe, and not of pauses that are over before they are worth saying.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_PAUSE_WORTH_SAYING_S: Final = 5.0
# What differs between two failures of one kind: ids of requests, long numbers. A status has three digits and stays.
_DIFFERS: Final = re.compile(r"\b(?=[\w-]*\d)[0-9a-fA-F-]{8,}\b|\d{4,}")


class Cause(StrEnum):
    """Who keeps contacts from being scored."""

    API = "api"
    CONTRACT = "contract"
    QUOTA = "quota"
    BUDGET = "budget"
    KAFKA = "kafka"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold or a pause. Times are monotonic seconds.

    Attributes:
        cause: who is to blame.
        reason: what happened last, one line.
        since: when it began.
        next_probe_at: when the next probe is due; of a pause, when the next request may go out.
        probes: how many probes have failed.
        began_with: the first reason.
    """

    cause: Cause
    reason: str
    since: float
    next_probe_at: float
    probes: int = 0
    began_with: str = ""

    @property
    def broken_contract(self) -> bool:
        """Whether the API works, but refuses every contact alike."""
        return self.cause is Cause.CONTRACT

    @property
    def probes_api(self) -> bool:
        """Whether it ends with a probe, and not at a time that is known."""
        return self.cause in (Cause.API, Cause.CONTRACT)

    def says(self, message: str) -> bool:
        """Whether ``message`` tells nothing that the reason does not tell, ids and long numbers aside."""
        return _kind(message) in _kind(self.reason)


class Holding:
    """See the module's text.

    Args:
        probe_interval_s: seconds between probes.
        on_change: is told what the state was last known to be, and what it is now; None: open.
        on_probe: is told what each probe came to: ``recovered`` or ``failed``.
    """

    def __init__(
        self,
        probe_interval_s: float,
        *,
        on_change: Callable[[Hold | None, Hold | None], object] = lambda _before, _now: None,
        on_probe: Callable[[str], object] = lambda _outcome: None,
    ) -> None:
        self._probe_interval_s = probe_interval_s
        self._on_change = on_change
        self._on_probe = on_probe
        self._state: Hold | None = None
        self._told: Hold | None = None

    @property
    def current(self) -> Hold | None:
        """The present hold; None: requests may go out, or will without a probe."""
        return self._state if self._state is not None and self._state.probes_api else None

    @property
    def known(self) -> Hold | None:
        """The hold or pause that was told of, with what is known of it now; None: nothing that is worth saying."""
        return None if self._told is None else self._state

    # --- holding

    def begin(self, reason: str, now: float, *, until: float = 0.0, broken_contract: bool = False) -> bool:
        """Starts to hold, or puts the next probe of the present hold off to ``until``. Returns whether it started."""
        if self.current is not None:
            self.put_off(until)
            return False
        cause = Cause.CONTRACT if broken_contract else Cause.API
        first_probe_at = now if broken_contract else now + self._probe_interval_s
        self._become(Hold(cause, reason, now, max(first_probe_at, until), began_with=reason))
        return True

    def put_off(self, until: float) -> None:
        """The API asked not to be asked before ``until``; without a hold that is not our business."""
        hold = self.current
        if hold is not None:
            self._become(replace(hold, next_probe_at=max(hold.next_probe_at, until)))

    def probe_failed(self, reason: str, now: float, *, until: float = 0.0) -> None:
        """The API is not back: the next probe is due an interval from now, or at ``until`` if that is later."""
        hold = self.current
        if hold is not None:
            self._on_probe("failed")
            next_probe_at = max(now + self._probe_interval_s, until)
            self._become(replace(hold, reason=reason, next_probe_at=next_probe_at, probes=hold.probes + 1))

    def end(self) -> None:
        """A probe was answered: the API is back."""
        if self.current is not None:
            self._on_probe("recovered")
            self._become(None)

    # --- paused

    def pause(self, cause: Cause, reason: str, now: float, until: float) -> None:
        """What is due may not go out before ``until``. Called again and again while that is so; nothing in a hold."""
        if self.current is None:
            paused = self._state
            since = now if paused is None or paused.cause is not cause else paused.since
            self._become(Hold(cause, reason, since, until), known=now - since >= _PAUSE_WORTH_SAYING_S)

    def resume(self) -> None:
        """What is due may go out; nothing in a hold."""
        if self.current is None:
            self._become(None)

    def _become(self, state: Hold | None, *, known: bool = True) -> None:
        before = self.known
        self._state = state
        told = state if known else None
        if not _is_same(self._told, told):
            self._told = told
            self._on_change(before, told)


def _is_same(one: Hold | None, other: Hold | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.cause, one.since, _kind(one.reason)) == (other.cause, other.since, _kind(other.reason))


def _kind(message: str) -> str:
    return _DIFFERS.sub("…", message)
