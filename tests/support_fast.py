"""The whole stack in fast motion: real Kafka, real HTTP, the real service, and clocks that run several times as fast.

Worker and simulator share the clock, so a minute of quota takes a few seconds and everything that is measured in it
stays as it is: the API's window and its headers in whole seconds, the worker's own count, its ceiling, its probes. Only
what the machine itself takes, latency above all, looks longer by the same factor. Time-outs of Kafka and HTTP stay
real.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from scoring_harness import ScoringHarness

from stream_scorer.genesys.wire import build_body
from stream_scorer.local.simulator import SimulatorConfig, ThreadedSimulator
from stream_scorer.settings import load_settings
from stream_scorer.wiring import scoring as wiring

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest
    from scoring_harness import Input

SPEED = 10.0
_WITHOUT_CONTACTS = len(build_body((), None))


def fast_monotonic() -> float:
    return time.monotonic() * SPEED


class Arrival(NamedTuple):
    """A score request that reached the API, in seconds of the fast clock; ``retry_after_s`` is that of its 429."""

    at: float
    token: bytes
    retry_after_s: float | None


class FastWorker:
    """The service in a thread of this process."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.service = wiring.ScoringService(load_settings(environ=settings))
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.service.run()
        except BaseException as error:  # noqa: BLE001 - it is raised again where the test can see it
            self.failure = error

    def why_not_ready(self) -> str:
        return self.service.observe.readiness_failure() or ""

    def metrics(self) -> dict[str, float]:
        """By name and its own labels, e.g. ``stream_scorer_circuit_breaker_open{reason="quota"}``."""
        found = {}
        for line in self.service.metrics.exposition()[1].decode().splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                bare, _, labels = name.partition("{")
                own = [label for label in labels.rstrip("}").split(",") if label and not label.startswith("otel_")]
                found[f"{bare}{{{','.join(own)}}}" if own else bare] = float(value)
        return found

    def stop(self) -> None:
        self.service.stop()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the worker does not stop"
        if self.failure is not None:
            raise self.failure


class FastHarness(ScoringHarness):
    """Topics, a group, a simulator that records the arrival of each request, and workers. A context manager.

    Args:
        bootstrap_servers: the broker.
        quota: of the API, in requests a minute.
        counts_requests: whether the headers of a response have the true count of requests; else it is always 0.
        options: see `ScoringHarness`.
    """

    def __init__(self, bootstrap_servers: str, *, quota: int, counts_requests: bool = True, **options: Any) -> None:
        super().__init__(bootstrap_servers, **options)
        self.simulator = ThreadedSimulator(SimulatorConfig(quota=quota)).start()
        self.arrivals: list[Arrival] = []
        self.workers: list[FastWorker] = []
        self.produced = 0
        assert self.simulator._server is not None
        api = self.simulator._server.api
        api._clock = fast_monotonic
        if not counts_requests:
            reading = api._quota_reading
            api._quota_reading = lambda: (0, *reading()[1:])  # type: ignore[method-assign]
        admit = api.admit

        def admit_and_note(headers: Any, context_id: str) -> Any:
            refusal = admit(headers, context_id)
            if int(headers[b"content-length"]) == _WITHOUT_CONTACTS:  # the check of the model at start
                return refusal
            retry_after = None if refusal is None else dict(refusal.headers).get("Retry-After")
            self.arrivals.append(
                Arrival(
                    fast_monotonic(), headers[b"authorization"], None if retry_after is None else float(retry_after)
                )
            )
            return refusal

        api.admit = admit_and_note  # type: ignore[method-assign]

    def produce(self, inputs: Iterable[Input]) -> int:
        number = super().produce(inputs)
        self.produced += number
        return number

    def start(self, **changes: str) -> FastWorker:
        """Start a worker; settings as for `WorkerHarness.start`. Its times are in seconds of the fast clock."""
        settings = {
            **self.settings(),
            **self.simulator.environment(),
            "STREAM_SCORER_ADMIN__PORT": "0",
            "STREAM_SCORER_SCORING__COMMIT_INTERVAL_MS": "2000",
            "STREAM_SCORER_SCORING__LINGER_MS": "1000",
            "STREAM_SCORER_SCORING__SHUTDOWN_TIMEOUT_S": "250",
            **{f"STREAM_SCORER_{key.upper()}": value for key, value in changes.items()},
        }
        self.workers.append(FastWorker(settings))
        return self.workers[-1]

    def is_shared(self) -> bool:
        """Return whether every worker owns its equal share of the partitions."""
        owned = [worker.metrics().get("stream_scorer_partitions_owned", 0.0) for worker in self.workers]
        return owned == [self.partitions / len(self.workers)] * len(self.workers)

    def is_done(self) -> bool:
        """Return whether all produced records are committed."""
        for worker in self.workers:
            if worker.failure is not None:
                raise worker.failure
        watch = self.watch()
        try:
            return watch.done() >= self.produced
        finally:
            watch.close()

    def share_used(self, quota: int, minutes: int) -> float:
        """The share of a quota of so many requests a minute that was used from the first request on.

        That is the time that the requests of so many minutes should have taken by the time that they took.
        """
        taken = [arrival.at for arrival in self.arrivals if arrival.retry_after_s is None]
        return 60.0 * minutes / (taken[quota * minutes] - taken[0])

    @property
    def refused(self) -> list[Arrival]:
        """Return the requests that got a 429."""
        return [arrival for arrival in self.arrivals if arrival.retry_after_s is not None]

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.service.stop()
        while self.workers:
            self.workers.pop().stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_workers()
        self.simulator.stop()


def run_clocks_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every service that is built from now on in fast motion."""
    real = wiring.system_clock()
    monkeypatch.setattr(wiring, "system_clock", lambda: replace(real, monotonic=fast_monotonic))
