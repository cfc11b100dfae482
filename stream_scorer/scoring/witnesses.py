"""Witnesses: contacts kept back to tell a contact that the API cannot answer from an API that answers nobody.

A lone contact is rejected after rounds that failed *while others were answered*. As long as contacts stream in, others
there are. Where nothing else is asked, the last contact of a batch would be held for ever: so when a batch is taken
apart, a few of its contacts are kept back. Each is asked about alone, just before an attempt that would end such a
round without evidence. Once no bad contact is looked for, or others wait to be asked, the witnesses are asked about
like everybody else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.core.requests import Request
    from stream_scorer.scoring.backlog import Backlog

# A lone contact has to fail three rounds. Its other half stands for the first, and one witness may fail as well.
_KEPT: Final = 3
# How long a decisive attempt is put off at a time while its witness is under way.
_LOOK_AGAIN_S: Final = 0.1


class Witnesses:
    """See the module's text. Times are monotonic seconds.

    Args:
        backlog: where they are kept.
        max_retries: attempts of a round after its first.
    """

    def __init__(self, backlog: Backlog, max_retries: int) -> None:
        self._backlog = backlog
        self._max_retries = max_retries
        self._under_way: str | None = None

    @property
    def wanted(self) -> int:
        """How many contacts a batch that is taken apart now should keep back."""
        return 0 if self._backlog.has_others else max(0, _KEPT - self._backlog.witnesses)

    def before(self, request: Request, now: float, last_2xx_at: float | None) -> Request | None:
        """What goes out in place of ``request``: itself, a witness before it, or nothing while one is under way."""
        if not self._is_decisive(request, last_2xx_at):
            return request
        witness = None
        if self._under_way is None:
            witness = self._backlog.take_witness(now)
            if witness is None:
                return request
            self._under_way = witness.batch_id
        waiting = replace(request, round_since=now) if request.round_since is None else request
        self._backlog.put(waiting.again_at(now + _LOOK_AGAIN_S))
        return witness

    def answered(self, request: Request) -> None:
        """An attempt ended."""
        if request.batch_id == self._under_way:
            self._under_way = None

    def release_idle(self, in_flight: Iterable[Request]) -> None:
        """Lets them go if they are not needed."""
        backlog = self._backlog
        if backlog.witnesses and (
            backlog.has_others or not (backlog.isolates or any(one.isolating for one in in_flight))
        ):
            backlog.release_witnesses()

    def _is_decisive(self, request: Request, last_2xx_at: float | None) -> bool:
        """Whether a failure of the next attempt would end a lone contact's round without evidence."""
        if not request.alone or request.round_attempts < self._max_retries:
            return False
        return request.round_since is None or last_2xx_at is None or last_2xx_at <= request.round_since
