"""The metrics of the campaign worker: OpenTelemetry's, read by Prometheus, as in `stream_scorer.telemetry`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from prometheus_client import CollectorRegistry, generate_latest

from stream_scorer import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.sdk.metrics.export import MetricReader

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 30)


class CampaignMetrics:
    """Counters and gauges of planner and deliverer. Every method takes a sum, but `attempt`.

    Args:
        readers: what takes the metrics out; none: they go nowhere.
    """

    def __init__(self, readers: Sequence[MetricReader] = ()) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the name given here.
        named = Resource({"service.name": "stream-scorer-callbacks", "service.version": __version__})
        resource = named.merge(OTELResourceDetector().detect())
        self._provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("stream_scorer.campaign", __version__)
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Records read; `loop` is planner or deliverer."
        )
        self._transactions = meter.create_counter("stream_scorer.transactions", "{transaction}", "Kafka transactions.")
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
            "stream_scorer.callbacks.unusable", "{message}", "Records set aside; `reason` says why."
        )
        self._postponed = meter.create_counter(
            "stream_scorer.callbacks.postponed", "{callback}", "Callbacks written to a retry tier; `reason` says why."
        )
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of attempts to deliver a callback.",
            explicit_bucket_boundaries_advisory=_SECONDS,
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
            "stream_scorer.callbacks.holding", "1", "1 while the target is switched off."
        )

    def consumed(self, records: int, *, loop: str) -> None:
        """Records read."""
        attributes = {"messaging.system": "kafka", "messaging.operation.name": "poll", "loop": loop}
        self._consumed.add(records, attributes)

    def transaction(self, *, loop: str, outcome: str) -> None:
        """One transaction: ``committed``, ``refused`` (a record, by the broker) or ``failed``."""
        self._transactions.add(1, {"loop": loop, "outcome": outcome})

    def planned(self, callbacks: int, contacts: int) -> None:
        """Callbacks that are planned for good, and the contacts in them."""
        self._planned.add(callbacks)
        self._contacts.add(contacts)

    def finished(self, callbacks: int, *, outcome: str) -> None:
        """Callbacks with a committed receipt."""
        self._finished.add(callbacks, {"outcome": outcome})

    def unusable(self, records: int, *, reason: str) -> None:
        """Records set aside for good."""
        self._unusable.add(records, {"reason": reason})

    def postponed(self, callbacks: int, *, tier: int, reason: str) -> None:
        """Callbacks written to a retry tier."""
        self._postponed.add(callbacks, {"tier": tier, "reason": reason})

    def attempt(self, duration_s: float, *, status: int | None, result: str) -> None:
        """One attempt: its duration, its status if there was one, and what the answer meant."""
        attributes: dict[str, str | int] = {"http.request.method": "POST", "result": result}
        if status is not None:
            attributes["http.response.status_code"] = status
        self._duration.record(duration_s, attributes)

    def in_flight(self, requests: int) -> None:
        """Requests at the campaign manager now."""
        self._in_flight.set(requests)

    def waiting(self, amounts: Mapping[str, int]) -> None:
        """What waits now, by reason."""
        for reason, amount in amounts.items():
            self._waiting.set(amount, {"reason": reason})

    def uncommitted(self, callbacks: int) -> None:
        """Callbacks read and not yet committed."""
        self._uncommitted.set(callbacks)

    def holding(self, held: bool) -> None:
        """Whether the target is switched off."""
        self._holding.set(int(held))

    def close(self) -> None:
        """Give the readers a last chance and let them go."""
        self._provider.shutdown()


class PrometheusCampaignMetrics(CampaignMetrics):
    """Metrics that can be scraped, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        super().__init__([PrometheusMetricReader(registry=self._registry)])

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
