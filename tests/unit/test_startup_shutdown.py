"""A stop during startup: an unresponsive API, broker or registry must not delay it."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from stream_scorer.core.scoring.api_response import Exchange
from stream_scorer.core.scoring.model_check import ModelConfirmed
from stream_scorer.genesys.client import ScoringClient
from stream_scorer.kafka.client.blocking_calls import StoppedError, call_until_stopped
from stream_scorer.settings import Settings
from stream_scorer.targets.factory import build_target
from stream_scorer.wiring.callbacks import CallbackService
from stream_scorer.wiring.scoring import ScoringService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def settings_with(hanging: socket.socket, hangs: str) -> Settings:
    place = f"127.0.0.1:{hanging.getsockname()[1]}"
    return Settings.model_validate(
        {
            "kafka": {
                "bootstrap_servers": place if hangs == "kafka" else "127.0.0.1:1",
                "properties": {"log_level": 0},
            },
            "schema_registry": {"url": f"http://{place}"},
            "genesys": {"base_url": f"http://{place}", "client_id": "i", "client_secret": "s", "model_id": "m"},
            "callbacks": {"target": "log", "admin_port": 0},
            "admin": {"port": 0},
        }
    )


def scoring(settings: Settings) -> ScoringService:
    return ScoringService(settings)


def campaign(settings: Settings) -> CallbackService:
    return CallbackService(settings, build_target(settings), settings.topics.retries())


@pytest.mark.parametrize(
    ("make", "hangs"),
    [(scoring, "api"), (scoring, "kafka"), (scoring, "registry"), (campaign, "kafka"), (campaign, "registry")],
)
def test_a_hanging_call_does_not_delay_shutdown(
    make: Callable[[Settings], ScoringService | CallbackService], hangs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hangs != "api":
        monkeypatch.setattr(ScoringClient, "check", lambda _: ModelConfirmed(Exchange(1, 2, 1.0, 400)))
    if hangs == "registry":
        monkeypatch.setattr("stream_scorer.kafka.producer.factory.max_message_bytes", limits)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        service = make(settings_with(server, hangs))
        running = threading.Thread(target=service.run, daemon=True)
        running.start()
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1)  # its request gets no response
            service.stop()
            running.join(3)
            assert not running.is_alive()


def limits(_settings: Settings, topics: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(topics, 1_000_000)


def test_the_heartbeat_runs_during_a_slow_call() -> None:
    done = threading.Event()
    beats = 0

    def heartbeat() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            done.set()

    assert call_until_stopped(threading.Event(), lambda: done.wait(10), meanwhile=heartbeat)
    assert beats >= 3


def test_the_result_or_exception_of_a_call_is_passed_on() -> None:
    assert call_until_stopped(threading.Event(), lambda: 1) == 1
    with pytest.raises(KeyError, match="why"):
        call_until_stopped(threading.Event(), lambda: {}["why"])
    with pytest.raises(TimeoutError, match="its own"):
        call_until_stopped(threading.Event(), timed_out)


def timed_out() -> None:
    raise TimeoutError("its own")


def test_no_wait_starts_after_a_stop() -> None:
    stopping, never = threading.Event(), threading.Event()
    stopping.set()
    with pytest.raises(StoppedError):
        call_until_stopped(stopping, never.wait)
    never.set()
