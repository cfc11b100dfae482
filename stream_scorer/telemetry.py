"""Logs and metrics: how the service is seen from outside.

Metrics are OpenTelemetry's, under its conventional names where there is one, and are read by Prometheus. Every method
of `Metrics` takes a sum: none is called once a contact.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from prometheus_client import CollectorRegistry, generate_latest

from stream_scorer import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricReader
    from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED: Final = "***"
_SECRET_WORDS: Final = re.compile(
    r"secret|password|passwd|token|authorization|credential|api_?key|private_?key", re.IGNORECASE
)
# The boundaries that the HTTP conventions advise, and two more: a scoring request may take 30 s.
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 30)


# --- logs


def configure_logging(*, json: bool | None = None, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send all logs of the process, ours and the libraries', as one line each to ``stream``.

    Args:
        json: one JSON object a line, or text for people; None: text if ``stream`` is a terminal.
        level: the least level that is written, as in `logging`.
        stream: where to; None: standard error, since standard output belongs to the results of commands.
    """
    stream = sys.stderr if stream is None else stream
    as_json = not stream.isatty() if json is None else json
    # ISO 8601, UTC; the event's own fields stay what they are.
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    # Plain tracebacks in both: structured and rich ones print local variables, and with them secrets.
    last: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if as_json
        else [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            )
        ]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # urllib3 tells of every connection that it makes anew; the client tells of those that matter.
    logging.getLogger("urllib3").setLevel(max(level, logging.ERROR))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide the values of all fields whose name says that they are secret, in nested mappings and lists too."""
    return {key: _redacted(key, value) for key, value in event.items()}


def _redacted(key: str, value: Any) -> Any:
    if _SECRET_WORDS.search(key):
        return value if value is None or isinstance(value, bool) else REDACTED
    if isinstance(value, dict):
        return {name: _redacted(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted("", item) for item in value]
    return value


# --- metrics


class Metrics:
    """The service's counters and gauges.

    Args:
        readers: what takes the metrics out; none: they go nowhere, which is what the library and most tests want.
    """

    def __init__(self, readers: Sequence[MetricReader] = ()) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over the name given here.
        named = Resource({"service.name": "stream-scorer", "service.version": __version__})
        resource = named.merge(OTELResourceDetector().detect())
        self._provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("stream_scorer", __version__)
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Records read from the features topic."
        )
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Records written to Kafka.")
        self._request_duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of requests to the scoring API, each attempt on its own.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._contacts = meter.create_counter(
            "stream_scorer.contacts", "{contact}", "Contacts with a committed outcome: scored, review or rejected."
        )
        self._reasked = meter.create_counter(
            "stream_scorer.contacts.reasked",
            "{contact}",
            "Contacts asked about again: unanswered, or their answer lost.",
        )
        self._unknown_results = meter.create_counter(
            "stream_scorer.results.unknown", "{result}", "Results about contacts that nobody asked about; ignored."
        )
        self._transactions = meter.create_counter("stream_scorer.transactions", "{transaction}", "Kafka transactions.")
        self._in_flight = meter.create_gauge(
            "stream_scorer.requests.in_flight", "{request}", "Requests at the API now."
        )
        self._uncommitted = meter.create_gauge(
            "stream_scorer.contacts.uncommitted", "{contact}", "Contacts read and not yet committed."
        )
        self._quota_remaining = meter.create_gauge(
            "stream_scorer.quota.remaining", "{request}", "Requests that the quota still allows in this window."
        )
        self._quota_allowed = meter.create_gauge(
            "stream_scorer.quota.allowed", "{request}", "Requests a minute: our own limit or the API's, the lower one."
        )
        self._quota_exhaustion = meter.create_gauge(
            "stream_scorer.quota.time_to_exhaustion",
            "s",
            "Until the quota is used up at the pace of the last 10 s; a minute where it is not before it starts anew.",
        )
        self._quota_wait = meter.create_gauge(
            "stream_scorer.quota.wait", "s", "Until the quota allows the next request; 0 while it does."
        )
        self._waited = meter.create_counter(
            "stream_scorer.requests.waited", "s", "Time in which a request was kept back; `reason` says by what."
        )
        self._holding = meter.create_gauge("stream_scorer.holding", "1", "1 while nothing is asked; `reason` says why.")
        self._holding_duration = meter.create_gauge(
            "stream_scorer.holding.duration", "s", "Since the present hold began; 0 without one."
        )
        self._holding_next_probe = meter.create_gauge(
            "stream_scorer.holding.next_probe", "s", "Until the next probe, or the next request, is due in this hold."
        )
        self._probes = meter.create_counter(
            "stream_scorer.probes", "{probe}", "Probes answered in holds; `outcome`: recovered or failed."
        )

    def consumed(self, records: int) -> None:
        """Records read from the features topic."""
        self._consumed.add(records, {"messaging.system": "kafka", "messaging.operation.name": "poll"})

    def sent(self, records: int) -> None:
        """Records written in transactions that committed."""
        self._sent.add(records, {"messaging.system": "kafka", "messaging.operation.name": "send"})

    def contacts(self, amount: int, *, outcome: str, reason: str = "") -> None:
        """Contacts whose outcome is committed; ``outcome``: scored, review or rejected."""
        attributes = {"outcome": outcome, "reason": reason} if reason else {"outcome": outcome}
        self._contacts.add(amount, attributes)

    def reasked(self, amount: int) -> None:
        """Contacts that are asked about again, and paid for again."""
        self._reasked.add(amount)

    def unknown_results(self, amount: int) -> None:
        """Results about contacts that nobody asked about."""
        self._unknown_results.add(amount)

    def http_request(self, duration_s: float, *, status: int | None = None, error: str | None = None) -> None:
        """One attempt against the scoring API: its duration, its status if there was one, what kind of failure."""
        attributes: dict[str, str | int] = {"http.request.method": "POST"}
        if status is not None:
            attributes["http.response.status_code"] = status
        if error is not None:
            attributes["error.type"] = error
        self._request_duration.record(duration_s, attributes)

    def transaction(self, *, outcome: str) -> None:
        """One transaction: ``committed``, ``refused`` (a record, by the broker) or ``failed``."""
        self._transactions.add(1, {"outcome": outcome})

    def holding(self, cause: str, *, for_s: float, next_probe_s: float) -> None:
        """How a hold of this cause stands: seconds since it began, seconds until its next probe."""
        self._hold(cause, holding=1, for_s=for_s, next_probe_s=next_probe_s)

    def holding_ended(self, cause: str) -> None:
        """No hold of this cause any more."""
        self._hold(cause, holding=0, for_s=0.0, next_probe_s=0.0)

    def _hold(self, cause: str, *, holding: int, for_s: float, next_probe_s: float) -> None:
        labels = {"reason": cause}
        self._holding.set(holding, labels)
        self._holding_duration.set(for_s, labels)
        self._holding_next_probe.set(next_probe_s, labels)

    def probe(self, *, outcome: str) -> None:
        """A probe came to this: ``recovered`` or ``failed``."""
        self._probes.add(1, {"outcome": outcome})

    def waited(self, seconds: float, *, reason: str) -> None:
        """So long a request was kept back for this reason (`stream_scorer.scoring.waiting`)."""
        self._waited.add(seconds, {"reason": reason})

    def in_flight(self, requests: int) -> None:
        """Requests at the API now."""
        self._in_flight.set(requests)

    def uncommitted(self, contacts: int) -> None:
        """Contacts read and not yet committed."""
        self._uncommitted.set(contacts)

    def quota(self, *, remaining: int, allowed: int, wait_s: float, exhausted_in_s: float) -> None:
        """How the quota stands (`stream_scorer.genesys.quota`)."""
        self._quota_remaining.set(remaining)
        self._quota_allowed.set(allowed)
        self._quota_wait.set(wait_s)
        self._quota_exhaustion.set(exhausted_in_s)

    def close(self) -> None:
        """Give the readers a last chance and let them go."""
        self._provider.shutdown()


class PrometheusMetrics(Metrics):
    """Metrics that can be scraped, in a registry of their own: two services in one process do not mix."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        super().__init__([PrometheusMetricReader(registry=self._registry)])

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
