"""Whether traces are asked for, and where they go: the standard ``OTEL_*`` variables and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.otlp_variables import check_collector
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXPORTERS: Final = frozenset({"otlp", "console", "none"})
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN: Final = "http/protobuf"


def trace_exporters(environ: Mapping[str, str]) -> frozenset[str]:
    """Return ``otlp`` and ``console`` as they are asked for; empty: nobody wants traces.

    ``OTEL_TRACES_EXPORTER`` says which; without it, an OTLP endpoint is enough. ``OTEL_SDK_DISABLED`` ends it all.

    Raises:
        SettingsError: an exporter or a protocol that is not spoken here; names the variable.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    named = environ.get("OTEL_TRACES_EXPORTER", "")
    chosen = {name.strip().lower() for name in named.split(",") if name.strip()}
    if not chosen:
        chosen = {"otlp"} if any(environ.get(name) for name in _ENDPOINTS) else {"none"}
    if chosen - _EXPORTERS:
        raise SettingsError(
            f"OTEL_TRACES_EXPORTER: {', '.join(sorted(chosen - _EXPORTERS))} is not known here;"
            " take otlp, console or none"
        )
    if "otlp" in chosen:
        _check_protocol(environ)
        check_collector(environ, "TRACES")
    return frozenset(chosen - {"none"})


def _check_protocol(environ: Mapping[str, str]) -> None:
    name = next((name for name in _PROTOCOLS if environ.get(name)), None)
    if name is not None and environ[name].strip() != _SPOKEN:
        raise SettingsError(
            f"{name}: {environ[name]} is not spoken here; set it to {_SPOKEN} (the collector's port is usually 4318)"
        )
