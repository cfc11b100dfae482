"""Witnesses: contacts kept back to tell a contact that the API cannot answer from an API that answers nobody.

A lone contact is rejected after rounds that failed *while others were answered*. As long as contacts stream in, others
there are. Where nothing else is asked, the last contact would be held for ever: so while requests fail, a few contacts
are kept back of the last batch that goes out, and of a failing batch that is taken apart. Each is asked about alone,
just before an attempt that would end such a round without evidence. Once nothing fails any more, or others wait to be
asked, the witnesses are asked about like everybody else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from stream_scorer.core.request import hold_out

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from stream_scorer.core.request import Request
    from stream_scorer.scoring.request_queue import RequestQueue

# A lone contact has to fail three rounds. Its other half stands for the first, and one witness may fail as well.
_FOR_EACH: Final = 3
# One witness speaks in the rounds of all lone contacts, if they fall together.
_KEPT_AT_MOST: Final = 12
# How long a decisive attempt is put off at a time while its witness is under way.
_LOOK_AGAIN_S: Final = 0.1


class Witnesses:
    """See the module's text. Times are monotonic seconds.

    Args:
        backlog: where they are kept.
        max_retries: attempts of a round after its first.
        new_id: makes batch ids.
    """

    def __init__(self, queue: RequestQueue, max_retries: int, new_id: Callable[[], str]) -> None:
        self._queue = queue
        self._max_retries = max_retries
        self._new_id = new_id
        self._under_way = ""

    def wanted(self, in_flight: Collection[Request], failed: int = 0) -> int:
        """How many contacts to keep back now; ``failed``: failing requests that neither wait nor are in flight."""
        if self._queue.has_others:
            return 0
        failing = failed + self._queue.failing + sum(request.failing for request in in_flight)
        return max(0, min(_FOR_EACH * failing, _KEPT_AT_MOST) - self._queue.witnesses)

    def spare(self, request: Request, in_flight: Collection[Request]) -> Request:
        """The request without the contacts that are kept back, where it is the last one that can show anything."""
        if request.failing or request.bisecting:
            return request
        rest, kept = hold_out(request, self.wanted(in_flight), self._new_id)
        self._queue.hold_out(kept)
        return rest

    def before(
        self, request: Request, now: float, last_2xx_at: float | None, in_flight: Mapping[str, Request]
    ) -> Request | None:
        """What goes out in place of ``request``: itself, a witness before it, or nothing while one is under way."""
        if not self._is_decisive(request, last_2xx_at):
            return request
        witness = None
        if self._under_way not in in_flight:
            witness = self._queue.take_witness(now)
            if witness is None:
                return request
            self._under_way = witness.batch_id
        waiting = replace(request, round_since=now) if request.round_since is None else request
        self._queue.put(waiting.again_at(now + _LOOK_AGAIN_S))
        return witness

    def release_idle(self, in_flight: Collection[Request]) -> None:
        """Lets them go if they are not needed."""
        queue = self._queue
        if queue.witnesses and (
            queue.has_others or not (queue.failing or any(request.failing for request in in_flight))
        ):
            queue.release_witnesses()

    def _is_decisive(self, request: Request, last_2xx_at: float | None) -> bool:
        """Whether a failure of the next attempt would end a lone contact's round without evidence."""
        if not request.is_single or request.round_attempts < self._max_retries:
            return False
        return request.round_since is None or last_2xx_at is None or last_2xx_at <= request.round_since
