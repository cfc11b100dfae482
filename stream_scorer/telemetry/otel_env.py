"""Configuration of traces and metrics from the ``OTEL_*`` variables: sampler, queue, limits, intervals.

For an invalid value the SDK logs a line and uses its default: a typing error in the sampler's name samples every
contact. Here it raises an error. Values that OpenTelemetry's specification allows are accepted: an empty variable is
not set, and a time-out of 0 is no limit.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from stream_scorer.errors import SettingsError
from stream_scorer.telemetry.otlp_env import METRICS, TRACES, chosen_exporters, excerpt, one_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from stream_scorer.telemetry.otlp_env import Signal

# The first one is the default.
SAMPLERS: Final = (
    *("parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"),
    *("always_on", "always_off", "traceidratio"),
)
# A commit ends two spans a contact at once, and the SDK drops spans beyond its queue, 2,048 by default.
_QUEUE: Final = 65_536
_BATCH: Final = 512
_NO_LIMIT_MS: Final = 86_400_000
_LARGEST: Final = 2**31 - 1
_WHOLE: Final = re.compile(r"\+?\d{1,10}", re.ASCII)
_RATIO: Final = re.compile(r"\+?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,4})?", re.ASCII)
# Variable and entry point group of components that the SDK loads by name from installed packages.
_CONTEXT: Final = ("OTEL_PYTHON_CONTEXT", "opentelemetry_context")
_METER_PROVIDER: Final = ("OTEL_PYTHON_METER_PROVIDER", "opentelemetry_meter_provider")
_CREDENTIALS: Final = "opentelemetry_otlp_credential_provider"
_ATTRIBUTE: Final = re.compile(r"\s*[^\s=,]+\s*=.*")
_EXEMPLARS: Final = "OTEL_METRICS_EXEMPLAR_FILTER"
_NO_EXEMPLARS: Final = "always_off"
# Limits on a span's contents that the SDK reads.
_SPAN_LIMITS: Final = (
    *("OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    *("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
    *("OTEL_SPAN_EVENT_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"),
    *("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT"),
)


class Sampling(NamedTuple):
    """Sampling rule: one of `SAMPLERS`, and the share of root spans that are recorded."""

    sampler: str = SAMPLERS[0]
    ratio: float = 1.0


# Used if no variable is set.
ALL_TRACES: Final = Sampling()


class TraceValues(NamedTuple):
    """Configuration of traces.

    Attributes:
        exporters: ``otlp``, ``console`` or both.
        sampling: which traces are recorded.
        queue: maximum number of ended spans that wait for export; more are dropped.
        batch: maximum number of spans in one export.
        delay_ms: longest time that a span waits for a full batch.
    """

    exporters: frozenset[str]
    sampling: Sampling = ALL_TRACES
    queue: int = _QUEUE
    batch: int = _BATCH
    delay_ms: int = 5_000


class MetricValues(NamedTuple):
    """Configuration of OTLP metrics: interval between exports, and time-out of one collection."""

    interval_ms: int = 60_000
    timeout_ms: int = 30_000


def trace_values(environ: Mapping[str, str]) -> TraceValues | None:
    """Return the configuration of traces; None: traces are off.

    Raises:
        SettingsError: a variable has an invalid value; the message names it and the allowed values.
    """
    exporters = chosen_exporters(environ, TRACES)
    if not exporters:
        return None
    for name in _SPAN_LIMITS:
        _whole(environ, name, 0)
    _whole(environ, "OTEL_BSP_EXPORT_TIMEOUT", 0)
    queue = _whole(environ, "OTEL_BSP_MAX_QUEUE_SIZE", _QUEUE, least=1)
    batch = _whole(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", min(_BATCH, queue), least=1)
    if batch > queue:
        raise SettingsError(
            f"OTEL_BSP_MAX_EXPORT_BATCH_SIZE: {batch} is more than OTEL_BSP_MAX_QUEUE_SIZE holds, {queue}"
        )
    # The SDK's thread cannot wait for 0 ms.
    delay_ms = max(1, _whole(environ, "OTEL_BSP_SCHEDULE_DELAY", 5_000))
    return TraceValues(exporters, _sampling(environ), queue, batch, delay_ms)


def metric_values(environ: Mapping[str, str]) -> MetricValues | None:
    """Return the configuration of OTLP metrics; None: metrics are not exported by OTLP.

    Raises:
        SettingsError: as `trace_values`.
    """
    if "otlp" not in chosen_exporters(environ, METRICS):
        return None
    interval_ms = _whole(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000, least=1)
    return MetricValues(interval_ms, _whole(environ, "OTEL_METRIC_EXPORT_TIMEOUT", 30_000) or _NO_LIMIT_MS)


def check_sdk(environ: Mapping[str, str], installed: Callable[[str], Collection[str]]) -> None:
    """Check the variables that the SDK reads whatever is exported.

    Args:
        environ: the environment.
        installed: returns the names in a group of entry points.

    Raises:
        SettingsError: a component is not installed, or a value is invalid; the message names the variable.
    """
    _component(environ, *_CONTEXT, installed)
    wanted = environ.get(_EXEMPLARS, "").strip()
    if wanted and wanted.lower() != _NO_EXEMPLARS:
        raise SettingsError(
            f"{_EXEMPLARS}: {excerpt(wanted)} is not supported, since no metric is exported with exemplars;"
            f" leave the variable out, or set it to {_NO_EXEMPLARS}"
        )
    one_of(environ, "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", ("false", "true"))
    for pair in filter(str.strip, environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")):
        if not _ATTRIBUTE.fullmatch(pair):
            raise SettingsError(
                "OTEL_RESOURCE_ATTRIBUTES: is no list of attributes; write name=value, with commas between"
            )


def check_exporter(environ: Mapping[str, str], signal: Signal, installed: Callable[[str], Collection[str]]) -> None:
    """Check the variables that the SDK reads for an OTLP exporter; arguments and errors as `check_sdk`."""
    _component(environ, *_METER_PROVIDER, installed)  # for the exporter's own metrics
    for part in ("", f"{signal.name}_"):
        _component(environ, f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{part}CREDENTIAL_PROVIDER", _CREDENTIALS, installed)


def _component(environ: Mapping[str, str], name: str, group: str, installed: Callable[[str], Collection[str]]) -> None:
    value = environ.get(name, "").strip()
    if value and value not in (known := installed(group)):
        remedy = f"use one of {', '.join(sorted(known))}, or" if known else "no package here has one:"
        raise SettingsError(f"{name}: {excerpt(value)} is not installed; {remedy} leave the variable out")


def _sampling(environ: Mapping[str, str]) -> Sampling:
    sampler = one_of(environ, "OTEL_TRACES_SAMPLER", SAMPLERS)
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    # The other samplers ignore the argument.
    if not argument or not sampler.endswith("traceidratio"):
        return Sampling(sampler)
    if not _RATIO.fullmatch(argument) or not 0 <= float(argument) <= 1:
        raise SettingsError(f"OTEL_TRACES_SAMPLER_ARG: {excerpt(argument)} is not a ratio; use a number from 0 to 1")
    return Sampling(sampler, float(argument))


def _whole(environ: Mapping[str, str], name: str, default: int, *, least: int = 0) -> int:
    value = environ.get(name, "").strip()
    if not value:
        return default
    if not _WHOLE.fullmatch(value) or not least <= int(value) <= _LARGEST:
        raise SettingsError(f"{name}: {excerpt(value)} is not valid; use a whole number from {least} to {_LARGEST}")
    return int(value)
