"""Observer of the scoring worker: what it adds to `LoopObserver`, which describes the threads that use it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from stream_scorer.core.desk.rejected_record import is_replayed
from stream_scorer.core.scoring.api_response import Unavailable
from stream_scorer.core.scoring.model_check import ModelConfirmed, ModelUnavailable
from stream_scorer.core.scoring.types import Deferred, Rejected, Scored
from stream_scorer.runtime import metric_definitions
from stream_scorer.runtime.loop_observer import LoopObserver
from stream_scorer.scoring.circuit_breaker import BreakerState, OpenReason
from stream_scorer.scoring.wait_reasons import WaitTimer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from stream_scorer.core.desk.progress import Report
    from stream_scorer.core.exactly_once.stall_detector import CommitPosition
    from stream_scorer.core.records import Partition
    from stream_scorer.core.scoring.api_response import ApiResponse, Exchange
    from stream_scorer.core.scoring.model_check import ModelCheck
    from stream_scorer.core.scoring.refusal_limit import Cause
    from stream_scorer.core.scoring.request import Request
    from stream_scorer.core.scoring.types import Outcome
    from stream_scorer.runtime.clock import Clock
    from stream_scorer.runtime.loop_observer import Blockage, Log
    from stream_scorer.runtime.metric_definitions import Metrics
    from stream_scorer.scoring.ports import Quota
    from stream_scorer.scoring.wait_reasons import WaitReason

_LIMIT_LOGGED_EVERY_S = 60.0


class _Reported(NamedTuple):
    """An open or throttled state, and when it began in Unix milliseconds, as first reported."""

    state: BreakerState
    since_ms: int

    @property
    def facts(self) -> dict[str, str]:
        """The fields of its log events."""
        return {"reason": str(self.state.reason), "detail": self.state.message, "since": _utc(self.since_ms)}


class Observer(LoopObserver):
    """See the module docstring; the arguments are those of `LoopObserver`."""

    finished: ClassVar[Sequence[str]] = ("scored", "review", "rejected")
    others: ClassVar[Sequence[str]] = ("deferred",)

    def __init__(
        self,
        log: Log,
        metrics: Metrics,
        clock: Clock,
        standby_after_s: float = 0.0,
        retry_topics: Collection[str] = (),
    ) -> None:
        super().__init__(log, metrics, clock, standby_after_s, retry_topics)
        self._breaker: _Reported | None = None
        self._start: _Reported | None = None
        self._waits = WaitTimer()
        self._wait_explained = False
        self._limit_logged_at: dict[Cause, float] = {}
        self._ignored_retry_after = False
        self._quota: tuple[int, int] | None = None  # requests left and allowed in this minute

    # --- the start

    def model_checked(self, check: ModelCheck) -> None:
        """Record the result of a check of token and model."""
        exchange, kind = check.exchange, None if isinstance(check, ModelConfirmed) else check.kind
        self._http_requests(exchange, kind)
        if exchange.error_text:
            self._log.debug("error text received", status=exchange.status, text=exchange.error_text)
        if isinstance(check, ModelUnavailable):
            self._retry_after_ignored(check.ignored_retry_after)

    def start_delayed(self, reason: str, *, since: float, next_attempt_at: float) -> None:
        """Record that token and model are not confirmed yet; called about once a second until the next attempt."""
        self.heartbeat()
        before = self._start
        self._start = self._reported(BreakerState(OpenReason.API, reason, since, next_attempt_at), before)
        self._measure(self._start.state)
        if before is None or not before.state.covers(reason):
            self._log.warning(
                "start delayed",
                reason=reason,
                since=_utc(self._start.since_ms),
                next_attempt_in_s=round(self._left_s(self._start.state), 1),
            )

    def model_confirmed(self, status: int | None, *, attempts: int, began_at: float) -> None:
        """Log that the API has confirmed token and model: the worker joins its group now."""
        if self._start is not None:
            self._start = None
            self._set_breaker(OpenReason.API, is_open=False)
        after_s = round(self._monotonic() - began_at, 1)
        self._log.info("model confirmed", status=status, attempts=attempts, after_s=after_s)

    # --- the loop

    def wait_observed(self, reason: WaitReason | None) -> None:
        """Record why due requests were not sent; None if all were."""
        # Kept until the next `lag_observed`: a retry may wait between two of them, and nothing at the second.
        self._wait_explained = self._wait_explained or (reason is not None and reason.explains_stall)
        self._waits.observe(reason, self._monotonic())

    def state(self, *, in_flight: int, uncommitted: int, quota: Quota, breaker: BreakerState | None) -> None:
        """Set the gauges, a few times a second; ``breaker``: the open or throttled state as reported."""
        now = self._monotonic()
        remaining, allowed = self._quota = quota.remaining(now), quota.allowed()
        self._metrics.set(metric_definitions.REQUESTS_IN_FLIGHT, in_flight)
        self._metrics.set(metric_definitions.CONTACTS_UNCOMMITTED, uncommitted)
        self._metrics.set(metric_definitions.QUOTA_REMAINING, remaining)
        self._metrics.set(metric_definitions.QUOTA_ALLOWED, allowed)
        self._metrics.set(metric_definitions.QUOTA_WAIT, quota.wait_s(now))
        self._metrics.set(metric_definitions.QUOTA_TIME_TO_EXHAUSTION, quota.exhausted_in_s(now))
        for reason, seconds in self._waits.drain().items():
            self._metrics.add(metric_definitions.REQUEST_WAIT_TIME, seconds, {"reason": reason})
        self._breaker = None if breaker is None else self._reported(breaker, self._breaker)
        if breaker is not None:
            self._measure(breaker)
        for cause, blockage in self._blocked.items():
            self._set_breaker(cause, is_open=True, open_s=self._age_s(blockage.since))

    def lag_observed(
        self, positions: Iterable[CommitPosition], ends: Mapping[Partition, int], *, explained: bool = False
    ) -> None:
        """Record the consumer lag, about once a second; waits since the last call explain a stall."""
        super().lag_observed(positions, ends, explained=explained or self._wait_explained)
        self._wait_explained = False

    def drained(self, contacts: int) -> None:
        """Log how many contacts the next owner sends again: in flight, or answered and not committed."""
        say = self._log.warning if contacts else self._log.info
        say("drained", contacts_sent_again=contacts)

    # --- the API

    def response_received(self, request: Request, answer: ApiResponse, trace_id: str | None = None) -> None:
        """Log and count an attempt; ``trace_id``: of the trace that contains it."""
        exchange = answer.exchange
        error = getattr(answer, "message", None)
        kind = None if error is None else str(getattr(answer, "failure", type(answer).__name__))
        if request.attempts > 1 or request.retried_unanswered:
            self._metrics.add(metric_definitions.CONTACTS_RETRIED, len(request.contacts))
        if request.attempts == 1:
            self._metrics.record(metric_definitions.BATCH_SIZE, len(request.contacts))
        self._http_requests(exchange, kind)
        if exchange.error_text:
            self._log.debug(
                "error text received",
                batch_id=request.batch_id,
                attempt=request.attempts,
                status=exchange.status,
                text=exchange.error_text,
            )
        if isinstance(answer, Unavailable):
            self._retry_after_ignored(answer.ignored_retry_after)
        # The circuit breaker logs the failures of its probes once.
        if error is not None and (self._breaker is None or not self._breaker.state.covers(error)):
            self._log.warning(
                "scoring request failed",
                batch_id=request.batch_id,
                attempt=request.attempts,
                contacts=len(request.contacts),
                status=exchange.status,
                correlation_id=exchange.correlation_id,
                trace_id=trace_id,
                detail=error,
            )

    def _http_requests(self, exchange: Exchange, kind: str | None) -> None:
        if exchange.earlier is not None:
            self._http_request(exchange.earlier.latency_ms, exchange.earlier.status, None)
        self._http_request(exchange.latency_ms, exchange.status, kind)

    def _http_request(self, latency_ms: float, status: int | None, kind: str | None) -> None:
        attributes = {"http.response.status_code": status, "error.type": kind}
        given = {name: value for name, value in attributes.items() if value is not None}
        self._metrics.record(metric_definitions.REQUEST_DURATION, latency_ms / 1000, given)

    def _retry_after_ignored(self, value: str) -> None:
        """Log once per process: the API sends such a header with every response."""
        if value and not self._ignored_retry_after:
            self._ignored_retry_after = True
            detail = f"the header is unreadable, not positive or over a day: {value}"
            self._log.warning("retry-after ignored", detail=detail)

    def unmatched_results(self, amount: int) -> None:
        """Count results whose contact was not in the request."""
        if amount:
            self._metrics.add(metric_definitions.UNMATCHED_RESULTS, amount)

    def breaker_changed(self, before: BreakerState | None, breaker: BreakerState | None) -> None:
        """Log a change of the circuit breaker: opened, throttled, another reason or message, closed (None)."""
        known = self._breaker
        self._breaker = None if breaker is None else self._reported(breaker, known)
        if before is not None and (breaker is None or breaker.reason is not before.reason):
            self._set_breaker(before.reason, is_open=False)
        if self._breaker is not None and breaker is not None:
            self._measure(breaker)
            fields = {
                **self._breaker.facts,
                f"next_{_next_of(breaker)}_in_s": round(self._left_s(breaker), 1),
            }
            say = self._log.warning if breaker.is_open else self._log.info
            say(_change(before, breaker), **fields, for_s=self._age_s(breaker.since))
        elif before is not None and known is not None:
            self._log.info("circuit closed", **known.facts, after_s=self._age_s(before.since), probes=before.probes)

    def version_breaker_changed(self, model_version: str | None, reason: str | None, *, opened: int) -> None:
        """Log the breaker of a model version that opened alone (``reason``) or is half-open again (None)."""
        self._metrics.set(metric_definitions.CIRCUIT_BREAKER_VERSIONS, opened)
        if reason is None:
            self._log.info("version circuit half-open", model_version=model_version)
        else:
            self._log.warning("version circuit opened", model_version=model_version, detail=reason)

    def control_sent(self) -> None:
        """Count a scored contact that was sent again."""
        self._metrics.add(metric_definitions.CONTROLS)

    def refusal_limit_reached(self, cause: Cause, count: int, is_held: bool) -> None:
        """Count a contact over the limit of rejections, and log the cause once a minute."""
        outcome = "held" if is_held else "rejected"
        labels = {
            "reason": cause.reason,
            "status": "" if cause.status is None else str(cause.status),
            "model_version": cause.model_version or "",
            "outcome": outcome,
        }
        self._metrics.add(metric_definitions.REFUSALS_OVER_LIMIT, 1, labels)
        now = self._monotonic()
        if now - self._limit_logged_at.get(cause, float("-inf")) < _LIMIT_LOGGED_EVERY_S:
            return
        self._limit_logged_at[cause] = now
        say = self._log.error if is_held else self._log.warning
        say(
            f"contacts {outcome} over the limit",
            reason=cause.reason,
            status=cause.status,
            model_version=cause.model_version,
            contacts=count,
            detail="compare what the API refuses with the producer's latest change; scoring.max_refused_share",
        )

    def probed(self, outcome: str) -> None:
        """Count a half-open probe; ``outcome``: ``recovered`` or ``failed``."""
        self._metrics.add(metric_definitions.CIRCUIT_BREAKER_PROBES, 1, {"outcome": outcome})

    # --- outcomes

    def published(self, outcomes: Iterable[Outcome], *, records: int) -> None:
        """Count committed outcomes and their records."""
        self._metrics.add(metric_definitions.SENT, records)
        sums: Counter[tuple[str, str]] = Counter()
        began_ms: dict[str, int] = {}
        replayed = 0
        scored, last = 0, None  # the contacts of a request follow one another, and most have a score
        for outcome in outcomes:
            request = outcome.request
            if request is not last and request is not None:
                began_ms[request.batch_id], last = request.started_at_ms, request
            headers = outcome.record.headers
            replayed += bool(headers) and is_replayed(headers)
            if isinstance(outcome, Scored) and not outcome.review_reasons:
                scored += 1
            elif isinstance(outcome, Deferred):
                sums["deferred", str(outcome.level)] += 1
            elif isinstance(outcome, Rejected):
                sums["rejected", outcome.reasons[0]] += 1
            else:
                sums["review", outcome.review_reasons[0]] += 1
        if scored:
            sums["scored", ""] = scored
        if replayed:
            self._metrics.add(metric_definitions.CONTACTS_REPLAYED, replayed)
        by_kind: Counter[str] = Counter()
        for (kind, reason), amount in sums.items():
            self._metrics.add(metric_definitions.CONTACTS, amount, {"outcome": kind, "reason": reason})
            by_kind[kind] += amount
        self._finished(by_kind)
        now_ms = self._clock.unix_ms()
        for at_ms in began_ms.values():
            self._metrics.record(metric_definitions.PROCESS_DURATION, max(0.0, (now_ms - at_ms) / 1000))

    def _progress_fields(self, report: Report) -> dict[str, int | float | None]:
        remaining, allowed = (None, None) if self._quota is None else self._quota
        return {
            "rate_per_s": report.rate_per_s,
            "scored": report.outcomes["scored"],
            "review": report.outcomes["review"],
            "rejected": report.outcomes["rejected"],
            "deferred": report.outcomes["deferred"],
            "lag": report.lag,
            "quota_used": None if remaining is None or allowed is None else max(0, allowed - remaining),
            "quota_allowed": allowed,
        }

    def audit_chain_length(self, length: int) -> None:
        """Set the number of audit events in the present chain."""
        self._metrics.set(metric_definitions.AUDIT_CHAIN_LENGTH, length)

    def records_rejected(self, outcomes: Sequence[tuple[Outcome, str]]) -> None:
        """Log contacts whose records the broker rejects; ``outcomes``: each with its contact id."""
        batch_ids = dict.fromkeys(outcome.request.batch_id for outcome, _ in outcomes if outcome.request is not None)
        self._log.warning(
            "contacts rejected by broker",
            contacts=len(outcomes),
            batches=len(batch_ids),
            batch_id=next(iter(batch_ids), None),
        )
        for outcome, contact_id in outcomes:
            self._log.debug("contact rejected by broker", contact_id=contact_id, source=outcome.record.source)

    # --- for /readyz

    def _not_ready(self) -> str | None:
        if (start := self._start) is not None:
            left_s = self._left_s(start.state)
            return f"starting: {start.state.message}; {self._since(start)}; next attempt in {left_s:.0f} s"
        known = self._breaker
        if (kafka := self._blocked.get("kafka")) is not None and (known is None or not known.state.is_open):
            return f"kafka: {kafka.message}; {self._since_blocked(kafka)}"
        if (no_partition := self._membership.unready_reason()) is not None:
            return no_partition
        if known is not None:
            breaker = known.state
            word = "circuit open" if breaker.is_open else "throttled"
            next_in = f"next {_next_of(breaker)} in {self._left_s(breaker):.0f} s"
            return f"{word}: {breaker.message}; {self._since(known)}; {next_in}"
        if (registry := self._blocked.get("registry")) is not None:
            return f"registry: {registry.message}; {self._since_blocked(registry)}"
        return None

    # --- open and throttled states

    def _reported(self, breaker: BreakerState, before: _Reported | None) -> _Reported:
        """Return the state with its beginning, which stays as first reported; ``before``: the last report."""
        if before is not None and before.state.since == breaker.since:
            return before._replace(state=breaker)
        return _Reported(breaker, self._clock.unix_ms() - round(self._age_s(breaker.since) * 1000))

    def _measure(self, breaker: BreakerState) -> None:
        age_s, left_s = self._age_s(breaker.since), self._left_s(breaker)
        self._set_breaker(breaker.reason, is_open=True, open_s=age_s, next_probe_s=left_s)

    def _blockage_changed(self, cause: str, *, is_blocked: bool) -> None:
        if not is_blocked:  # `state` sets the gauges of a blockage
            self._set_breaker(cause, is_open=False)

    def _set_breaker(self, reason: str, *, is_open: bool, open_s: float = 0.0, next_probe_s: float = 0.0) -> None:
        labels = {"reason": reason}
        self._metrics.set(metric_definitions.CIRCUIT_BREAKER_OPEN, int(is_open), labels)
        self._metrics.set(metric_definitions.CIRCUIT_BREAKER_OPEN_TIME, open_s, labels)
        self._metrics.set(metric_definitions.CIRCUIT_BREAKER_NEXT_PROBE, next_probe_s, labels)

    def _age_s(self, since: float) -> float:
        return round(self._monotonic() - since, 1)

    def _left_s(self, breaker: BreakerState) -> float:
        """Return the seconds until the next probe or request."""
        return max(0.0, breaker.next_probe_at - self._monotonic())

    def _since(self, known: _Reported) -> str:
        return f"since {_utc(known.since_ms)} ({self._age_s(known.state.since):.0f} s)"

    def _since_blocked(self, blockage: Blockage) -> str:
        return f"since {_utc(blockage.since_ms)} ({self._age_s(blockage.since):.0f} s)"


def _utc(unix_ms: int) -> str:
    """Return a time in ISO 8601, UTC, in whole seconds."""
    return datetime.fromtimestamp(unix_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def _next_of(breaker: BreakerState) -> str:
    """Return what is sent next: ``probe`` or ``request``."""
    return "probe" if breaker.is_open else "request"


def _change(before: BreakerState | None, state: BreakerState) -> str:
    """Return the log event for a change to ``state``."""
    if before is not None and before.is_open == state.is_open:
        return "circuit reason changed"
    return "circuit opened" if state.is_open else "circuit throttled"
