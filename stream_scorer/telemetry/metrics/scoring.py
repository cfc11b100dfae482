"""Metrics of the scoring worker. Every method takes a sum or a state; none is called once a contact.

Reasons arrive as members of an enum and are converted to plain strings. For the SDK the two differ, which would give
two series of the same name and labels, of which Prometheus keeps the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from stream_scorer.core.records import Reason, ReviewReason
from stream_scorer.telemetry.exporters import Meters, Scrape, otlp_readers
from stream_scorer.telemetry.metrics.kafka import SECONDS, MessagingMetrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader

_FILL: Final = (1, 5, 10, 25, 50, 100, 200, 400, 600, 800, 999)
# The values of `scoring.circuit_breaker.OpenReason` and `scoring.wait_reasons.WaitReason`, which telemetry must not
# import. A test compares them.
_OPEN_REASONS: Final = ("api", "quota", "spend_limit", "kafka", "registry")
_WAIT_REASONS: Final = (
    *("circuit_open", "retry_after", "server_quota", "own_quota", "spend_limit"),
    *("concurrency_limit", "partial_batch", "backoff", "worker_busy"),
)
# Of `scoring.retry_delays_s`; the reason of a deferred contact is the level of its retry topic.
_MOST_RETRY_LEVELS: Final = 9


class Metrics(MessagingMetrics):
    """Instruments of the scoring worker.

    Args:
        readers: export the metrics; empty: they are not exported, as in most tests.
        api_url: URL of the scoring API, for ``server.address`` and ``server.port``.
        instance: the resource's ``service.instance.id``.
    """

    def __init__(self, readers: Sequence[MetricReader] = (), *, api_url: str = "", instance: str | None = None) -> None:
        self._meters = Meters("stream-scorer", "stream_scorer", readers, instance)
        meter = self._meters.meter
        super().__init__(meter)
        self._server = _server(api_url)
        self._create_contact_instruments(meter)
        self._create_request_instruments(meter)
        self._create_breaker_instruments(meter)
        self._begin()

    def _create_contact_instruments(self, meter: Meter) -> None:
        self._contacts = meter.create_counter(
            "stream_scorer.contacts",
            "{contact}",
            "Contacts with a committed outcome: scored, review, rejected or deferred.",
        )
        self._retried = meter.create_counter(
            "stream_scorer.contacts.retried",
            "{contact}",
            "Contacts sent again: unanswered, or their response was lost.",
        )
        self._unmatched_results = meter.create_counter(
            "stream_scorer.results.unmatched", "{result}", "Results whose contact was not in the request; ignored."
        )
        self._controls = meter.create_counter(
            "stream_scorer.controls", "{contact}", "Scored contacts sent again as controls."
        )
        self._over_limit = meter.create_counter(
            "stream_scorer.refusals.over_limit",
            "{contact}",
            "Contacts over the limit of rejections, by their cause; `outcome`: rejected or held.",
        )
        self._chain = meter.create_gauge(
            "stream_scorer.audit.chain.length", "{event}", "Audit events in this worker's present hash chain."
        )
        self._uncommitted = meter.create_gauge(
            "stream_scorer.contacts.uncommitted", "{contact}", "Contacts read and not yet committed."
        )

    def _create_request_instruments(self, meter: Meter) -> None:
        self._request_duration = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of requests to the scoring API, each attempt on its own.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._batch_fill = meter.create_histogram(
            "stream_scorer.request.batch_size",
            "{contact}",
            "Contacts in a request at its first attempt.",
            explicit_bucket_boundaries_advisory=_FILL,
        )
        self._in_flight = meter.create_gauge(
            "stream_scorer.requests.in_flight", "{request}", "Requests at the API now."
        )
        self._quota_remaining = meter.create_gauge(
            "stream_scorer.quota.remaining", "{request}", "Requests that the quota still allows in this window."
        )
        self._quota_allowed = meter.create_gauge(
            "stream_scorer.quota.allowed",
            "{request}",
            "Requests a minute: the configured limit or the API's, the lower one.",
        )
        self._quota_exhaustion = meter.create_gauge(
            "stream_scorer.quota.time_to_exhaustion",
            "s",
            "Until the quota is used up at the rate of the last 10 s; 60 if its window ends before that.",
        )
        self._quota_wait = meter.create_gauge(
            "stream_scorer.quota.wait", "s", "Until the quota allows the next request; 0 while it does."
        )
        self._wait_time = meter.create_counter(
            "stream_scorer.requests.wait_time", "s", "Time in which a due request waited, by `reason`."
        )

    def _create_breaker_instruments(self, meter: Meter) -> None:
        self._breaker_open = meter.create_gauge(
            "stream_scorer.circuit_breaker.open", "1", "1 while the circuit breaker is open or throttled, by `reason`."
        )
        self._breaker_open_time = meter.create_gauge(
            "stream_scorer.circuit_breaker.open_time",
            "s",
            "Time since the circuit breaker left the closed state; 0 while closed.",
        )
        self._breaker_next_probe = meter.create_gauge(
            "stream_scorer.circuit_breaker.next_probe",
            "s",
            "Until the next half-open probe; while throttled, until the next request.",
        )
        self._probes = meter.create_counter(
            "stream_scorer.circuit_breaker.probes", "{probe}", "Half-open probes; `outcome`: recovered or failed."
        )
        self._version_breakers = meter.create_gauge(
            "stream_scorer.circuit_breaker.versions", "{version}", "Model versions whose circuit breaker alone is open."
        )

    def _begin(self) -> None:
        """Set every counter to 0, so that a series exists before its first event."""
        # For every reason: a burst of rejections that ends before the next scrape would not appear as an increase.
        self.contacts(0, outcome="scored")
        for outcome, reasons in (("review", ReviewReason), ("rejected", Reason)):
            for reason in reasons:
                self.contacts(0, outcome=outcome, reason=reason)
        for level in range(1, _MOST_RETRY_LEVELS + 1):
            self.contacts(0, outcome="deferred", reason=str(level))
        for counter in (self._retried, self._unmatched_results, self._controls):
            counter.add(0)
        for outcome in ("recovered", "failed"):
            self._probes.add(0, {"outcome": outcome})
        for wait_reason in _WAIT_REASONS:
            self._wait_time.add(0, {"reason": wait_reason})
        for open_reason in _OPEN_REASONS:
            self.breaker_closed(open_reason)
        for gauge in (self._in_flight, self._uncommitted, self._chain, self._version_breakers):
            gauge.set(0)

    def contacts(self, amount: int, *, outcome: str, reason: str = "") -> None:
        """Count contacts with a committed outcome; ``outcome``: scored, review, rejected or deferred."""
        self._contacts.add(amount, {"outcome": outcome, "reason": str(reason)})

    def retried(self, amount: int) -> None:
        """Count contacts that are sent again, and billed again."""
        self._retried.add(amount)

    def unmatched_results(self, amount: int) -> None:
        """Count results whose contact was not in the request."""
        self._unmatched_results.add(amount)

    def control(self) -> None:
        """Count a scored contact that was sent again as a control."""
        self._controls.add(1)

    def refused_over_limit(self, *, reason: str, status: str, model_version: str, outcome: str) -> None:
        """Count a contact over the limit of rejections; ``outcome``: ``rejected`` or ``held``."""
        attributes = {"reason": reason, "status": status, "model_version": model_version, "outcome": outcome}
        self._over_limit.add(1, attributes)

    def version_breakers(self, opened: int) -> None:
        """Set the number of model versions whose circuit breaker alone is open."""
        self._version_breakers.set(opened)

    def http_request(self, duration_s: float, *, status: int | None = None, error: str | None = None) -> None:
        """Record one attempt at the scoring API: its duration, its status if there was one, the kind of failure."""
        attributes: dict[str, str | int] = {"http.request.method": "POST", **self._server}
        if status is not None:
            attributes["http.response.status_code"] = status
        if error is not None:
            attributes["error.type"] = error
        self._request_duration.record(duration_s, attributes)

    def breaker_open(self, reason: str, *, open_s: float, next_probe_s: float) -> None:
        """Set the open state for a reason, with seconds since its start and seconds until its next probe."""
        self._set_breaker(reason, is_open=1, open_s=open_s, next_probe_s=next_probe_s)

    def breaker_closed(self, reason: str) -> None:
        """Clear the open state for a reason."""
        self._set_breaker(reason, is_open=0, open_s=0.0, next_probe_s=0.0)

    def _set_breaker(self, reason: str, *, is_open: int, open_s: float, next_probe_s: float) -> None:
        labels = {"reason": str(reason)}
        self._breaker_open.set(is_open, labels)
        self._breaker_open_time.set(open_s, labels)
        self._breaker_next_probe.set(next_probe_s, labels)

    def probe(self, *, outcome: str) -> None:
        """Count a half-open probe; ``outcome``: ``recovered`` or ``failed``."""
        self._probes.add(1, {"outcome": outcome})

    def batch(self, contacts: int) -> None:
        """Record the number of contacts of a request at its first attempt."""
        self._batch_fill.record(contacts)

    def chain(self, length: int) -> None:
        """Set the number of audit events in the present hash chain."""
        self._chain.set(length)

    def waited(self, seconds: float, *, reason: str) -> None:
        """Add the time in which a due request waited (`stream_scorer.scoring.wait_reasons`)."""
        self._wait_time.add(seconds, {"reason": str(reason)})

    def in_flight(self, requests: int) -> None:
        """Set the number of requests to the API in flight."""
        self._in_flight.set(requests)

    def uncommitted(self, contacts: int) -> None:
        """Set the number of contacts read and not yet committed."""
        self._uncommitted.set(contacts)

    def quota(self, *, remaining: int, allowed: int, wait_s: float, exhausted_in_s: float) -> None:
        """Set the state of the quota (`stream_scorer.genesys.quota`)."""
        self._quota_remaining.set(remaining)
        self._quota_allowed.set(allowed)
        self._quota_wait.set(wait_s)
        self._quota_exhaustion.set(exhausted_in_s)

    def close(self) -> None:
        """Export buffered metrics and close the readers."""
        self._meters.close()


class PrometheusMetrics(Metrics):
    """Scoring worker metrics for Prometheus, and for OTLP if the standard variables configure it."""

    def __init__(self, *, api_url: str = "", instance: str | None = None) -> None:
        self._scrape = Scrape()
        super().__init__([self._scrape.reader, *otlp_readers()], api_url=api_url, instance=instance)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self._scrape.exposition()


def _server(url: str) -> dict[str, str | int]:
    parts = urlsplit(url)
    if parts.hostname is None:
        return {}
    return {"server.address": parts.hostname, "server.port": parts.port or (443 if parts.scheme == "https" else 80)}
