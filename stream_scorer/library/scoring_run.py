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
from stream_scorer.library.in_flight import InFlight
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
_INTERRUPT_WAIT_S: Final = 2.0
# Failures whose cause can be a contact while the API works.
_OF_CONTACTS: Final = (FailureKind.REFUSED, FailureKind.TOO_LARGE, FailureKind.NO_RESULT, FailureKind.UNKNOWN_VERSION)
_CREDENTIALS_OR_MODEL: Final = (401, 403, 404)
# Only these reject a contact without proof that the API works: a redirect or a gateway's answer does not.
_REFUSE_CONTACTS: Final = (200, 400, 413, 422)


class ScoringRun:
    """Requests of one calculation, at most ``max_in_flight`` at a time; halves and retries wait in a queue."""

    def __init__(
        self,
        client: ScoreClient,
        policy: Policy,
        finished: Callable[[Sequence[Outcome]], None],
        sleep: Callable[[float], object] = time.sleep,
        *,
        max_in_flight: int = 1,
        answered: Callable[[], object] = lambda: None,
    ) -> None:
        """Store the collaborators.

        Args:
            client: sends the requests.
            policy: settings of the response table.
            finished: receives outcomes of one request, at least one, once they are final; after an interrupt twice.
            sleep: waits for a number of seconds while no request is in flight.
            max_in_flight: limit of requests at a time.
            answered: called after the outcomes of each response.
        """
        self._client = client
        self._policy = policy
        self._finished = finished
        self._sleep = sleep
        self._answered = answered
        self._in_flight = InFlight(max_in_flight, self._send)
        self._next: Request | None = None
        self._waited_for: Request | None = None
        self._has_response = False
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
        except BaseException as error:
            # Requests in flight are billed, so an error waits for them, up to their deadlines; Ctrl-C only briefly.
            self._keep_responses(None if isinstance(error, Exception) else _INTERRUPT_WAIT_S)
            raise

    def _empty_queue(self) -> None:
        while self._queue or not self._in_flight.is_empty:
            wait_s = self._start_due()
            if not self._in_flight.is_empty:
                arrived = self._in_flight.take(wait_s)
                if arrived is not None:
                    self._has_response = True
                    self._follow(*arrived)
                    self._answered()
            elif wait_s is not None:
                self._sleep(wait_s)
                self._waited_for = self._next
        if len(self._suspects) > _MAX_SUSPECTS and not self._has_results:
            raise _error_of(
                ApiRefused, f"the API refuses every contact: {self._suspects[-1].detail}", self._suspects[-1]
            )
        unproven = [suspect for suspect in self._suspects if suspect.api_status not in _REFUSE_CONTACTS]
        if unproven and not self._has_results:
            raise _error_of(ApiUnavailable, unproven[-1].detail, unproven[-1])
        self._reject_suspects()

    def _start_due(self) -> float | None:
        """Start the due requests that limit and quota allow; one that waits for its retry does not block the others.

        The first request is sent alone: its response has the API's quota, and wrong credentials cost one request.

        Returns:
            Seconds until the next request may be started; None: that depends on a response.
        """
        while self._queue and not self._in_flight.is_full and (self._has_response or self._in_flight.is_empty):
            now = time.monotonic()
            first = min(self._queue, key=lambda request: max(request.not_before, now))
            self._next = first
            wait_s = 0.0 if first is self._waited_for else first.not_before - now
            if wait_s <= 0.0:
                wait_s = self._client.turn_in_s()
            if wait_s > 0.0:
                return wait_s
            self._queue.remove(first)
            self._in_flight.start(first.sent(time.monotonic(), _now_ms()))
        return None

    def _send(self, request: Request) -> ApiResponse:
        answer, _ = self._client.send(self._body(request), self._policy.model_id, len(request.contacts))
        return answer

    def _body(self, request: Request) -> bytes:
        return build_body([contact.body for contact in request.contacts], request.key.model_version)

    def _ask(self, request: Request) -> ApiResponse:
        answer, _ = self._client.ask(self._body(request), self._policy.model_id, len(request.contacts))
        self._last = (request, answer)
        return answer

    def _keep_responses(self, timeout_s: float | None) -> None:
        """Finish the results of responses that were not processed, or whose processing Ctrl-C has interrupted."""
        last = [] if self._last is None else [self._last]
        for request, answer in (*last, *self._in_flight.collect(timeout_s)):
            results = classify(request, answer, self._policy) if isinstance(answer, Answered) else None
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
        if decision.requests and failure.kind.is_retryable:
            due_at = min(one.not_before for one in decision.requests)
            self._client.log_retry(failure.message, failure.exchange, request.failures, due_at - context.now)
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
