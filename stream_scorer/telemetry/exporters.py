"""Meter provider, and export of metrics by OTLP if the environment configures it.

An unreachable collector costs one log line a minute: its exporter runs in a thread of its own, and the service's
shutdown does not wait for it (`telemetry.collectors`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from stream_scorer import __version__
from stream_scorer.telemetry.collectors import close_within_limit, rate_limit_logs
from stream_scorer.telemetry.otel_components import check_installed_exporter, check_installed_sdk
from stream_scorer.telemetry.otel_env import metric_values
from stream_scorer.telemetry.otlp_env import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader

_EXPORTER_LOGS: Final = (
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.sdk.metrics._internal.export",
)


def otlp_readers(environ: Mapping[str, str] | None = None) -> list[MetricReader]:
    """Return the readers that export metrics by OTLP/HTTP as the ``OTEL_*`` variables configure; empty if off.

    Raises:
        SettingsError: as `stream_scorer.telemetry.otel_env.metric_values`.
    """
    values = metric_values(os.environ if environ is None else environ)
    if values is None:
        return []
    check_installed_exporter(os.environ if environ is None else environ, METRICS)
    # Imported here, since a service without OTLP does not need it.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    rate_limit_logs(_EXPORTER_LOGS)
    return [PeriodicExportingMetricReader(OTLPMetricExporter(), values.interval_ms, values.timeout_ms)]


class Meters:
    """Meter provider of one service.

    Args:
        service: the resource's ``service.name``, unless ``OTEL_SERVICE_NAME`` or ``OTEL_RESOURCE_ATTRIBUTES`` set it.
        scope: the meter's name.
        readers: export the metrics; empty: they are not exported.
        instance: the resource's ``service.instance.id``, which distinguishes the counters of two workers.

    Raises:
        SettingsError: as `stream_scorer.telemetry.otel_env.check_sdk`.
    """

    def __init__(
        self, service: str, scope: str, readers: Sequence[MetricReader] = (), instance: str | None = None
    ) -> None:
        check_installed_sdk(os.environ)
        named = {"service.name": service, "service.version": __version__}
        if instance is not None:
            named["service.instance.id"] = instance
        resource = Resource(named).merge(OTELResourceDetector().detect())
        self._provider = MeterProvider(
            metric_readers=readers,
            resource=resource,
            # The exporter for Prometheus writes no exemplars, and the loops measure outside of any span. Passed
            # explicitly: the SDK raises an error if its variable is empty, which must mean that it is not set.
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self.meter: Meter = self._provider.get_meter(scope, __version__)

    def close(self) -> None:
        """Export buffered metrics, within `telemetry.collectors.CLOSE_S`."""
        close_within_limit(self._provider.shutdown)
