"""State of the demo's scoring workers, from the metrics on their admin ports."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

import requests
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_ANSWER_S: Final = 2.0
_NOT_THERE_YET: Final = "starting"
_API: Final = "api"


@dataclass(frozen=True, slots=True)
class WorkerState:
    """State of one worker, or of several together, at one moment.

    Attributes:
        owned: partitions of the features topic that are assigned to it.
        read: records consumed.
        in_flight: requests to the API in flight.
        uncommitted: contacts read and not yet committed.
        sent: contacts in requests at their first attempt.
        controls: scored contacts sent again as controls.
        is_open: whether the circuit breaker is open: of the API, or of a model version alone while another is in use.
        probes_failed: half-open probes without a result.
        probes_recovered: half-open probes with a result.
        quota_remaining: requests that the quota still allows in this minute; None: not known yet.
        trouble: reason why the worker is not ready; empty: it is ready.
    """

    owned: int = 0
    read: int = 0
    in_flight: int = 0
    uncommitted: int = 0
    sent: int = 0
    controls: int = 0
    is_open: bool = False
    probes_failed: int = 0
    probes_recovered: int = 0
    quota_remaining: int | None = None
    trouble: str = _NOT_THERE_YET

    def __add__(self, other: WorkerState) -> WorkerState:
        quotas = [one.quota_remaining for one in (self, other) if one.quota_remaining is not None]
        return WorkerState(
            owned=self.owned + other.owned,
            read=self.read + other.read,
            in_flight=self.in_flight + other.in_flight,
            uncommitted=self.uncommitted + other.uncommitted,
            sent=self.sent + other.sent,
            controls=self.controls + other.controls,
            is_open=self.is_open or other.is_open,
            probes_failed=self.probes_failed + other.probes_failed,
            probes_recovered=self.probes_recovered + other.probes_recovered,
            quota_remaining=min(quotas, default=None),
            trouble=self.trouble or other.trouble,
        )

    def as_ended(self) -> WorkerState:
        """Return what remains of a worker that was killed: its counters."""
        return replace(self, owned=0, in_flight=0, uncommitted=0, is_open=False, quota_remaining=None, trouble="")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the whole demo at one moment.

    Attributes:
        workers: all scoring workers together.
        outcomes: contacts with a committed outcome: ``scored``, ``review``, ``rejected``.
        called: contacts that the dialler has called, or that the campaign manager has received.
        queued: contacts that wait in the dial queue; None: there is no dialler.
    """

    workers: WorkerState = field(default_factory=WorkerState)
    outcomes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    called: int = 0
    queued: int | None = None

    @property
    def settled(self) -> int:
        """Number of contacts with a committed outcome."""
        return sum(self.outcomes.values())


def together(states: Mapping[str, WorkerState]) -> WorkerState:
    """Return the sum of all workers."""
    first, *others = states.values()
    return sum(others, start=first)


def read_metrics(text: str, trouble: str) -> WorkerState:
    """Return the state of a ``/metrics`` scrape; absent series count as 0."""
    sums: Counter[str] = Counter()
    probes: Counter[str] = Counter()
    is_open = False
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] += int(sample.value)
            if sample.name == "stream_scorer_circuit_breaker_probes_total":
                probes[sample.labels["outcome"]] += int(sample.value)
            if sample.name == "stream_scorer_circuit_breaker_open" and sample.labels["reason"] == _API:
                is_open = bool(sample.value)
    return WorkerState(
        owned=sums["stream_scorer_partitions_owned"],
        read=sums["messaging_client_consumed_messages_total"],
        in_flight=sums["stream_scorer_requests_in_flight"],
        uncommitted=sums["stream_scorer_contacts_uncommitted"],
        sent=sums["stream_scorer_request_batch_size_sum"],
        controls=sums["stream_scorer_controls_total"],
        is_open=is_open or sums["stream_scorer_circuit_breaker_versions"] > 0,
        probes_failed=probes["failed"],
        probes_recovered=probes["recovered"],
        quota_remaining=sums.get("stream_scorer_quota_remaining"),
        trouble=trouble,
    )


class Monitor(AbstractContextManager["Monitor"]):
    """Reader of the workers' admin ports.

    Args:
        urls: base URL of each worker's admin port, by the worker's name.
    """

    def __init__(self, urls: Mapping[str, str]) -> None:
        self._urls = dict(urls)
        self._session = requests.Session()
        self._session.trust_env = False  # this machine is never reached by a proxy of the environment
        self._last = {name: WorkerState() for name in urls}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._session.close()

    def look(self) -> Mapping[str, WorkerState]:
        """Return the state of each worker; of one that does not answer (starting, or busy) the last one."""
        for name, url in self._urls.items():
            self._last[name] = self._read(url) or self._last[name]
        return dict(self._last)

    def forget(self, name: str) -> None:
        """Keep only the counters of a worker that was killed."""
        del self._urls[name]
        self._last[name] = self._last[name].as_ended()

    def _read(self, url: str) -> WorkerState | None:
        try:
            ready = self._session.get(f"{url}/readyz", timeout=_ANSWER_S)
            metrics = self._session.get(f"{url}/metrics", timeout=_ANSWER_S)
        except requests.RequestException:
            return None
        return read_metrics(metrics.text, "" if ready.ok else ready.text.strip())
