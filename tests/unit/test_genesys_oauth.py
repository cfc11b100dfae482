from __future__ import annotations

import base64
import dataclasses
import json
import threading
from typing import Any

import pytest

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import Exchange
from stream_scorer.errors import SettingsError
from stream_scorer.genesys.oauth import Token, TokenRefused, TokenSource, TokenUnavailable
from stream_scorer.http_client.client import Http, HttpAnswer, Timing, TransportFailure

TIMING = Timing(1, 2, 1.0)
SECRET = "the-secret"


class FakeHttp(Http):
    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[dict[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()

    def exchange(self, method: str, url: str, **more: Any) -> HttpAnswer:
        self.calls.append({"method": method, "url": url, **more})
        self.gate.wait(5)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def granted(value: str = "t", **more: Any) -> HttpAnswer:
    body = {"access_token": value, "token_type": "Bearer", **more}
    return HttpAnswer(200, {}, json.dumps(body).encode(), TIMING)


def source(http: FakeHttp, clock: Clock | None = None) -> TokenSource:
    return TokenSource(http, "http://login/", "id", SECRET, timeout_s=3.0, monotonic=clock or Clock())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_a_token_in_any_encoding_of_unicode(encoding: str) -> None:
    answer = granted("a-token", expires_in=3600)
    http = FakeHttp(dataclasses.replace(answer, body=answer.body.decode().encode(encoding)))
    token = source(http).token()
    assert isinstance(token, Token)
    assert token.value == "a-token"


@pytest.mark.parametrize(
    ("expires_in", "renewed_after_s"),
    [
        (3600, 3540.0),
        (120, 60.0),
        (100, 50.0),
        (10, 5.0),
        ("3600", 3540.0),
        (86_400.5, 86_340.5),
        (10**12, 48 * 3600 - 60.0),
        (None, 240.0),
        ("soon", 240.0),
        ("nan", 240.0),
        ("inf", 240.0),
        (True, 240.0),
        (0, 240.0),
        (-5, 240.0),
        ([], 240.0),
    ],
)
def test_life_of_a_token(expires_in: Any, renewed_after_s: float) -> None:
    clock = Clock()
    http = FakeHttp(granted("first", expires_in=expires_in), granted("second", expires_in=expires_in))
    tokens = source(http, clock)
    assert tokens.token().value == "first"
    clock.now += renewed_after_s - 0.01
    assert tokens.token().value == "first"
    clock.now += 0.02
    assert tokens.token().value == "second"
    assert len(http.calls) == 2


def test_fetch() -> None:
    http = FakeHttp(granted())
    source(http).token()
    (call,) = http.calls
    assert (call["method"], call["url"]) == ("POST", "http://login/oauth/token")
    assert call["headers"]["Authorization"] == "Basic aWQ6dGhlLXNlY3JldA=="
    assert call["body"] == b"grant_type=client_credentials"
    assert call["timeout_s"] == 3.0


def test_invalidated_token_is_fetched_again_but_its_successor_is_kept() -> None:
    tokens = source(FakeHttp(granted("first"), granted("second")))
    first = tokens.token()
    assert isinstance(first, Token)
    tokens.invalidate(first)
    second = tokens.token()
    assert second.value == "second"
    tokens.invalidate(first)  # another thread, late with its 401
    assert tokens.token() is second


def test_waiting_threads_share_a_failure_and_later_ones_ask_again() -> None:
    http = FakeHttp(TransportFailure(HttpFailure.TIMEOUT, "late", TIMING), granted("good"))
    http.gate.clear()
    tokens = source(http)
    outcomes: list[Any] = []
    threads = [threading.Thread(target=lambda: outcomes.append(tokens.token())) for _ in range(5)]
    for thread in threads:
        thread.start()
    while not http.calls:
        pass
    # All five are in `token` before the fetch ends: one fetches, the others wait for the lock.
    while sum(thread.is_alive() for thread in threads) < 5:
        pass
    threading.Event().wait(0.05)
    http.gate.set()
    for thread in threads:
        thread.join(5)
    assert len(http.calls) == 1
    assert all(isinstance(one, TokenUnavailable) and one.message == "no token: late" for one in outcomes)
    assert tokens.token().value == "good"


@pytest.mark.parametrize("status", [400, 401])
def test_refusal_never_quotes_the_secret(status: int) -> None:
    body = json.dumps({"error": "invalid_client", "description": f"{SECRET}!"}).encode()
    outcome = source(FakeHttp(HttpAnswer(status, {}, body, TIMING))).token()
    assert isinstance(outcome, TokenRefused)
    assert SECRET not in repr(outcome)
    assert "(invalid_client)" in outcome.message
    assert outcome.exchange.error_text == "***!"


@pytest.mark.parametrize(
    ("body", "platform_error"),
    [(b'{"error":"invalid_client"}', True), (b"<html>", False), (b'{"error":"Unauthorized"}', False), (b"", False)],
)
def test_an_answer_of_a_gateway_is_no_error_of_the_platform(body: bytes, platform_error: bool) -> None:
    outcome = source(FakeHttp(HttpAnswer(401, {}, body, TIMING))).token()
    assert isinstance(outcome, TokenRefused)
    assert outcome.platform_error == platform_error


def test_a_retry_after_that_is_ignored_is_reported() -> None:
    headers = {"Retry-After": "1800000060"}
    outcome = source(FakeHttp(HttpAnswer(503, headers, b"", TIMING))).token()
    assert isinstance(outcome, TokenUnavailable)
    assert (outcome.retry_after_s, outcome.ignored_retry_after) == (None, "1800000060")


class TestSecretCallable:
    def test_it_is_read_before_each_fetch_and_at_no_other_time(self) -> None:
        secrets = iter(["first-secret", "second-secret"])
        http = FakeHttp(granted("t1"), granted("t2"))
        tokens = TokenSource(http, "http://login/", "id", lambda: next(secrets), monotonic=Clock())
        first = tokens.token()
        assert isinstance(first, Token)
        assert tokens.token() is first
        tokens.invalidate(first)
        tokens.token()
        sent = [base64.b64decode(call["headers"]["Authorization"].split()[1]) for call in http.calls]
        assert sent == [b"id:first-secret", b"id:second-secret"]
        # An exchange in flight may quote the former secret.
        assert tokens.redact("first-secret second-secret") == "*** ***"

    def test_one_that_cannot_be_read_is_unavailable_and_nothing_is_sent(self) -> None:
        readings: list[Any] = [SettingsError("genesys.client_secret: cannot read /run/secret: gone"), "back"]

        def read() -> str:
            reading = readings.pop(0)
            if isinstance(reading, Exception):
                raise reading
            return reading

        http = FakeHttp(granted())
        tokens = TokenSource(http, "http://login/", "id", read, monotonic=Clock(), wall_clock=lambda: 5.0)
        outcome = tokens.token()
        assert isinstance(outcome, TokenUnavailable)
        assert outcome.message == "no token: genesys.client_secret: cannot read /run/secret: gone"
        assert outcome.exchange == Exchange(5000, 5000, 0.0)
        assert http.calls == []
        assert isinstance(tokens.token(), Token)


def test_refused_token_is_asked_for_again_next_time() -> None:
    tokens = source(FakeHttp(HttpAnswer(401, {}, b"", TIMING), granted()))
    assert isinstance(tokens.token(), TokenRefused)
    assert isinstance(tokens.token(), Token)


def test_reprs_hide_what_is_secret() -> None:
    tokens = source(FakeHttp(granted("the-token")))
    token = tokens.token()
    assert SECRET not in repr(tokens)
    assert "the-token" not in repr(token) + repr(tokens)


def test_secret_that_is_no_text() -> None:
    with pytest.raises(SettingsError, match="client_secret"):
        TokenSource(FakeHttp(granted()), "http://login", "id", "\ud800")
