"""Choice of exporters, and connection to the collector, from the standard ``OTEL_*`` variables.

For invalid values the SDK only logs a line. Here they raise an error, which never shows the headers: they hold the
collector's token.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from stream_scorer.core.text import truncated
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DEFAULT_ENDPOINT: Final = "http://localhost:4318"
_SPOKEN: Final = "http/protobuf"
_MAX_CHARACTERS: Final = 41
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_PREFERENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("cumulative", "delta", "lowmemory"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": (
        "explicit_bucket_histogram",
        "base2_exponential_bucket_histogram",
    ),
}


class Signal(NamedTuple):
    """Signal that can be exported; ``name`` as in the variables, ``exporters`` as supported here."""

    name: str
    exporters: tuple[str, ...]


TRACES: Final = Signal("TRACES", ("otlp", "console"))
METRICS: Final = Signal("METRICS", ("otlp", "prometheus"))


def chosen_exporters(environ: Mapping[str, str], signal: Signal) -> frozenset[str]:
    """Return the chosen exporters; empty: the signal is off.

    ``OTEL_<signal>_EXPORTER`` chooses; without it, an OTLP endpoint is enough. ``OTEL_SDK_DISABLED`` turns all off.

    Raises:
        SettingsError: an exporter or protocol is not supported, an endpoint is not a URL, headers are malformed, or the
            SDK would replace a value by its default; the message names the variable.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return frozenset()
    variable = f"OTEL_{signal.name}_EXPORTER"
    chosen = {name.strip().lower() for name in environ.get(variable, "").split(",") if name.strip()}
    if not chosen:
        chosen = {"otlp"} if any(environ.get(name) for name in _of(signal, "ENDPOINT")) else {"none"}
    unknown = chosen - {*signal.exporters, "none"}
    if unknown:
        raise SettingsError(
            f"{variable}: {excerpt(', '.join(sorted(unknown)))} is unknown; use {', '.join(signal.exporters)} or none"
        )
    if "otlp" in chosen:
        _check_protocol(environ, signal)
        _check_collector(environ, signal)
        _check_transfer(environ, signal)
    return frozenset(chosen - {"none"})


def excerpt(value: str) -> str:
    """Return a value for an error line: its first characters, with non-printable ones escaped."""
    short = truncated(value, _MAX_CHARACTERS)
    return short if short.isprintable() else ascii(short)


def collector_endpoint(environ: Mapping[str, str], signal: Signal) -> str:
    """Return the URL of the collector; the SDK's default without a variable."""
    return next((environ[name].strip() for name in _of(signal, "ENDPOINT") if environ.get(name)), _DEFAULT_ENDPOINT)


def collector_files(environ: Mapping[str, str], signal: Signal) -> dict[str, str]:
    """Return the variables that name the files of the connection to a collector, by kind, such as ``CLIENT_KEY``."""
    if not collector_endpoint(environ, signal).lower().startswith("https:"):
        return {}
    kinds = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
    names = {kind: next((name for name in _of(signal, kind) if environ.get(name)), None) for kind in kinds}
    return {kind: name for kind, name in names.items() if name is not None}


def _of(signal: Signal, what: str) -> tuple[str, str]:
    """Return the variables of a collector's setting, by precedence."""
    return f"OTEL_EXPORTER_OTLP_{signal.name}_{what}", f"OTEL_EXPORTER_OTLP_{what}"


def _check_protocol(environ: Mapping[str, str], signal: Signal) -> None:
    name = next((name for name in _of(signal, "PROTOCOL") if environ.get(name)), None)
    if name is not None and environ[name].strip().lower() != _SPOKEN:
        raise SettingsError(
            f"{name}: {excerpt(environ[name])} is not supported here; set it to {_SPOKEN}"
            " (the collector's port is usually 4318)"
        )


def _check_collector(environ: Mapping[str, str], signal: Signal) -> None:
    """Check endpoint and headers; errors never show their values."""
    for name in _of(signal, "ENDPOINT"):
        if environ.get(name) and not _is_url(environ[name].strip()):
            raise SettingsError(f"{name}: is no URL; write http:// or https://, host and port")
    for name in _of(signal, "HEADERS"):
        for header in filter(None, map(str.strip, environ.get(name, "").split(","))):
            key, equals, value = header.partition("=")
            if not equals or not _NAME.fullmatch(unquote(key).strip()) or not unquote(value).strip().isprintable():
                raise SettingsError(f"{name}: is no list of headers; write name=value, with commas between")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_place = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    return is_place and parts.scheme.lower() in ("http", "https") and text.isprintable() and " " not in text


def _check_transfer(environ: Mapping[str, str], signal: Signal) -> None:
    """Check values that the SDK would replace by its default with a log line."""
    for name in _of(signal, "COMPRESSION"):
        one_of(environ, name, _COMPRESSIONS)
    for name in _of(signal, "TIMEOUT"):
        value = environ.get(name, "").strip()
        if value and not _is_seconds(value):
            raise SettingsError(f"{name}: {excerpt(value)} is not valid; use a number of seconds, more than 0")
    if signal is METRICS:
        for name, known in _PREFERENCES.items():
            one_of(environ, name, known)


def one_of(environ: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    """Return the value of a variable in lower case; the first of ``known`` if it is not set.

    Raises:
        SettingsError: the value is not in ``known``.
    """
    value = environ.get(name, "").strip()
    if value and value.lower() not in known:
        raise SettingsError(f"{name}: {excerpt(value)} is unknown; use one of {', '.join(known)}")
    return value.lower() or known[0]


def _is_seconds(value: str) -> bool:
    try:
        seconds = float(value)
    except ValueError:
        return False
    return seconds > 0 and math.isfinite(seconds)
