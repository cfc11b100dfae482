"""Startup check: token and model are confirmed before the worker joins its group; outages delay it, errors end it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from test_observer import BEGAN_MS, Log
from test_telemetry import samples

from stream_scorer.core.scoring.api_response import Exchange, RateLimitHeaders
from stream_scorer.core.scoring.model_check import ModelConfirmed, ModelRefused, ModelUnavailable
from stream_scorer.errors import ApiRefused
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.runtime.clock import Clock
from stream_scorer.scoring.observer import Observer
from stream_scorer.scoring.start_check import StartBackoff, StartCheck
from stream_scorer.telemetry.meter_provider import ServiceMetrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.scoring.model_check import ModelCheck

BACKOFF = StartBackoff(base_s=2.0, max_s=60.0, max_retries=3, probe_interval_s=10.0, max_retry_after_s=900.0)
CONFIRMED = ModelConfirmed(Exchange(1, 2, 1.0, 400))
DURATION = "http_client_request_duration_seconds"
API = 'stream_scorer_circuit_breaker_open{reason="api"}'


def down(message: str = "HTTP 503", status: int | None = 503, after_s: float | None = None) -> ModelUnavailable:
    return ModelUnavailable(Exchange(1, 2, 1.0, status), message, "server_error", after_s)


class Stopping(threading.Event):
    """An event whose waits return at once: each advances the clock and calls ``on_wait``."""

    def __init__(self, harness: Harness) -> None:
        super().__init__()
        self._scene = harness

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self._scene.now += timeout
        self._scene.on_wait()
        return self.is_set()


class Harness:
    """The real check, observer, quota and metrics with a simulated clock; ``results`` are the responses of the API."""

    def __init__(self, *results: ModelCheck, requests_per_minute: int = 300) -> None:
        self.now = 1_000.0
        self.checked_at: list[float] = []
        self._results = list(results)
        self.on_wait: Callable[[], None] = lambda: None
        self.stopping = Stopping(self)
        clock = Clock(
            lambda: self.now, lambda: BEGAN_MS + round((self.now - 1_000.0) * 1000), lambda: 1.0, lambda: "id"
        )
        self.log = Log()
        self.metrics = ServiceMetrics("run")
        self.observe = Observer(self.log, self.metrics, clock)
        self.quota = Quota(requests_per_minute)
        self.start = StartCheck(
            check=self._check,
            backoff=BACKOFF,
            quota=self.quota,
            clock=clock,
            observe=self.observe,
            stopping=self.stopping,
        )

    def _check(self) -> ModelCheck:
        self.checked_at.append(self.now - 1_000.0)
        return self._results.pop(0)

    def events(self, event: str) -> list[dict[str, object]]:
        return [fields for _, name, fields in self.log.lines if name == event]


def test_a_model_that_is_confirmed_starts_at_once_and_the_request_counts() -> None:
    harness = Harness(ModelConfirmed(Exchange(1, 2, 1.0, 400, quota=RateLimitHeaders(7, 100, 30.0))))
    assert harness.start.confirm()
    assert harness.checked_at == [0.0]
    assert harness.quota.remaining(harness.now) == 93
    assert harness.events("model confirmed") == [{"status": 400, "attempts": 1, "after_s": 0.0}]
    requests = {name: value for name, value in samples(harness.metrics).items() if name.startswith(f"{DURATION}_count")}
    assert requests == {f'{DURATION}_count{{http_request_method="POST",http_response_status_code="400"}}': 1}


@pytest.mark.parametrize("before", [0, 2])
def test_a_refusal_of_the_platform_ends_the_start(before: int) -> None:
    harness = Harness(
        *[down()] * before, ModelRefused(Exchange(1, 2, 1.0, 401), "check genesys.client_secret", "Forbidden")
    )
    with pytest.raises(ApiRefused, match=r"^check genesys\.client_secret$"):
        harness.start.confirm()
    assert len(harness.checked_at) == before + 1


def test_failures_back_off_up_to_the_probe_interval() -> None:
    harness = Harness(*[down()] * 8, CONFIRMED)
    assert harness.start.confirm()
    waited = [later - earlier for earlier, later in zip(harness.checked_at, harness.checked_at[1:], strict=False)]
    assert waited == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60])


def test_a_short_backoff_does_not_become_a_burst() -> None:
    backoff = StartBackoff(base_s=0.1, max_s=1.0, max_retries=3, probe_interval_s=10.0, max_retry_after_s=900.0)
    assert [backoff.delay_s(attempt, None, 0.0) for attempt in (3, 4, 50)] == pytest.approx([0.05, 10.0, 10.0])


@pytest.mark.parametrize(("demanded_s", "obeyed_s"), [(7.0, 7.0), (900.0, 900.0), (86_400.0, 900.0)])
def test_retry_after_is_limited_to_900_s(demanded_s: float, obeyed_s: float) -> None:
    harness = Harness(down(after_s=demanded_s), CONFIRMED)
    assert harness.start.confirm()
    assert harness.checked_at == pytest.approx([0.0, obeyed_s])


def test_the_quota_is_kept_while_the_api_is_down() -> None:
    harness = Harness(down(), down(), CONFIRMED, requests_per_minute=1)
    assert harness.start.confirm()
    assert harness.checked_at == pytest.approx([0.0, 60.5, 121.0])


def test_readyz_metrics_and_log_while_it_waits() -> None:
    harness = Harness(down("HTTP 503 one"), down("HTTP 503 one"), down("no connection", status=None), CONFIRMED)
    ready: list[str | None] = []
    live: list[str | None] = []

    def look() -> None:
        ready.append(harness.observe.readiness_failure())
        live.append(harness.observe.liveness_failure(120.0, 300.0))
        assert samples(harness.metrics)[API] == 1

    harness.on_wait = look
    assert harness.start.confirm()
    assert set(live) == {None}
    # The clock of the test moves during a wait, so each line is one second old.
    assert ready[0] == "starting: HTTP 503 one; since 2030-01-01T00:00:00Z (1 s); next attempt in 1 s"
    assert ready[-1] == "starting: no connection; since 2030-01-01T00:00:00Z (14 s); next attempt in 0 s"
    said = harness.events("start delayed")
    assert said == [
        {"reason": "HTTP 503 one", "since": "2030-01-01T00:00:00Z", "next_attempt_in_s": 2.0},
        {"reason": "no connection", "since": "2030-01-01T00:00:00Z", "next_attempt_in_s": 8.0},
    ]
    assert {level for level, event, _ in harness.log.lines if event == "start delayed"} == {"warning"}
    assert harness.observe.readiness_failure() == "starting: no partition assigned yet"
    assert samples(harness.metrics)[API] == 0


def check_live(harness: Harness) -> None:
    assert harness.observe.liveness_failure(120.0, 300.0) is None


def test_livez_is_ok_during_the_longest_wait() -> None:
    harness = Harness(down(after_s=86_400.0), CONFIRMED)
    harness.on_wait = lambda: check_live(harness)
    assert harness.start.confirm()


def test_a_stop_ends_the_wait_at_once() -> None:
    harness = Harness(down(after_s=500.0))
    harness.on_wait = harness.stopping.set
    assert not harness.start.confirm()
    assert harness.now == pytest.approx(1_001.0)


def test_nothing_is_sent_after_a_stop() -> None:
    harness = Harness()
    harness.stopping.set()
    assert not harness.start.confirm()
    assert harness.checked_at == []


def test_an_ignored_retry_after_is_one_warning_in_the_life_of_the_process() -> None:
    ignored = ModelUnavailable(Exchange(1, 2, 1.0, 503), "HTTP 503", "server_error", None, "1900000000")
    harness = Harness(ignored, ignored, CONFIRMED)
    assert harness.start.confirm()
    detail = "the header is unreadable, not positive or over a day: 1900000000"
    assert harness.events("retry-after ignored") == [{"detail": detail}]
