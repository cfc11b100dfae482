"""Contacts that were refused alone, and what proves whether it was their own fault.

A contact is rejected once its model version is seen to accept others, or after a minute in which that could not be
found out. If too many wait at once, it is no longer the contacts: the contract with the API is broken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from stream_scorer.core.events import Rejected
    from stream_scorer.core.response_policy import Suspect

_ACCEPTED_FOR_S: Final = 600.0
_WAITS_S: Final = 60.0
MAX_WAITING: Final = 8


class Suspects:
    """See the module's text. Pure: times are monotonic seconds, passed in."""

    def __init__(self) -> None:
        self._waiting: list[Suspect] = []
        self._accepted_at: dict[str | None, float] = {}  # the version that was accepted last stands last

    def __iter__(self) -> Iterator[Suspect]:
        return iter(self._waiting)

    def add(self, suspects: Iterable[Suspect]) -> None:
        """These contacts were refused alone."""
        self._waiting += suspects

    def accepted(self, model_version: str | None, now: float) -> None:
        """A request for this model version got a 2xx."""
        self._accepted_at.pop(model_version, None)
        self._accepted_at[model_version] = now

    def decide(self, now: float) -> list[Rejected]:
        """The rejections that another contact's 2xx has made certain; they wait no longer."""
        while self._accepted_at and now - next(iter(self._accepted_at.values())) > _ACCEPTED_FOR_S:
            del self._accepted_at[next(iter(self._accepted_at))]
        return self._take(lambda suspect: suspect.key.model_version in self._accepted_at)

    def expire(self, now: float) -> list[Rejected]:
        """The rejections of those that have waited long enough; not asked for while the API cannot prove anything."""
        return self._take(lambda suspect: now - suspect.since >= _WAITS_S)

    def acquit(self, *, tolerated: int = MAX_WAITING) -> list[Suspect]:
        """Everybody, where more wait than are ``tolerated``: they are to be asked about again. Else nobody.

        Not counted are those whose version came with the event while the API accepts other versions: whoever writes a
        wrong version into events must not make the worker hold for everybody else.
        """
        if sum(not self._is_versions_fault(suspect) for suspect in self._waiting) <= tolerated:
            return []
        acquitted, self._waiting = self._waiting, []
        return acquitted

    def _is_versions_fault(self, suspect: Suspect) -> bool:
        return suspect.key.version_from_event and any(
            version != suspect.key.model_version for version in self._accepted_at
        )

    def _take(self, certain: Callable[[Suspect], bool]) -> list[Rejected]:
        if not self._waiting:
            return []
        rejected = [suspect.rejected for suspect in self._waiting if certain(suspect)]
        self._waiting = [suspect for suspect in self._waiting if not certain(suspect)]
        return rejected
