"""Several requests at once: order, quota, failures and Ctrl-C, against the simulator and raw answers; progress; log."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, results

from stream_scorer import (
    ApiRefused,
    ApiUnavailable,
    AuditLogger,
    GenesysAuthManager,
    PredictiveScoreCalculator,
    ScoreClient,
    ScoringOutcome,
    SettingsError,
)
from stream_scorer.library import scoring_run
from stream_scorer.library.scoring_run import ScoringRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stream_scorer.local.simulator import Simulator

GOOD = {"previous_calls": 3, "avg_handle_time": 150, "last_contact_days": 5, "segment_id": "premium"}


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(lambda request, conn: conn.sendall(results(request)))
        yield server


@pytest.fixture
def calculator_for(tmp_path: Path) -> Iterator[Callable[..., PredictiveScoreCalculator]]:
    made: list[PredictiveScoreCalculator] = []

    def make(url: str, max_in_flight: int = 4, requests_per_minute: int = 100_000, **more: Any) -> Any:
        auth = GenesysAuthManager("simulator-client", "simulator-secret", url, max_connections=16)
        client = ScoreClient(auth, requests_per_minute=requests_per_minute, backoff_base_s=0.1, **more)
        auditor = AuditLogger(tmp_path / "audit.log")
        calculator = PredictiveScoreCalculator(
            "simulator-model", expected_features=list(GOOD), client=client, auditor=auditor, max_in_flight=max_in_flight
        )
        made.append(calculator)
        return calculator

    yield make
    for calculator in made:
        calculator.close()


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set as soon as a calculation has failed, or was interrupted, and keeps the responses of requests in flight."""
    event, keep_responses = threading.Event(), ScoringRun._keep_responses

    def note_failure(run: ScoringRun, timeout_s: float | None) -> None:
        event.set()
        keep_responses(run, timeout_s)

    monkeypatch.setattr(ScoringRun, "_keep_responses", note_failure)
    return event


def contacts(count: int) -> list[dict[str, Any]]:
    return [{"contactId": f"c{number}", "features": GOOD} for number in range(count)]


def ids(found: Any) -> list[str]:
    return [one.contact_id for one in found]


class Gauge:
    """Responder that holds each request for a while, and counts how many it holds at once."""

    def __init__(self, hold_s: float, respond: Callable[[Any, Any], object]) -> None:
        self.most = 0
        self._now = 0
        self._hold_s = hold_s
        self._respond = respond
        self._lock = threading.Lock()

    def __call__(self, request: Any, conn: Any) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(self._hold_s)
        with self._lock:
            self._now -= 1
        self._respond(request, conn)


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_than_the_limit_at_once_and_that_many(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator], limit: int
) -> None:
    gauge = Gauge(0.2, lambda request, conn: conn.sendall(results(request)))
    server.respond(gauge)
    outcome = calculator_for(server.url, limit).calculate(contacts(7000))
    assert ids(outcome.scored) == [f"c{number}" for number in range(7000)]
    assert gauge.most == limit
    assert len(server.to("/oauth/token")) == 1


def test_results_are_in_input_order(
    simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0, quota=100_000, latency_ms=80, latency_jitter_ms=80)
    names = [f"c{number}" for number in range(9500)]
    calculator = calculator_for(simulator.base_url, 6)
    alone = calculator_for(simulator.base_url, 1)
    scores = calculator.calculate_scores(contacts(9500))
    assert ids(scores) == names
    assert [one.score for one in scores] == [one.score for one in alone.calculate_scores(contacts(9500))]
    assert simulator.stats().requests_with("score", 200) == 20


def test_failures_of_some_requests(
    simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0, quota=100_000, latency_ms=30)
    simulator.add_fault(status=503, times=3)
    simulator.add_fault(drop="before", times=1, after=4)
    raw = contacts(6000)
    raw[2500]["contactId"] = "REFUSE-x"
    outcome = calculator_for(simulator.base_url, 4).calculate(raw)
    assert ids(outcome.rejected) == ["REFUSE-x"]
    assert ids(outcome.scored) == [f"c{number}" for number in range(6000) if number != 2500]
    assert simulator.stats().contacts_repeated == 0


def test_the_quota_holds_for_all_requests_together(
    simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0, quota=5, quota_window_s=2.0, latency_ms=20)
    calculator = calculator_for(simulator.base_url, 8)
    outcome = calculator.calculate(contacts(12_000))
    assert len(outcome.scored) == 12_000
    assert simulator.stats().requests_with("score", 429) == 0


def test_own_count_of_the_quota_holds(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    calculator = calculator_for(server.url, 8, requests_per_minute=3)

    def progress(finished: int, _: int) -> None:
        if finished == 3000:
            threading.Timer(0.5, calculator.close).start()

    with pytest.raises(RuntimeError, match="closed") as caught:
        calculator.calculate(contacts(6000), progress=progress)
    assert len(server.to("/api/")) == 3
    assert len(caught.value.partial.scored) == 3000  # type: ignore[attr-defined]


def test_one_failure_keeps_the_results_of_the_others(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator], failed: threading.Event
) -> None:
    arrived = threading.Barrier(3)

    def respond(request: Any, conn: Any) -> None:
        first = request.json["contacts"][0]["contactId"]
        if first != "c0":  # which is sent alone
            arrived.wait(10)
        if first == "c1000":
            conn.sendall(answer(403, {"code": "missing.permissions", "message": "x", "status": 403}))
            return
        if first != "c0":
            assert failed.wait(10)
        conn.sendall(results(request))

    server.respond(respond)
    with pytest.raises(ApiRefused) as caught:
        calculator_for(server.url, 3).calculate(contacts(5000))
    assert caught.value.status_code == 403
    assert isinstance(caught.value.partial, ScoringOutcome)
    assert ids(caught.value.partial.scored) == [f"c{number}" for number in (*range(1000), *range(2000, 4000))]
    assert len(server.to("/api/")) == 4


def test_outage_ends_the_calculation(
    simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator], tmp_path: Path
) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0, quota=100_000, latency_ms=30)
    simulator.add_fault(status=500, times=None, after=3)
    with pytest.raises(ApiUnavailable) as caught:
        calculator_for(simulator.base_url, 4).calculate(contacts(9000))
    assert isinstance(caught.value.partial, ScoringOutcome)
    assert len(caught.value.partial.scored) == 3000
    assert (tmp_path / "audit.log").read_text().count('"SCORED"') == 3000


@pytest.mark.parametrize("limit", [1, 4])
def test_ctrl_c_keeps_finished_results(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator], limit: int
) -> None:
    calculator = calculator_for(server.url, limit)
    five_processed = threading.Event()

    def respond(request: Any, conn: Any) -> None:
        number = len(server.to("/api/"))
        if number > 5:
            if number == 6:
                assert five_processed.wait(10)
                os.kill(os.getpid(), signal.SIGINT)
            server.released.wait(15)
        conn.sendall(results(request))

    server.respond(respond)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as caught:
        calculator.calculate(
            contacts(20_000), progress=lambda finished, _: five_processed.set() if finished == 5000 else None
        )
    assert time.monotonic() - started < 8
    partial = caught.value.partial  # type: ignore[attr-defined]
    assert len(partial.scored) == 5000
    assert ids(partial.scored) == sorted(ids(partial.scored), key=lambda name: int(name[1:]))
    sent = len(server.to("/api/"))
    assert sent <= 5 + limit
    time.sleep(0.3)
    assert len(server.to("/api/")) == sent  # nothing is sent after Ctrl-C


def test_ctrl_c_waits_briefly_for_requests_in_flight(
    server: RawServer,
    calculator_for: Callable[..., PredictiveScoreCalculator],
    failed: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring_run, "_INTERRUPT_WAIT_S", 30.0)  # busy machines take longer
    arrived = threading.Barrier(3)

    def respond(request: Any, conn: Any) -> None:
        if request.json["contacts"][0]["contactId"] != "c0":  # which is sent alone
            if arrived.wait(10) == 0:
                os.kill(os.getpid(), signal.SIGINT)
            assert failed.wait(10)
        conn.sendall(results(request))

    server.respond(respond)
    with pytest.raises(KeyboardInterrupt) as caught:
        calculator_for(server.url, 3).calculate(contacts(9000))
    assert len(caught.value.partial.scored) == 4000  # type: ignore[attr-defined]
    assert len(server.to("/api/")) == 4


def test_threads_share_a_calculator_and_its_quota(
    simulator: Simulator, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0, quota=8, quota_window_s=2.0, latency_ms=20)
    calculator = calculator_for(simulator.base_url, 3)
    found: dict[int, list[str]] = {}

    def calculate(first: int) -> None:
        raw = [{"contactId": f"c{first + number}", "features": GOOD} for number in range(4000)]
        found[first] = ids(calculator.calculate(raw).scored)

    threads = [threading.Thread(target=calculate, args=(first,)) for first in (0, 10_000, 20_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {first: [f"c{first + number}" for number in range(4000)] for first in (0, 10_000, 20_000)}
    assert simulator.stats().requests_with("score", 429) == 0


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 2.0, "4", None])
def test_an_invalid_limit(limit: Any) -> None:
    with pytest.raises(SettingsError, match="max_in_flight must be a whole number from 1 to 1000"):
        PredictiveScoreCalculator("m", "id", "secret", ["a"], max_in_flight=limit)


# --- progress


@pytest.mark.parametrize("limit", [1, 4])
def test_progress_ends_at_the_total(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator], limit: int
) -> None:
    calls: list[tuple[int, int]] = []
    threads = set()

    def progress(finished: int, total: int) -> None:
        calls.append((finished, total))
        threads.add(threading.get_ident())

    calculator = calculator_for(server.url, limit)
    calculator.calculate([None, *contacts(2500)], progress=progress)
    assert calls[0] == (1, 2501)
    assert calls[-1] == (2501, 2501)
    assert len(calls) == 4
    assert calls == sorted(set(calls))
    assert threads == {threading.get_ident()}
    calls.clear()
    calculator.calculate_scores(contacts(1), progress=progress)
    calculator.calculate([], progress=progress)
    assert calls == [(1, 1)]


def test_progress_that_raises_ends_the_calculation(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator]
) -> None:
    calls = []

    def progress(*counts: int) -> None:
        calls.append(counts)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        calculator_for(server.url, 2).calculate(contacts(9000), progress=progress)
    assert 1000 <= len(caught.value.partial.scored) <= 3000  # type: ignore[attr-defined]
    assert len(calls) == 1
    with pytest.raises(TypeError, match="progress must be callable"):
        calculator_for(server.url).calculate(contacts(1), progress=5)  # type: ignore[arg-type]


# --- log


def test_retries_are_logged_without_contacts(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator], caplog: pytest.LogCaptureFixture
) -> None:
    failed = answer(503, {"message": "c0 broke it"}, {"ININ-Correlation-Id": "corr-7", "Retry-After": "0"})
    server.respond(failed, failed, lambda request, conn: conn.sendall(results(request)))
    with caplog.at_level(logging.WARNING, "stream_scorer"):
        assert len(calculator_for(server.url).calculate(contacts(1)).scored) == 1
    retries = [one.getMessage() for one in caplog.records if one.getMessage().startswith("request retried")]
    assert [line.split(", ", 1)[1].split(":")[0] for line in retries] == ["after failure 1", "after failure 2"]
    assert all("HTTP 503" in line and "status_code 503, correlation_id corr-7" in line for line in retries)
    assert "c0" not in caplog.text
    assert "simulator-secret" not in caplog.text
