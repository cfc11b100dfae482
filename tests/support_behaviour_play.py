"""Plays one row of the tables of contract section 5: the real worker, a real broker, the simulator over real HTTP.

Requests and bills come from the simulator's account, outcomes from the topics read with read_committed
(`output_verifier`).
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import requests
import structlog
from output_verifier import Verdict, verify_outputs
from scoring_harness import ScoringHarness, wait_until
from worker_harness import QUICK_SETTINGS, WorkerProcess

from stream_scorer.kafka.admin.topics import existing_topics
from stream_scorer.kafka.consumer.initial_offsets import read_bounds, scoring_start, write_start
from stream_scorer.local.kafka.process import free_port
from stream_scorer.settings import load_settings
from stream_scorer.wiring.scoring import ScoringService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from scoring_harness import Input
    from support_behaviour import Row

    from stream_scorer.local.simulator import Simulator

LIMIT_S: Final = 60.0


class ThreadedWorker:
    """The worker as `stream-scorer run` builds it, in a thread, with a clock that can be advanced."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        loaded = load_settings(environ=settings)
        retry_topics = existing_topics(loaded, loaded.topics.contact_retries())
        start = scoring_start(loaded, retry_topics)
        write_start(loaded, start, chosen=True)
        self.ahead_s = 0.0
        self._failure: BaseException | None = None
        self.service = ScoringService(loaded, retry_topics, read_bounds(loaded, start))
        clock = self.service._clock
        self.service._clock = replace(clock, monotonic=lambda: clock.monotonic() + self.ahead_s)
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.service.run()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the test
            self._failure = error

    @property
    def running(self) -> bool:
        """Return whether it runs; raise the error that ended it."""
        if self._failure is not None:
            raise self._failure
        return self._thread.is_alive()

    def stop(self) -> None:
        self.service.stop()
        self._thread.join(LIMIT_S)
        assert not self.running, "the worker does not end"


class Case:
    """A row that is being played, with its observations."""

    def __init__(
        self, row: Row, harness: ScoringHarness, simulator: Simulator, folder: Path, journal: list[Any]
    ) -> None:
        self.row, self.harness, self.simulator, self.folder = row, harness, simulator, folder
        self.journal = journal
        self.fed: list[Input] = []
        self.port = free_port()
        self.worker: ThreadedWorker | None = None
        self.process: WorkerProcess | None = None
        self.verdict = Verdict()
        self.stats = simulator.stats()
        self.exit_line = self.metrics = ""
        self.over = False

    # --- what a row does

    def configure(self) -> None:
        """Configure the simulator for the row: by default with enough quota and without invalid scores."""
        defaults = {"quota": 1_000_000, "narrow_share": 0.0, "inconsistent_share": 0.0}
        self.simulator.configure(**{**defaults, **self.row.api})

    def feed(self, inputs: Iterable[Input]) -> None:
        """Put records on the features topic."""
        new = list(inputs)
        self.harness.produce(new)
        self.fed += new

    def pass_time(self, seconds: float) -> None:
        """Advance the clock of the worker."""
        assert self.worker is not None
        self.worker.ahead_s += seconds

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition that needs the worker."""

        def look() -> Any:
            found = condition()
            assert found or self._works or self.over, f"the worker ended while waiting for {what}"
            return found

        return wait_until(look, lambda: f"{what}\n{self.simulator.stats()}\n{self.journal[-10:]}", LIMIT_S)

    def await_requests(self, number: int) -> None:
        """Wait until so many score requests have been answered since the start."""
        self.await_start()
        self.wait(lambda: self.score_requests().total() >= number, f"{number} requests")

    def await_committed(self, number: int) -> None:
        """Wait until so many records are committed."""
        progress = self.harness.watch()
        try:
            self.wait(lambda: progress.done() >= number, f"{number} commits")
        finally:
            progress.close()

    def await_waiting(self, number: int) -> None:
        """Wait until so many contacts wait in the retry topics, no more."""
        retries = self.harness.watch_retries()
        try:
            self.wait(lambda: retries.number() == number, f"{number} contacts in the retry topics")
        finally:
            retries.close()

    def await_holds(self, number: int) -> None:
        """Wait until the circuit breaker has opened so many times."""
        self.wait(lambda: len(self.holds) >= number, f"hold number {number}")

    def committed(self) -> Counter[int]:
        """Return the number of committed records by partition."""
        return Counter({number: commit.offset for number, commit in self.harness.commits().items()})

    def await_hold(self) -> None:
        """Wait until /readyz has the reason of the open breaker, then for a probe."""

        def reports_reason() -> bool:
            answer = self.admin("/readyz")
            is_open = answer.status_code == requests.codes.unavailable and answer.text.startswith("circuit open: ")
            return is_open and self.row.holds in answer.text

        self.wait(reports_reason, f"an open circuit breaker with {self.row.holds!r}")
        if self.simulator.running:
            seen = self._arrived()
            self.wait(lambda: self._arrived() > seen, "a probe")

    def await_start(self) -> None:
        """Wait until the API has confirmed the model, which ends the startup."""
        self.wait(lambda: any(line["event"] == "model confirmed" for line in self.journal), "the model to be confirmed")

    def await_delayed_start(self, reason: str) -> None:
        """Wait until /readyz gives this reason for a start that is delayed; the worker lives and has no partition."""

        def is_delayed() -> bool:
            answer = self.admin("/readyz")
            return answer.status_code == requests.codes.unavailable and (
                answer.text.startswith("starting: ") and reason in answer.text
            )

        self.wait(is_delayed, f"a delayed start because of {reason!r}")
        assert self.admin("/livez").status_code == requests.codes.ok
        assert not [line for line in self.journal if line["event"] == "partition assigned"]

    # --- observations

    @property
    def holds(self) -> list[str]:
        """Return the reason of every opening of the circuit breaker."""
        return [line["detail"] for line in self.journal if line["event"] in {"circuit opened", "circuit throttled"}]

    @property
    def _works(self) -> bool:
        if self.worker is not None:
            return self.worker.running
        return self.process is None or self.process.running

    def _arrived(self) -> int:
        return sum(sum(outcomes.values()) for outcomes in self.simulator.stats().requests.values())

    def score_requests(self) -> Counter[str]:
        """Finished score requests by status, without the one that confirmed the model at start."""
        stats = self.stats if self.over else self.simulator.stats()
        confirmed = Counter(str(line["status"]) for line in self.journal if line["event"] == "model confirmed")
        return Counter(stats.requests.get("score", {})) - confirmed

    def admin(self, path: str) -> requests.Response:
        """Return the response of the admin port; 503 without one."""
        try:
            return requests.get(f"http://127.0.0.1:{self.port}{path}", timeout=LIMIT_S)
        except requests.ConnectionError:
            return requests.Response()

    def settings(self) -> dict[str, str]:
        """The worker's environment. Batches are full at what is fed first, so that requests are always the same."""
        return {
            **QUICK_SETTINGS,
            **self.harness.settings(),
            **self.simulator.environment(),
            "STREAM_SCORER_ADMIN__PORT": str(self.port),
            "STREAM_SCORER_SCORING__MAX_CONTACTS": str(max(1, min(1000, len(self.row.feed)))),
            "STREAM_SCORER_GENESYS__BACKOFF_BASE_S": "0.05",
            "STREAM_SCORER_GENESYS__PROBE_INTERVAL_S": "0.2",
            **{f"STREAM_SCORER_{key.upper()}": value for key, value in self.row.settings.items()},
        }


@contextmanager
def _playing(row: Row, bootstrap_servers: str, simulator: Simulator, folder: Path) -> Iterator[Case]:
    """Set up the row; stop everything that still runs at the end."""
    harness = ScoringHarness(bootstrap_servers, partitions=row.partitions, configs=row.topics)
    simulator.start()
    simulator.reset()
    with structlog.testing.capture_logs() as journal:
        case = Case(row, harness, simulator, folder, journal)
        case.configure()
        for one in row.faults:
            simulator.add_fault(**one)
        case.feed(row.feed)
        row.prepare(case)
        try:
            yield case
        finally:
            if case.worker is not None:
                case.worker.service.stop()
            if case.process is not None and case.process.running:
                case.process.kill()


def play(row: Row, bootstrap_servers: str, simulator: Simulator, folder: Path) -> Case:
    """Play a row to its end; on return, the invariant of contract section 1 has been checked."""
    with _playing(row, bootstrap_servers, simulator, folder) as case:
        if row.stops:
            _play_to_the_end(case)
        else:
            _play_through(case)
        wait_until(lambda: simulator.stats().in_flight == 0, "the simulator to be done")
        case.stats = simulator.stats()
        case.over = True
        case.verdict = verify_outputs(
            case.harness,
            everything=row.committed is None and not row.stops,
            tutorial_features=row.tutorial_model,
            widest=row.widest,
            may_wait=bool(row.waits),
        )
        return case


def _play_through(case: Case) -> None:
    """Play a row in which the worker has to keep running."""
    row = case.row
    worker = case.worker = ThreadedWorker(case.settings())
    row.act(case)
    if row.holds:
        case.await_hold()
        row.recover(case)
    case.await_committed(len(case.fed) if row.committed is None else row.committed)
    case.await_waiting(len(row.waits))
    case.metrics = case.admin("/metrics").text
    worker.stop()
    case.over = True


def _play_to_the_end(case: Case) -> None:
    """Play a row in which the worker has to exit: a process with its exit code and its last line."""
    log = case.folder / "worker.log"
    process = case.process = WorkerProcess(case.settings(), ["--from", "earliest"], log, case.port)
    case.row.act(case)
    assert process.exit_code(LIMIT_S) == 1, process.log()
    [case.exit_line] = process.errors()
    case.journal += process.log_lines()
