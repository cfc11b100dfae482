"""Asks about prepared contacts until each one is scored or rejected, or until it makes no sense to go on.

What an answer means is decided by the same table as on the stream (`stream_scorer.core.response_policy`): retries, the
unanswered asked once more, refused contacts named or found by halving. Where a worker would hold and wait for the API
to come back, this ends with an error, since somebody waits for the call to return.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, Final

from stream_scorer.core.batcher import BatchKey
from stream_scorer.core.events import Answered, Refused, Scored, Unavailable
from stream_scorer.core.request import Request, split_in_two, subset
from stream_scorer.core.response_policy import Context, Policy, decide
from stream_scorer.errors import ApiRefused, ApiUnavailable, StreamScorerError
from stream_scorer.genesys.wire import build_body
from stream_scorer.library.payload import grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.events import Answer, Contact, Outcome, Rejected
    from stream_scorer.core.response_policy import Suspect
    from stream_scorer.library.access import ScoreClient

# So many requests refused, or contacts refused alone, without one 2xx: then it is not the contacts.
_MAX_REFUSALS: Final = 30
_MAX_SUSPECTS: Final = 8


class Asking:
    """One calculation's requests, one at a time; several halves and retries may wait meanwhile."""

    def __init__(
        self,
        client: ScoreClient,
        policy: Policy,
        finished: Callable[[Sequence[Outcome]], None],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Prepare.

        Args:
            client: sends.
            policy: the settings of the table.
            finished: gets outcomes of one request, at least one, as soon as they are certain; after an interrupt twice.
            sleep: waits for that many seconds.
        """
        self._client = client
        self._policy = policy
        self._finished = finished
        self._sleep = sleep
        self._queue: deque[Request] = deque()
        self._suspects: list[Rejected] = []
        self._last_2xx_at: float | None = None
        self._control: Contact | None = None
        self._refusals = 0
        self._last: tuple[Request, Answer] | None = None

    def run(self, contacts: Sequence[Contact], model_version: str | None) -> None:
        """Ask about all of them.

        Raises:
            ApiRefused: credentials, scope, model id, or a request that the API refuses whatever it holds.
            ApiUnavailable: retries did not help.
        """
        key = BatchKey(model_version, version_from_event=False)
        groups = grouped([one.contact_id for one in contacts], [one.body for one in contacts], model_version)
        self._queue.extend(Request(_new_id(), key, tuple(contacts[index] for index in group)) for group in groups)
        try:
            self._empty_queue()
        except BaseException:
            self._keep_last()
            raise

    def _empty_queue(self) -> None:
        while self._queue:
            request = self._next()
            answer = self._ask(request)
            self._follow(request, answer)
        if len(self._suspects) > _MAX_SUSPECTS and self._last_2xx_at is None:
            raise ApiRefused(f"the API refuses every contact: {self._suspects[-1].detail}")
        self._reject_suspects()

    def _next(self) -> Request:
        """The first request that is due; what waits for its next attempt lets the others pass."""
        now = time.monotonic()
        first = min(self._queue, key=lambda request: max(request.not_before, now))
        self._queue.remove(first)
        if first.not_before > now:
            self._sleep(first.not_before - now)
        return first.sent(time.monotonic(), _now_ms())

    def _ask(self, request: Request) -> Answer:
        body = build_body([contact.body for contact in request.contacts], request.key.model_version)
        answer, _ = self._client.ask(body, self._policy.model_id, len(request.contacts))
        self._last = (request, answer)
        return answer

    def _keep_last(self) -> None:
        """Finish the results of the last response, which Ctrl-C may have kept from their place."""
        if self._last is None or not isinstance(self._last[1], Answered):
            return
        with contextlib.suppress(StreamScorerError):  # the error that ends the calculation is the one to see
            self._finish(decide(*self._last, self._policy, self._context(time.monotonic())).outcomes)

    def _follow(self, request: Request, answer: Answer) -> None:
        if isinstance(answer, Unavailable) and self._client.asks_too_long(answer):
            raise ApiUnavailable(f"{answer.message}: the API wants to be left alone for {answer.retry_after_s:.0f} s")
        now = time.monotonic()
        decision = decide(request, answer, self._policy, self._context(now))
        if decision.fatal_error is not None:
            raise ApiRefused(decision.fatal_error)
        if decision.trip_reason is not None:
            self._on_hold(request, answer, decision.trip_reason)
            return
        if decision.answered:
            self._last_2xx_at = now
            self._control = next((one.contact for one in decision.outcomes if isinstance(one, Scored)), self._control)
        self._finish(decision.outcomes)
        self._queue.extend(decision.requests)
        self._on_refusal(answer, decision.suspects)

    def _on_refusal(self, answer: Answer, suspects: Sequence[Suspect]) -> None:
        """Contacts refused by name or alone: rejected once the API is seen to accept any other."""
        self._suspects.extend(suspect.rejected for suspect in suspects)
        if self._last_2xx_at is not None:
            self._reject_suspects()
        elif isinstance(answer, Refused):
            self._refusals += 1
            if self._refusals > _MAX_REFUSALS:
                raise ApiRefused(f"the API refuses every request: {answer.message}")

    def _on_hold(self, request: Request, answer: Answer, why: str) -> None:
        """The API fails a whole request for good: is it the API, or one of the contacts?

        One contact from each end is asked about alone. If either is answered the API works, and the rest goes on in
        halves. A single contact is held against one that was answered before, which costs that one once more; failed in
        three such rounds, it is rejected. Without such proof it is the API.
        """
        if not isinstance(answer, Unavailable) or answer.trouble.proves_outage:
            raise ApiUnavailable(why)
        if request.is_single:
            if self._control is None or not isinstance(self._probe(request, self._control)[1], Answered):
                raise ApiUnavailable(why)
            self._last_2xx_at = time.monotonic()
            decision = decide(request, answer, self._policy, self._context(self._last_2xx_at))
            self._finish(decision.outcomes)
            self._queue.extend(decision.requests)
            return
        for contact in (request.contacts[0], request.contacts[-1]):
            probe, probed = self._probe(request, contact)
            if isinstance(probed, Answered):
                self._follow(probe, probed)
                left = subset(request, tuple(one for one in request.contacts if one is not contact), _new_id)
                self._queue.extend((left,) if left.is_single else split_in_two(left, _new_id))
                return
        raise ApiUnavailable(why)

    def _probe(self, request: Request, contact: Contact) -> tuple[Request, Answer]:
        probe = subset(request, (contact,), _new_id).sent(time.monotonic(), _now_ms())
        return probe, self._ask(probe)

    def _context(self, now: float) -> Context:
        jitter = random.random()  # noqa: S311 - spreads load, protects nothing  # nosec B311
        return Context(now, _now_ms(), jitter, self._last_2xx_at, _new_id)

    def _reject_suspects(self) -> None:
        for suspect in self._suspects:  # each has a request of its own behind it
            self._finish((suspect,))
        self._suspects = []

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self._finished(outcomes)


def _new_id() -> str:
    return str(uuid.uuid4())


def _now_ms() -> int:
    return int(time.time() * 1000.0)
