"""What the worker tells the world: log lines, metrics, and the state behind ``/livez`` and ``/readyz``.

Called by the worker's thread, with sums and never once a contact; read by the admin server's threads.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from stream_scorer.core.events import Scored
from stream_scorer.kafka.sink import Committed, RecordsRefused
from stream_scorer.scoring.holding import Cause, Hold
from stream_scorer.scoring.waiting import Waits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.clock import Clock
    from stream_scorer.core.events import Answer, Outcome, Partition
    from stream_scorer.core.requests import Request
    from stream_scorer.kafka.sink import Publication
    from stream_scorer.scoring.ports import Log, Metrics, Quota
    from stream_scorer.scoring.waiting import Wait


class _Known(NamedTuple):
    """A hold, and its beginning in ISO 8601, UTC."""

    hold: Hold
    since: str


class Observer:
    """See the module's text.

    Args:
        log: where lines go.
        metrics: where sums go.
        clock: the time.
    """

    def __init__(self, log: Log, metrics: Metrics, clock: Clock) -> None:
        self._log = log
        self._metrics = metrics
        self._clock = clock
        self._monotonic = clock.monotonic
        self._hold: _Known | None = None
        self._kafka: _Known | None = None
        self._registry: _Known | None = None
        self._partitions: set[Partition] = set()
        self._beat_at = clock.monotonic()
        self._waits = Waits()
        self._joined = False
        self._draining = False

    # --- the loop

    def beat(self) -> None:
        """The loop went round."""
        self._beat_at = self._monotonic()

    def kept_back(self, reason: Wait | None) -> None:
        """Why a request that is due was not sent just now; None: all were."""
        self._waits.see(reason, self._monotonic())

    def state(self, *, in_flight: int, uncommitted: int, quota: Quota, hold: Hold | None) -> None:
        """How things stand, a few times a second; ``hold``: what is known of the present hold by now."""
        now = self._monotonic()
        self._metrics.in_flight(in_flight)
        self._metrics.uncommitted(uncommitted)
        self._metrics.quota(
            remaining=quota.remaining(now),
            allowed=quota.allowed(),
            wait_s=quota.wait_s(now),
            exhausted_in_s=quota.exhausted_in_s(now),
        )
        for reason, seconds in self._waits.take().items():
            self._metrics.waited(seconds, reason=reason)
        self._hold = self._known(hold, self._hold)
        for known in (self._hold, self._kafka, self._registry):
            if known is not None:
                self._measure(known.hold)

    def draining(self) -> None:
        """The loop is about to end."""
        self._draining = True
        self._log.info("draining")

    def consumed(self, records: int) -> None:
        """Records were read."""
        self._metrics.consumed(records)

    def assigned(self, partition: Partition, next_offset: int) -> None:
        """A partition is ours from now on."""
        self._joined = True
        self._partitions.add(partition)
        self._log.info("partition assigned", topic=partition.topic, partition=partition.number, offset=next_offset)

    def disowned(self, partitions: Iterable[Partition]) -> None:
        """Partitions are not ours any more."""
        for partition in partitions:
            self._partitions.discard(partition)
            self._log.info("partition given up", topic=partition.topic, partition=partition.number)

    # --- the API

    def exchanged(self, request: Request, answer: Answer) -> None:
        """An attempt ended."""
        exchange = answer.exchange
        error = getattr(answer, "message", None)
        kind = None if error is None else str(getattr(answer, "trouble", type(answer).__name__))
        if request.attempts > 1 or request.asked_before:
            self._metrics.reasked(len(request.contacts))
        self._metrics.http_request(exchange.latency_ms / 1000, status=exchange.status, error=kind)
        # A hold has one line for what all its probes come to.
        if error is not None and (self._hold is None or not self._hold.hold.says(error)):
            self._log.warning(
                "scoring request not answered",
                batch_id=request.batch_id,
                attempt=request.attempts,
                contacts=len(request.contacts),
                status=exchange.status,
                correlation_id=exchange.correlation_id,
                detail=error,
            )

    def unknown_results(self, amount: int) -> None:
        """Results about contacts that nobody asked about."""
        if amount:
            self._metrics.unknown_results(amount)

    def holding(self, before: Hold | None, hold: Hold | None) -> None:
        """A hold or pause began, has another cause or reason, or ended (None): one line."""
        known = self._hold
        self._hold = self._known(hold, known)
        if before is not None and (hold is None or hold.cause is not before.cause):
            self._metrics.holding_ended(before.cause)
        if self._hold is not None and hold is not None:
            self._measure(hold)
            fields = {**_facts(self._hold), f"next_{_next_of(hold)}_in_s": round(self._left_s(hold), 1)}
            say = self._log.warning if hold.probes_api else self._log.info
            say("holding" if before is None else "holding changed", **fields, for_s=self._age_s(hold))
        elif before is not None and known is not None:
            self._log.info("holding ended", **_facts(known), after_s=self._age_s(before), probes=before.probes)

    def probed(self, outcome: str) -> None:
        """A probe came to this: ``recovered`` or ``failed``."""
        self._metrics.probe(outcome=outcome)

    # --- Kafka

    def transaction(self, publication: Publication) -> None:
        """A transaction ended."""
        match publication:
            case Committed():
                self._metrics.transaction(outcome="committed")
            case RecordsRefused(errors):
                self._metrics.transaction(outcome="refused")
                self._log.warning("records refused", records=len(errors), detail=next(iter(errors.values())))
            case _:
                self._metrics.transaction(outcome="failed")

    def kafka_trouble(self, message: str | None) -> None:
        """Nothing can be published for now, or that is over (None)."""
        now, before = self._monotonic(), self._kafka
        if message is None:
            self._kafka = None
            self._metrics.holding_ended(Cause.KAFKA)
            self._log.info("publishing again", after=None if before is None else before.hold.reason)
        elif before is None or message != before.hold.reason:
            since = now if before is None else before.hold.since
            self._kafka = self._known(Hold(Cause.KAFKA, message, since, now), before)
            self._log.warning("publishing failed, trying again", detail=message)

    def waiting_for_schema(self, reason: str | None) -> None:
        """Why records wait for the schemas of their writers; None: none does any more."""
        now, before = self._monotonic(), self._registry
        if reason is None:
            self._registry = None
            self._metrics.holding_ended(Cause.REGISTRY)
            self._log.info("schemas fetched again", after=None if before is None else before.hold.reason)
        else:
            since = now if before is None else before.hold.since
            self._registry = self._known(Hold(Cause.REGISTRY, reason, since, now), before)
            self._log.warning("records wait for a schema", detail=reason)

    def published(self, outcomes: Iterable[Outcome], *, records: int) -> None:
        """These outcomes are committed, in so many records."""
        self._metrics.sent(records)
        sums: Counter[tuple[str, str]] = Counter()
        for outcome in outcomes:
            if not isinstance(outcome, Scored):
                sums["rejected", outcome.reasons[0]] += 1
            elif outcome.review_reasons:
                sums["review", outcome.review_reasons[0]] += 1
            else:
                sums["scored", ""] += 1
        for (kind, reason), amount in sums.items():
            self._metrics.contacts(amount, outcome=kind, reason=reason)

    # --- for /livez and /readyz

    def why_not_live(self, limit_s: float) -> str | None:
        """Why the process should be restarted, if it should."""
        silent_s = self._monotonic() - self._beat_at
        return f"the loop has stood still for {silent_s:.0f} s" if silent_s > limit_s else None

    def why_not_ready(self) -> str | None:
        """Why no contact is being scored right now, if none is."""
        if self._draining:
            return "draining"
        if not self._joined:
            return "starting: no partition assigned yet"
        known, kafka = self._hold, self._kafka
        if kafka is not None and (known is None or not known.hold.probes_api):
            return f"kafka: {kafka.hold.reason}; {self._since(kafka)}"
        if known is None:
            registry = self._registry
            return None if registry is None else f"registry: {registry.hold.reason}; {self._since(registry)}"
        hold = known.hold
        return f"holding: {hold.reason}; {self._since(known)}; next {_next_of(hold)} in {self._left_s(hold):.0f} s"

    # --- a hold in figures and words

    def _known(self, hold: Hold | None, before: _Known | None) -> _Known | None:
        if hold is None:
            return None
        if before is not None and before.hold.since == hold.since:
            return _Known(hold, before.since)
        began_s = self._clock.unix_ms() / 1000 - self._age_s(hold)
        return _Known(hold, datetime.fromtimestamp(int(began_s), UTC).isoformat().replace("+00:00", "Z"))

    def _measure(self, hold: Hold) -> None:
        self._metrics.holding(hold.cause, for_s=self._age_s(hold), next_probe_s=self._left_s(hold))

    def _age_s(self, hold: Hold) -> float:
        return round(self._monotonic() - hold.since, 1)

    def _left_s(self, hold: Hold) -> float:
        return max(0.0, hold.next_probe_at - self._monotonic())

    def _since(self, known: _Known) -> str:
        return f"since {known.since} ({self._age_s(known.hold):.0f} s)"


def _facts(known: _Known) -> dict[str, str]:
    return {"cause": str(known.hold.cause), "reason": known.hold.reason, "since": known.since}


def _next_of(hold: Hold) -> str:
    return "probe" if hold.probes_api else "request"
