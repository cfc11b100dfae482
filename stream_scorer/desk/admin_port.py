"""Status of a worker, read from its admin port: readiness, circuit breakers, quota and callbacks."""

from __future__ import annotations

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from stream_scorer.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 4 * 1024 * 1024
_AT_ONCE: Final = 16
_MAX_LINE: Final = 500
_OK: Final = 200
_UNREADY: Final = 503
# The first one that fits.
_REASONS: Final = MappingProxyType(
    {
        TimeoutError: f"none within {_TIMEOUT_S:g} s",
        ssl.SSLCertVerificationError: "its certificate is not trusted",
        ssl.SSLError: "TLS failed; does the port speak https?",
        socket.gaierror: "unknown host",
        ConnectionRefusedError: "connection refused",
        OSError: "connection failed",
    }
)
_BREAKERS: Final = ("stream_scorer_circuit_breaker_open", "stream_scorer_callbacks_circuit_breaker_open")


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Status of one worker.

    Attributes:
        url: of its admin port.
        is_ready: whether work is done; None: it does not answer.
        detail: why it is not ready, or does not answer; empty: it is ready.
        notes: what waits although it is ready, one line each.
        open_breakers: reasons whose circuit breaker is open or throttled.
        quota_used: requests in this minute; None: the worker sends none to the scoring API.
        quota_allowed: limit of requests a minute.
        callbacks: numbers of the campaign worker: ``in_flight``, ``waiting``, ``held``, ``campaigns_blocked``; None:
            this is none.
    """

    url: str
    is_ready: bool | None
    detail: str = ""
    notes: tuple[str, ...] = ()
    open_breakers: tuple[str, ...] = ()
    quota_used: int | None = None
    quota_allowed: int | None = None
    callbacks: Mapping[str, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


def read_workers(urls: Sequence[str]) -> tuple[WorkerStatus, ...]:
    """Return the status of each worker, in the order given; a worker without an answer delays no other one."""
    if not urls:
        return ()
    with ThreadPoolExecutor(min(_AT_ONCE, len(urls))) as pool:
        return tuple(pool.map(read_worker, urls))


def read_worker(url: str) -> WorkerStatus:
    """Return the status of one worker."""
    try:
        status, lines = _get(url, "/readyz")
        _, metrics = _get(url, "/metrics")
    except (OSError, HTTPException) as error:
        return WorkerStatus(url, None, f"no answer: {_reason(error)}")
    if status not in (_OK, _UNREADY):
        return WorkerStatus(url, None, f"no admin port: HTTP {status} to /readyz")
    first, *notes = [printable(line)[:_MAX_LINE] for line in lines.splitlines()] or [""]
    try:
        return _with_metrics(url, status == _OK, first, tuple(notes), metrics)
    except ValueError:
        return WorkerStatus(url, status == _OK, first if status != _OK else "", (*notes, "its /metrics are unreadable"))


def _with_metrics(url: str, is_ready: bool, first: str, notes: tuple[str, ...], metrics: str) -> WorkerStatus:
    samples = _samples(metrics)
    allowed = samples.get("stream_scorer_quota_allowed")
    remaining = samples.get("stream_scorer_quota_remaining")
    used = None if not allowed or remaining is None else max(0, int(allowed[0][1] - remaining[0][1]))
    callbacks = None
    if "stream_scorer_callbacks_in_flight" in samples:
        names = ("in_flight", "waiting", "held", "campaigns_blocked")
        callbacks = {name: _sum(samples.get(f"stream_scorer_callbacks_{name}", ())) for name in names}
    breakers = [labels for name in _BREAKERS for labels, value in samples.get(name, ()) if value]
    return WorkerStatus(
        url,
        is_ready,
        "" if is_ready else first,
        notes,
        tuple(dict.fromkeys(" ".join(filter(None, (one.get("loop"), one.get("reason")))) for one in breakers)),
        used,
        int(allowed[0][1]) if allowed else None,
        callbacks,
    )


def _samples(text: str) -> dict[str, list[tuple[Mapping[str, str], float]]]:
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _sum(samples: Iterable[tuple[Mapping[str, str], float]]) -> int:
    return int(sum(value for _, value in samples))


def _get(url: str, path: str) -> tuple[int, str]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: HTTPConnection = (
        HTTPSConnection(host, parts.port, timeout=_TIMEOUT_S, context=ssl.create_default_context())
        if parts.scheme == "https"
        else HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
    )
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Connection": "close"})
        answer: HTTPResponse = connection.getresponse()
        return answer.status, answer.read(_MAX_BYTES).decode(errors="replace")
    finally:
        connection.close()


def _reason(error: OSError | HTTPException) -> str:
    """Return the kind of a failure, without a library's text."""
    for kind, text in _REASONS.items():
        if isinstance(error, kind):
            return text
    return "this is no HTTP"
