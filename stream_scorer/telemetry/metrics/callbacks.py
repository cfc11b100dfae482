"""The metrics of the campaign worker. Every method takes a sum or a state, but `attempt` and `processed`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.telemetry.exporters import Meters, Scrape, otlp_readers
from stream_scorer.telemetry.metrics.kafka import SECONDS, MessagingMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.metrics.export import MetricReader

_LOOPS: Final = ("planner", "deliverer")


class CallbackMetrics(MessagingMetrics):
    """Counters and gauges of planner and deliverer. Every method takes a sum, but `attempt` and `processed`.

    Args:
        readers: what takes the metrics out; none: they go nowhere.
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
            "stream_scorer.callbacks.invalid", "{message}", "Records set aside; `reason` says why."
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
            "Callbacks in memory that wait for a slot or a quick retry; tiers whose head is not due.",
        )
        self._uncommitted = meter.create_gauge(
            "stream_scorer.callbacks.uncommitted", "{callback}", "Callbacks read and not yet committed."
        )
        self._holding = meter.create_gauge(
            "stream_scorer.callbacks.circuit_breaker.open",
            "1",
            "1 while nothing goes on; `reason`: target, kafka or registry.",
        )
        self._begin()

    def _begin(self) -> None:
        """What has not happened yet is 0, not absent."""
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
                self.holding(False, loop=loop, reason=reason)

    def planned(self, callbacks: int, contacts: int) -> None:
        """Callbacks that are planned for good, and the contacts in them."""
        self._planned.add(callbacks)
        self._contacts.add(contacts)

    def finished(self, callbacks: int, *, outcome: str) -> None:
        """Callbacks with a committed receipt."""
        self._finished.add(callbacks, {"outcome": str(outcome)})

    def unusable(self, records: int, *, reason: str) -> None:
        """Records set aside for good."""
        self._unusable.add(records, {"reason": str(reason)})

    def postponed(self, callbacks: int, *, retry_topic: int, reason: str) -> None:
        """Callbacks written to a retry tier."""
        self._postponed.add(callbacks, {"retry_topic": retry_topic, "reason": str(reason)})

    def attempt(self, duration_s: float, *, status: int | None, result: str) -> None:
        """One attempt: its duration, its status if there was one, and what the answer meant."""
        attributes: dict[str, str | int] = {"http.request.method": "POST", "result": str(result)}
        if status is not None:
            attributes["http.response.status_code"] = status
        self._duration.record(duration_s, attributes)

    def in_flight(self, requests: int) -> None:
        """Requests at the campaign manager now."""
        self._in_flight.set(requests)

    def waiting(self, amounts: Mapping[str, int]) -> None:
        """What waits now, by reason."""
        for reason, amount in amounts.items():
            self._waiting.set(amount, {"reason": str(reason)})

    def uncommitted(self, callbacks: int) -> None:
        """Callbacks read and not yet committed."""
        self._uncommitted.set(callbacks)

    def holding(self, held: bool, *, loop: str, reason: str) -> None:
        """Whether a loop goes on with nothing: for ``target``, ``kafka`` or ``registry``."""
        self._holding.set(int(held), {"loop": loop, "reason": str(reason)})

    def close(self) -> None:
        """Give the readers a last chance and let them go."""
        self._meters.close()


class PrometheusCallbackMetrics(CallbackMetrics):
    """Metrics that can be scraped, and are sent by OTLP where the standard variables ask for it."""

    def __init__(self, *, instance: str | None = None) -> None:
        self._scrape = Scrape()
        super().__init__([self._scrape.reader, *otlp_readers()], instance=instance)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self._scrape.exposition()
