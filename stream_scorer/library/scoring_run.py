"""Calculation that sends contacts until each is scored or rejected, or until the API fails.

Responses are classified by the same table as on the stream (`stream_scorer.core.scoring.response_policy`): retries,
one more request for unanswered contacts, rejected contacts found by name or bisection. There are no retry topics. A
contact that fails alone is rejected once the API has scored another one. Where a worker would open its circuit breaker,
the calculation ends with an error.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from stream_scorer.core.scoring.api_response import Answered, Unavailable
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request, split_in_two, subset
from stream_scorer.core.scoring.response_policy import (
    Context,
    FailureKind,
    Policy,
    Results,
    after_results,
    at_once,
    classify,
    unanswered_twice,
    while_none_succeed,
    while_others_succeed,
)
from stream_scorer.core.scoring.types import Rejected
from stream_scorer.errors import ApiRefused, ApiUnavailable, StreamScorerError
from stream_scorer.genesys.wire import build_body
from stream_scorer.library.messages import api_error, in_library_words
from stream_scorer.library.payload import grouped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.response_policy import Decision, FailedContact, Failure
    from stream_scorer.core.scoring.types import Contact, Outcome
    from stream_scorer.library.client import ScoreClient
    from stream_scorer.library.messages import ApiErrorKind

# After this number of rejected requests, or contacts rejected alone, without any 2xx, the contacts are not the cause.
_MAX_REFUSALS: Final = 30
_MAX_SUSPECTS: Final = 8
_LONE_FAILURES: Final = 3
# Failures whose cause can be a contact while the API works.
_OF_CONTACTS: Final = (FailureKind.REFUSED, FailureKind.TOO_LARGE, FailureKind.NO_RESULT, FailureKind.UNKNOWN_VERSION)
_CREDENTIALS_OR_MODEL: Final = (401, 403, 404)
# Only these reject a contact without proof that the API works: a redirect or a gateway's answer does not.
_REFUSE_CONTACTS: Final = (200, 400, 413, 422)


class ScoringRun:
    """Requests of one calculation, sent one at a time; halves and retries wait in a queue."""

    def __init__(
        self,
        client: ScoreClient,
        policy: Policy,
        finished: Callable[[Sequence[Outcome]], None],
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Store the collaborators.

        Args:
            client: sends the requests.
            policy: settings of the response table.
            finished: receives outcomes of one request, at least one, once they are final; after an interrupt twice.
            sleep: waits for a number of seconds.
        """
        self._client = client
        self._policy = policy
        self._finished = finished
        self._sleep = sleep
        self._queue: deque[Request] = deque()
        self._suspects: list[Rejected] = []
        self._has_results = False
        self._control: Contact | None = None
        self._refusals = 0
        self._last: tuple[Request, ApiResponse] | None = None

    def run(self, contacts: Sequence[Contact], model_version: str | None) -> None:
        """Send all contacts.

        Raises:
            ApiRefused: credentials, scope, model id, or a request that the API rejects whatever its content.
            ApiUnavailable: all retries failed.
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
            self._follow(request, self._ask(request))
        if len(self._suspects) > _MAX_SUSPECTS and not self._has_results:
            raise _error_of(
                ApiRefused, f"the API refuses every contact: {self._suspects[-1].detail}", self._suspects[-1]
            )
        unproven = [suspect for suspect in self._suspects if suspect.api_status not in _REFUSE_CONTACTS]
        if unproven and not self._has_results:
            raise _error_of(ApiUnavailable, unproven[-1].detail, unproven[-1])
        self._reject_suspects()

    def _next(self) -> Request:
        """Return the first due request; one that waits for its next attempt does not block the others."""
        now = time.monotonic()
        first = min(self._queue, key=lambda request: max(request.not_before, now))
        self._queue.remove(first)
        if first.not_before > now:
            self._sleep(first.not_before - now)
        return first.sent(time.monotonic(), _now_ms())

    def _ask(self, request: Request) -> ApiResponse:
        body = build_body([contact.body for contact in request.contacts], request.key.model_version)
        answer, _ = self._client.ask(body, self._policy.model_id, len(request.contacts))
        self._last = (request, answer)
        return answer

    def _keep_last(self) -> None:
        """Finish the results of the last response, whose processing Ctrl-C may have interrupted."""
        if self._last is None or not isinstance(self._last[1], Answered):
            return
        results = classify(*self._last, self._policy)
        if isinstance(results, Results):
            with contextlib.suppress(StreamScorerError):  # the error that ends the calculation takes precedence
                self._finish(results.scored)

    # --- responses

    def _follow(self, request: Request, answer: ApiResponse) -> None:
        if isinstance(answer, Unavailable) and self._client.asks_too_long(answer):
            message = f"{answer.message}: the API requests a pause of {answer.retry_after_s:.0f} s"
            raise api_error(ApiUnavailable, message, answer.exchange)
        result = classify(request, answer, self._policy)
        if isinstance(result, Results):
            self._has_results = True
            self._control = result.scored[-1].contact
            self._finish(result.scored)
            self._queue.extend(after_results(request, result, self._context()))
            self._carry_out(unanswered_twice(request, result, answer.exchange, self._policy))
            self._reject_suspects()
            return
        self._on_failure(replace(request, failures=request.failures + 1), result)

    def _on_failure(self, request: Request, failure: Failure) -> None:
        is_refusal = failure.kind is FailureKind.REFUSED
        if failure.is_fatal or (is_refusal and failure.exchange.status in _CREDENTIALS_OR_MODEL):
            raise api_error(ApiRefused, failure.message, failure.exchange)
        if failure.kind is FailureKind.RATE_LIMITED and request.failures > self._policy.max_retries:
            raise api_error(ApiUnavailable, failure.message, failure.exchange)
        context = self._context()
        decision = at_once(request, failure, self._policy, context)
        if decision is None and failure.kind in _OF_CONTACTS:
            decision = while_others_succeed(request, failure, self._policy, context)
        if decision is None:
            decision = while_none_succeed(request, failure, self._policy, context)
        if decision.trip is not None:
            self._on_outage(request, failure)
            return
        self._carry_out(decision)
        if is_refusal and not self._has_results:
            self._refusals += 1
            if self._refusals > _MAX_REFUSALS:
                raise api_error(ApiRefused, f"the API refuses every request: {failure.message}", failure.exchange)

    def _on_outage(self, request: Request, failure: Failure) -> None:
        """Find out whether the API or one of the contacts makes a request fail permanently.

        One contact from each end is sent alone. If either is answered the API works, and the rest continues in halves.
        A single contact is compared with one that was answered before, which is sent once more. After three such rounds
        it is rejected. Without such proof the API is the cause.
        """
        is_unsent = failure.kind is FailureKind.SERVER_ERROR and failure.exchange.status is None
        if is_unsent or failure.kind is FailureKind.LOGIN_UNAVAILABLE:
            raise api_error(ApiUnavailable, failure.message, failure.exchange)
        if request.is_single:
            if self._control is None or not isinstance(self._probe(request, self._control)[1], Answered):
                raise api_error(ApiUnavailable, failure.message, failure.exchange)
            failures = (request.lone_failures or 0) + 1
            if failures < _LONE_FAILURES:
                self._queue.append(replace(request, failures=0, not_before=0.0, lone_failures=failures))
                return
            self._carry_out(while_others_succeed(request, failure, self._policy, self._context()))
            return
        for contact in (request.contacts[0], request.contacts[-1]):
            probe, probed = self._probe(request, contact)
            if isinstance(probed, Answered):
                self._follow(probe, probed)
                left = subset(request, tuple(one for one in request.contacts if one is not contact), _new_id)
                left = replace(left, failures=0)
                self._queue.extend((left,) if left.is_single else split_in_two(left, _new_id))
                return
        raise api_error(ApiUnavailable, failure.message, failure.exchange)

    def _probe(self, request: Request, contact: Contact) -> tuple[Request, ApiResponse]:
        probe = subset(request, (contact,), _new_id).sent(time.monotonic(), _now_ms())
        return probe, self._ask(probe)

    def _carry_out(self, decision: Decision) -> None:
        self._queue.extend(decision.requests)
        self._suspects.extend(map(_rejected, decision.failed))
        if self._has_results:
            self._reject_suspects()

    def _context(self) -> Context:
        jitter = random.random()  # noqa: S311 - spreads load, protects nothing  # nosec B311
        return Context(time.monotonic(), _now_ms(), jitter, _new_id)

    def _reject_suspects(self) -> None:
        suspects, self._suspects = self._suspects, []
        for suspect in suspects:  # each had a request of its own
            self._finish((suspect,))

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self._finished(outcomes)


def _error_of(kind: type[ApiErrorKind], message: str, suspect: Rejected) -> ApiErrorKind:
    correlation_id = None if suspect.request is None else suspect.request.correlation_id
    return kind(in_library_words(message), status_code=suspect.api_status, correlation_id=correlation_id)


def _rejected(failed: FailedContact) -> Rejected:
    return Rejected(
        failed.contact.record,
        (failed.reason.value,),
        failed.detail,
        failed.contact.contact_id,
        _now_ms(),
        request=failed.facts,
        api_status=failed.status,
        event_id=failed.contact.event_id,
        features_hash=failed.contact.features_hash,
    )


def _new_id() -> str:
    return str(uuid.uuid4())


def _now_ms() -> int:
    return int(time.time() * 1000.0)
