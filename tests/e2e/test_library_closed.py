"""A client that is closed: before its use, and by another thread during it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, results

from stream_scorer import (
    AuditLogger,
    ClientClosed,
    ContactFeatureVector,
    GenesysAuthManager,
    PredictiveScoreCalculator,
    ScoreClient,
    ScoringPayload,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTACT = {"contactId": "a", "features": {"calls": 1}}


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(lambda request, conn: conn.sendall(results(request)))
        yield server


@pytest.fixture
def calculator(server: RawServer, tmp_path: Path) -> Iterator[PredictiveScoreCalculator]:
    auditor = AuditLogger(tmp_path / "audit.log")
    with PredictiveScoreCalculator("m", "id", "secret", ["calls"], {}, None, server.url, auditor=auditor) as calculator:
        yield calculator


def test_every_call_of_a_closed_client_fails_at_once(
    server: RawServer, calculator: PredictiveScoreCalculator, tmp_path: Path
) -> None:
    calculator.close()
    calculator.close()
    payload = ScoringPayload(contacts=[ContactFeatureVector(**CONTACT)])
    contacts = iter([CONTACT])
    calls: list[Any] = [
        lambda: calculator.calculate(contacts),
        lambda: calculator.calculate_scores([{"contactId": 5}]),
        calculator.__enter__,
        calculator.auth.__enter__,
        calculator.auth.get_token,
        calculator.auth.get_headers,
        lambda: calculator.client.submit_score_batch(payload, "m"),
    ]
    for call in calls:
        with pytest.raises(ClientClosed, match="create a new one") as caught:
            call()
        assert isinstance(caught.value, RuntimeError)
    assert server.requests == []
    assert list(tmp_path.iterdir()) == []
    assert list(contacts) == [CONTACT]


def closed_during(server: RawServer, calculator: PredictiveScoreCalculator) -> float:
    """Close the calculator as soon as a request has arrived; return the seconds until the calculation fails."""

    def close() -> None:
        while not server.to("/api/"):
            time.sleep(0.01)
        time.sleep(0.1)
        calculator.close()

    thread = threading.Thread(target=close)
    thread.start()
    started = time.monotonic()
    with pytest.raises(ClientClosed):
        calculator.calculate([CONTACT])
    thread.join()
    return time.monotonic() - started


def test_closed_during_a_request(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    server.respond(lambda *_: server.released.wait(20) and None)
    assert closed_during(server, calculator) < 5
    assert len(server.to("/api/")) == 1


def test_closed_during_the_wait_for_a_retry(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    server.respond(answer(503, b"", {"Retry-After": "20"}))
    assert closed_during(server, calculator) < 5
    assert len(server.to("/api/")) == 1


def test_closed_while_the_quota_is_awaited(server: RawServer, tmp_path: Path) -> None:
    auth = GenesysAuthManager("id", "secret", server.url)
    client = ScoreClient(auth, requests_per_minute=1)
    auditor = AuditLogger(tmp_path / "audit.log")
    calculator = PredictiveScoreCalculator("m", expected_features=["calls"], client=client, auditor=auditor)
    calculator.calculate([CONTACT])
    assert closed_during(server, calculator) < 5
    assert len(server.to("/api/")) == 1
