"""Where metrics go: to whoever scrapes ``/metrics``, and by OTLP to a collector where the environment asks for it.

A collector that cannot be reached costs nothing but a log line a minute: its exporter has a thread of its own, and the
service's end does not wait for it for longer than `_CLOSE_S`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from prometheus_client import CollectorRegistry, generate_latest

from stream_scorer import __version__
from stream_scorer.core.otlp_variables import check_collector
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader

_CLOSE_S: Final = 3.0
_QUIET_S: Final = 60.0
_EXPORTERS: Final = frozenset({"otlp", "prometheus", "none"})
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN: Final = "http/protobuf"
_EXPORTER_LOGS: Final = (
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.sdk.metrics._internal.export",
)


def wants_otlp(environ: Mapping[str, str]) -> bool:
    """Whether metrics are to be sent by OTLP: ``OTEL_METRICS_EXPORTER`` says so, or without it an endpoint is given.

    Raises:
        SettingsError: an exporter or a protocol that is not spoken here; names the variable.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    named = environ.get("OTEL_METRICS_EXPORTER", "")
    chosen = {name.strip().lower() for name in named.split(",") if name.strip()}
    if chosen - _EXPORTERS:
        raise SettingsError(
            f"OTEL_METRICS_EXPORTER: {', '.join(sorted(chosen - _EXPORTERS))} is not known here;"
            " take otlp, prometheus or none"
        )
    if "otlp" not in chosen and (chosen or not any(environ.get(name) for name in _ENDPOINTS)):
        return False
    name = next((name for name in _PROTOCOLS if environ.get(name)), None)
    if name is not None and environ[name].strip() != _SPOKEN:
        raise SettingsError(
            f"{name}: {environ[name]} is not spoken here; set it to {_SPOKEN} (the collector's port is usually 4318)"
        )
    check_collector(environ, "METRICS")
    return True


def otlp_readers(environ: Mapping[str, str] | None = None) -> list[MetricReader]:
    """Return what sends metrics by OTLP/HTTP, configured by the ``OTEL_*`` variables; none where nobody asks for it.

    Raises:
        SettingsError: as `wants_otlp`.
    """
    if not wants_otlp(os.environ if environ is None else environ):
        return []
    # Here, since a service without OTLP need not load it.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    for name in _EXPORTER_LOGS:
        logging.getLogger(name).filters[:] = [OncePerMinute()]
    return [PeriodicExportingMetricReader(OTLPMetricExporter())]


class OncePerMinute(logging.Filter):
    """Lets one line a minute through: a collector that is away is no news at every attempt."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._said_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is let through; without the stack of the client library below it."""
        now = self._monotonic()
        if now - self._said_at < _QUIET_S:
            return False
        self._said_at = now
        record.exc_info = record.exc_text = None
        return True


class Meters:
    """One service's meter and what takes its metrics out.

    Args:
        service: the resource's ``service.name``, unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES`` say else.
        scope: the meter's name.
        readers: what takes the metrics out; none: they go nowhere.
    """

    def __init__(self, service: str, scope: str, readers: Sequence[MetricReader] = ()) -> None:
        named = Resource({"service.name": service, "service.version": __version__})
        resource = named.merge(OTELResourceDetector().detect())
        self._provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        self.meter: Meter = self._provider.get_meter(scope, __version__)

    def close(self) -> None:
        """Send what is left, within a few seconds: a collector that is away must not hold up an end."""
        closing = threading.Thread(target=self._provider.shutdown, name="metrics-closing", daemon=True)
        closing.start()
        closing.join(_CLOSE_S)


class Scrape:
    """What can be scraped, in a registry of its own: two services in one process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(registry=self._registry)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
