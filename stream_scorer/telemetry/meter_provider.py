"""OpenTelemetry instruments of a service, made from the table `stream_scorer.runtime.metric_definitions`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from stream_scorer.runtime.metric_definitions import NO_ATTRIBUTES, Counter, Gauge, Histogram, instruments_of
from stream_scorer.telemetry.exporters import Meters, otlp_readers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry import metrics

    from stream_scorer.runtime.metric_definitions import Attributes, Instrument, Service

# Name in the resource, and scope of the meter.
_NAMES: Final = {
    "run": ("stream-scorer", "stream_scorer"),
    "callbacks": ("stream-scorer-callbacks", "stream_scorer.callbacks"),
}
_OPENMETRICS: Final = "application/openmetrics-text"


class ServiceMetrics:
    """`Metrics` of a service for Prometheus, and for OTLP if the standard variables configure it.

    Args:
        service: selects the instruments.
        instance: the resource's ``service.instance.id``.
        constants: attributes that are the same for the whole process, of the instruments that have them.

    Raises:
        SettingsError: as `stream_scorer.telemetry.exporters.Meters` and `otlp_readers`.
    """

    def __init__(self, service: Service, *, instance: str | None = None, constants: Attributes = NO_ATTRIBUTES) -> None:
        # Its own, so that two services in one process do not mix.
        self._registry = CollectorRegistry()
        # Memory, processor time, start and open files of this process; Linux only.
        ProcessCollector(registry=self._registry)
        readers = [PrometheusMetricReader(registry=self._registry), *otlp_readers()]
        self._meters = Meters(*_NAMES[service], readers, instance)
        self._constants = constants
        self._counters: dict[Counter, metrics.Counter] = {}
        # By the labels of each series. The synchronous gauges of the SDK export a series for good. It keeps 2,000
        # label sets of a gauge, ended ones too; any further ones are one series without labels.
        self._gauges: dict[Gauge, dict[frozenset[tuple[str, str | int]], float]] = {}
        self._histograms: dict[Histogram, metrics.Histogram] = {}
        for one in instruments_of(service):
            self._create(one)
            for attributes in one.first_series(service):
                match one:
                    case Counter():
                        self.add(one, 0, attributes)
                    case Gauge():
                        self.set(one, 0, attributes)

    def _create(self, one: Instrument) -> None:
        meter = self._meters.meter
        match one:
            case Counter():
                self._counters[one] = meter.create_counter(one.name, one.unit, one.description)
            case Gauge():
                values = self._gauges[one] = {}
                meter.create_observable_gauge(one.name, [lambda _: _observations(values)], one.unit, one.description)
            case Histogram():
                self._histograms[one] = meter.create_histogram(
                    one.name, one.unit, one.description, explicit_bucket_boundaries_advisory=one.bounds
                )

    def add(self, counter: Counter, amount: float = 1, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Add to a counter."""
        self._counters[counter].add(amount, self._labels(counter, attributes))

    def set(self, gauge: Gauge, value: float, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Set a gauge."""
        self._gauges[gauge][frozenset(self._labels(gauge, attributes).items())] = value

    def remove(self, gauge: Gauge, attributes: Attributes) -> None:
        """End a series of a gauge."""
        self._gauges[gauge].pop(frozenset(self._labels(gauge, attributes).items()), None)

    def record(self, histogram: Histogram, value: float, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Add a value to a distribution."""
        self._histograms[histogram].record(value, self._labels(histogram, attributes))

    def _labels(self, one: Instrument, attributes: Attributes) -> Attributes:
        named = (attribute.name for attribute in one.attributes)
        constants = {name: self._constants[name] for name in named if name in self._constants}
        return constants | one.labels(attributes)

    def exposition(self, accept: str = "") -> tuple[str, bytes]:
        """Return the content type and all metrics: OpenMetrics if ``accept`` lists it, else Prometheus' text format.

        Not ``choose_encoder`` of the library: it raises an error for a version that is not a number.
        """
        if any(one.split(";")[0].strip().lower() == _OPENMETRICS for one in accept.split(",")):
            text: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return openmetrics.CONTENT_TYPE_LATEST, text
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def close(self) -> None:
        """Export buffered metrics and close the readers."""
        self._meters.close()


def _observations(values: dict[frozenset[tuple[str, str | int]], float]) -> Iterator[Observation]:
    """Yield the series of a gauge; a copy, since the service's threads change it meanwhile."""
    for labels, value in values.copy().items():
        yield Observation(value, dict(labels))


def server_attributes(url: str) -> Attributes:
    """Return ``server.address`` and ``server.port`` of a URL; none if it has no host."""
    parts = urlsplit(url)
    if parts.hostname is None:
        return {}
    return {"server.address": parts.hostname, "server.port": parts.port or (443 if parts.scheme == "https" else 80)}
