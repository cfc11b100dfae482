"""Metrics of the campaign worker. Every method takes a sum or a state, except `attempt` and `processed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.telemetry.exporters import Meters, Scrape, otlp_readers
from stream_scorer.telemetry.metrics.kafka import SECONDS, MessagingMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.metrics.export import MetricReader

_LOOPS: Final = ("planner", "deliverer")


class CallbackMetrics(MessagingMetrics):
    """Counters and gauges of planner and deliverer. Every method takes a sum, except `attempt` and `processed`.

    Args:
        readers: export the metrics; empty: they are not exported.
        instance: the resource's ``service.instance.id``.
    """

    def __init__(self, readers: Sequence[MetricReader] = (), *, instance: str | None = None) -> None:
        self._meters = Meters("stream-scorer-callbacks", "stream_scorer.callbacks", readers, instance)
        meter = self._meters.meter
        super().__init__(meter, loops=_LOOPS)
        self._planned = meter.create_counter("stream_scorer.callbacks.planned", "{callback}", "Callbacks planned.")
        self._contacts = meter.create_counter(
            "stream_scorer.callbacks.contacts", "{contact}", "Contacts in callbacks planned."
        )
        self._finished = meter.create_counter(
            "stream_scorer.callbacks.finished",
            "{callback}",
            "Callbacks with a receipt: delivered, refused, gave_up or expired.",
        )
        self._unusable = meter.create_counter(
            "stream_scorer.callbacks.invalid", "{message}", "Records that are not a score or a callback, by `reason`."
        )
        self._postponed = meter.create_counter(
            "stream_scorer.callbacks.deferred", "{callback}", "Callbacks written to a retry topic, by reason."
        )
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of attempts to deliver a callback.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._in_flight = meter.create_gauge(
            "stream_scorer.callbacks.in_flight", "{request}", "Requests at the campaign manager now."
        )
        self._waiting = meter.create_gauge(
            "stream_scorer.callbacks.waiting",
            "{callback}",
            "Callbacks in memory that wait for a slot or a quick retry; retry topics whose head is not due.",
        )
        self._uncommitted = meter.create_gauge(
            "stream_scorer.callbacks.uncommitted", "{callback}", "Callbacks read and not yet committed."
        )
        self._breaker_open = meter.create_gauge(
            "stream_scorer.callbacks.circuit_breaker.open",
            "1",
            "1 while the circuit breaker is open; `reason`: target, kafka or registry.",
        )
        self._begin()

    def _begin(self) -> None:
        """Set every counter to 0, so that a series exists before its first event."""
        for counter in (self._planned, self._contacts):
            counter.add(0)
        for outcome in ("delivered", "refused", "gave_up", "expired"):
            self._finished.add(0, {"outcome": outcome})
        self._postponed.add(0, {"retry_topic": 1, "reason": "retry"})
        self._unusable.add(0, {"reason": "undecodable"})
        for gauge in (self._in_flight, self._uncommitted):
            gauge.set(0)
        for loop in _LOOPS:
            for reason in ("target", "kafka", "registry") if loop == "deliverer" else ("kafka", "registry"):
                self.circuit_breaker(False, loop=loop, reason=reason)

    def planned(self, callbacks: int, contacts: int) -> None:
        """Count callbacks whose plan is committed, and the contacts in them."""
        self._planned.add(callbacks)
        self._contacts.add(contacts)

    def finished(self, callbacks: int, *, outcome: str) -> None:
        """Count callbacks with a committed receipt."""
        self._finished.add(callbacks, {"outcome": str(outcome)})

    def unusable(self, records: int, *, reason: str) -> None:
        """Count records that are not a score or a callback."""
        self._unusable.add(records, {"reason": str(reason)})

    def postponed(self, callbacks: int, *, retry_topic: int, reason: str) -> None:
        """Count callbacks written to a retry topic."""
        self._postponed.add(callbacks, {"retry_topic": retry_topic, "reason": str(reason)})

    def attempt(self, duration_s: float, *, status: int | None, result: str) -> None:
        """Record one attempt: its duration, its status if there was one, and the meaning of the answer."""
        attributes: dict[str, str | int] = {"http.request.method": "POST", "result": str(result)}
        if status is not None:
            attributes["http.response.status_code"] = status
        self._duration.record(duration_s, attributes)

    def in_flight(self, requests: int) -> None:
        """Set the number of requests to the campaign manager in flight."""
        self._in_flight.set(requests)

    def waiting(self, amounts: Mapping[str, int]) -> None:
        """Set the number of waiting callbacks, by reason."""
        for reason, amount in amounts.items():
            self._waiting.set(amount, {"reason": str(reason)})

    def uncommitted(self, callbacks: int) -> None:
        """Set the number of callbacks read and not yet committed."""
        self._uncommitted.set(callbacks)

    def circuit_breaker(self, is_open: bool, *, loop: str, reason: str) -> None:
        """Set whether a loop is stopped because of ``target``, ``kafka`` or ``registry``."""
        self._breaker_open.set(int(is_open), {"loop": loop, "reason": str(reason)})

    def close(self) -> None:
        """Export buffered metrics and close the readers."""
        self._meters.close()


class PrometheusCallbackMetrics(CallbackMetrics):
    """Campaign worker metrics for Prometheus, and for OTLP if the standard variables configure it."""

    def __init__(self, *, instance: str | None = None) -> None:
        self._scrape = Scrape()
        super().__init__([self._scrape.reader, *otlp_readers()], instance=instance)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self._scrape.exposition()
