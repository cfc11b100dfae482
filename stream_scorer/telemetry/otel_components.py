"""Check of ``OTEL_*`` variables against this machine: installed components and certificate files."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from stream_scorer.http_client.environment import (
    check_authorities,
    check_client_certificate,
    check_http_environment,
)
from stream_scorer.telemetry.otel_env import check_exporter, check_sdk, metric_values, trace_values
from stream_scorer.telemetry.otlp_env import METRICS, TRACES, collector_endpoint, collector_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.telemetry.otlp_env import Signal


def check_otel_environment(environ: Mapping[str, str]) -> None:
    """Check all ``OTEL_*`` variables of a worker without loading the SDK.

    Raises:
        SettingsError: a variable cannot work; the message names it.
    """
    check_installed_sdk(environ)
    if metric_values(environ) is not None:
        check_installed_exporter(environ, METRICS)
    traces = trace_values(environ)
    if traces is not None and "otlp" in traces.exporters:
        check_installed_exporter(environ, TRACES)


def check_installed_sdk(environ: Mapping[str, str]) -> None:
    """Check the variables that the SDK reads whatever is exported.

    Raises:
        SettingsError: as `stream_scorer.telemetry.otel_env.check_sdk`.
    """
    check_sdk(environ, _installed)


def check_installed_exporter(environ: Mapping[str, str], signal: Signal) -> None:
    """Check the variables that the SDK reads for an OTLP exporter, and the files they name.

    Raises:
        SettingsError: a component is not installed, a proxy is not a URL, or a file holds no certificate or key.
    """
    check_exporter(environ, signal, _installed)
    check_http_environment([collector_endpoint(environ, signal)], environ)
    files = collector_files(environ, signal)
    if "CERTIFICATE" in files:
        check_authorities(files["CERTIFICATE"], environ[files["CERTIFICATE"]])
    check_client_certificate(files.get("CLIENT_CERTIFICATE"), files.get("CLIENT_KEY"), environ)


def _installed(group: str) -> frozenset[str]:
    return frozenset(one.name for one in entry_points(group=group))
