"""The client over real HTTP: the requests, and the result of each response."""

from __future__ import annotations

import gzip
import threading
import tracemalloc
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, results, token

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import (
    Answered,
    Exchange,
    Forbidden,
    NotFound,
    RateLimitHeaders,
    Refused,
    TooLarge,
    Unavailable,
    Unexpected,
)
from stream_scorer.core.scoring.model_check import ModelConfirmed, ModelRefused, ModelUnavailable
from stream_scorer.errors import SettingsError
from stream_scorer.genesys.client import ScoringClient
from stream_scorer.genesys.wire import encode_contact

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "s3cr3t-of-the-test"
SCORE = "/api/v2/predictiveengagement/models/"
PARTS = [encode_contact("c1", {"calls": 1}), encode_contact("c2", {"calls": 2})]


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(lambda request, conn: conn.sendall(results(request)))
        yield server


@pytest.fixture
def client(server: RawServer) -> Iterator[ScoringClient]:
    client = ScoringClient(server.url, server.url + "/", "client-1", SECRET, "model/1", timeout_s=5.0)
    yield client
    client.close()


def platform_error(status: int, code: str, message: str, **more: Any) -> bytes:
    return answer(status, {"message": message, "code": code, "status": status, "contextId": "x", "errors": [], **more})


def test_request_and_answer(server: RawServer, client: ScoringClient) -> None:
    got = client.ask(PARTS, "7")
    assert isinstance(got, Answered)
    assert [item["contactId"] for item in got.results] == ["c1", "c2"]
    assert (got.exchange.status, got.exchange.correlation_id, got.exchange.quota) == (200, "corr-1", None)
    assert 0 < got.exchange.latency_ms < 5000
    assert got.exchange.started_at_ms <= got.exchange.finished_at_ms
    fetch, request = server.requests
    assert fetch.body == b"grant_type=client_credentials"
    assert fetch.headers["authorization"] == "Basic Y2xpZW50LTE6czNjcjN0LW9mLXRoZS10ZXN0"
    assert request.path == SCORE + "model%2F1/score"
    assert request.headers["authorization"] == "Bearer token-1"
    assert request.headers["content-type"] == "application/json"
    assert request.json == {
        "contacts": [
            {"contactId": "c1", "features": {"calls": 1}},
            {"contactId": "c2", "features": {"calls": 2}},
        ],
        "modelVersion": "7",
    }
    client.ask(PARTS, None)
    assert set(server.requests[-1].json) == {"contacts"}


def test_connections_are_reused_and_the_token_is_fetched_once(server: RawServer, client: ScoringClient) -> None:
    for _ in range(5):
        assert isinstance(client.ask(PARTS, None), Answered)
    assert len({request.connection for request in server.requests}) == 1
    assert len(server.to("/oauth/token")) == 1


def test_threads_share_one_token_fetch(server: RawServer, client: ScoringClient) -> None:
    started = threading.Event()

    def slow_token(_: Any, conn: Any) -> None:
        started.wait(5)
        conn.sendall(token())

    server.respond(slow_token, path="/oauth/token")
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(client.ask(PARTS, None))) for _ in range(6)]
    for thread in threads:
        thread.start()
    started.set()
    for thread in threads:
        thread.join(10)
    assert [type(one) for one in answers] == [Answered] * 6
    assert len(server.to("/oauth/token")) == 1


@pytest.mark.parametrize("status", [400, 422])
def test_refused_names_contacts(server: RawServer, client: ScoringClient, status: int) -> None:
    details = [{"errorCode": "x", "entityId": "c2"}, {"entityId": 3}, "junk", {"fieldName": "f"}]
    server.respond(platform_error(status, "invalid.value", "bad\r\ncontact\x1b[31m", details=details))
    got = client.ask(PARTS, None)
    assert isinstance(got, Refused)
    assert got.named == {"c2"}
    assert got.message == f"HTTP {status} invalid.value"
    assert got.exchange.error_text == "bad contact [***m"


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        (platform_error(403, "missing.permissions", "no"), Forbidden, "predictiveengagement:score"),
        (platform_error(403, "missing.permissions", "no"), Forbidden, "client-1"),
        (answer(403, b"<html><title>Forbidden</title>"), Forbidden, "HTTP 403: "),
        (platform_error(404, "not.found", "no"), NotFound, "model/1"),
        (platform_error(413, "request.entity.too.large", "too large"), TooLarge, "request.entity.too.large"),
        (answer(302, b"", {"location": "http://127.0.0.1:1/elsewhere"}), Unexpected, "HTTP 302"),
        (answer(304), Unexpected, "HTTP 304"),
        (answer(418, b"\xff\xfe"), Unexpected, "HTTP 418"),
        (answer(409, [1, 2]), Unexpected, "HTTP 409"),
    ],
)
def test_responses_without_a_retry(server: RawServer, client: ScoringClient, raw: bytes, kind: type, text: str) -> None:
    server.respond(raw)
    got = client.ask(PARTS, None)
    assert type(got) is kind
    assert text in got.message
    assert got.exchange.status == int(raw[9:12])
    assert len(server.to(SCORE)) == 1  # nothing is repeated, no redirect followed


@pytest.mark.parametrize(
    ("raw", "trouble", "after_s"),
    [
        (answer(429, b"", {"retry-after": "7"}), HttpFailure.RATE_LIMITED, 7.0),
        (answer(429, b"", {"retry-after": "-3"}), HttpFailure.RATE_LIMITED, None),
        (answer(429, b"", {"retry-after": "soon"}), HttpFailure.RATE_LIMITED, None),
        (answer(408), HttpFailure.TIMEOUT, None),
        (answer(500), HttpFailure.SERVER_ERROR, None),
        (answer(502, b"<html><head><title>Bad\nGateway</title>"), HttpFailure.SERVER_ERROR, None),
        (answer(503, b"", {"retry-after": "0.5"}), HttpFailure.SERVER_ERROR, 0.5),
        (answer(200, b"<html>"), HttpFailure.MALFORMED, None),
        (answer(200, b""), HttpFailure.MALFORMED, None),
        (answer(204), HttpFailure.MALFORMED, None),
        (answer(200, {"results": {}}), HttpFailure.MALFORMED, None),
        (answer(200, [[]]), HttpFailure.MALFORMED, None),
        (answer(200, b'{"results":[nan]}'), HttpFailure.MALFORMED, None),
        (answer(200, b'{"results":' + b"[" * 100_000), HttpFailure.MALFORMED, None),
        (b"SSH-2.0-OpenSSH_9.0\r\n\r\n", HttpFailure.MALFORMED, None),
    ],
)
def test_transient_failures(
    server: RawServer, client: ScoringClient, raw: bytes, trouble: HttpFailure, after_s: float | None
) -> None:
    def once(_: Any, conn: Any) -> None:
        conn.sendall(raw)
        conn.close()

    server.respond(once)
    got = client.ask(PARTS, None)
    assert isinstance(got, Unavailable)
    assert (got.failure, got.retry_after_s) == (trouble, after_s)
    assert got.message
    assert "\n" not in got.message


@pytest.mark.parametrize(
    ("raw", "kind", "platform_error"),
    [
        (platform_error(401, "bad.credentials", "no"), Forbidden, True),
        (answer(401, b"<html>"), Forbidden, False),
        (platform_error(403, "app.not.authorized.for.scope", "no"), Forbidden, True),
        (answer(403, b"<html>"), Forbidden, False),
        (platform_error(404, "not.found", "no"), NotFound, True),
        (answer(404, {"message": "no Route matched with those values"}), NotFound, False),
    ],
)
def test_errors_of_the_platform_and_of_gateways(
    server: RawServer, client: ScoringClient, raw: bytes, kind: type, *, platform_error: bool
) -> None:
    server.respond(raw)
    got = client.ask(PARTS, None)
    assert isinstance(got, Forbidden | NotFound)
    assert type(got) is kind
    assert got.platform_error == platform_error
    assert ("not the platform's own error; check genesys.base_url" in got.message) != platform_error
    assert isinstance(client.check(), ModelRefused if platform_error else ModelUnavailable)


def test_a_retry_after_that_is_ignored_is_reported(server: RawServer, client: ScoringClient) -> None:
    server.respond(answer(503, b"", {"retry-after": "1900000000"}))
    got = client.ask(PARTS, None)
    assert isinstance(got, Unavailable)
    assert (got.retry_after_s, got.ignored_retry_after) == (None, "1900000000")


def test_check_sends_no_contact_and_no_version(server: RawServer, client: ScoringClient) -> None:
    server.respond(platform_error(400, "invalid.value", "'contacts' must not be empty"))
    check = client.check()
    assert isinstance(check, ModelConfirmed)
    assert check.exchange.status == 400
    (request,) = server.to(SCORE)
    assert request.json == {"contacts": []}
    # The model is confirmed: a 404 means the version and is not checked again.
    server.respond(platform_error(404, "not.found", "no such version"))
    assert isinstance(client.ask(PARTS, "v9"), NotFound)
    assert len(server.to(SCORE)) == 2


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (answer(401, {"error": "invalid_client"}), ModelRefused),
        (answer(400, {"error": "invalid_client"}), ModelRefused),
        (answer(401, b"<html>"), ModelUnavailable),
        (answer(503, b"", {"retry-after": "4"}), ModelUnavailable),
    ],
)
def test_check_without_a_token(server: RawServer, client: ScoringClient, raw: bytes, kind: type) -> None:
    server.respond(raw, path="/oauth/token")
    check = client.check()
    assert type(check) is kind
    assert getattr(check, "retry_after_s", None) == (4.0 if b"503" in raw else None)
    assert server.to(SCORE) == []


@pytest.mark.parametrize("reused", [False, True])
def test_two_lengths_are_a_malformed_answer(server: RawServer, client: ScoringClient, *, reused: bool) -> None:
    if reused:
        assert isinstance(client.ask(PARTS, None), Answered)
    server.respond(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\ncontent-length: 15\r\n\r\n" + b'{"results":[]} ')
    got = client.ask(PARTS, None)
    assert isinstance(got, Unavailable)
    assert got.failure is HttpFailure.MALFORMED
    assert "answer of 127.0.0.1:" in got.message
    assert "URL" not in got.message


def test_retry_after_as_a_date(server: RawServer, client: ScoringClient) -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)
    server.respond(answer(503, b"", {"retry-after": format_datetime(at, usegmt=True)}))
    got = client.ask(PARTS, None)
    assert isinstance(got, Unavailable)
    assert got.retry_after_s == pytest.approx(90, abs=5)


def test_quota_headers(server: RawServer, client: ScoringClient) -> None:
    headers = {"inin-ratelimit-count": "12", "ININ-RateLimit-Allowed": "250", "inin-ratelimit-reset": "33"}
    server.respond(answer(429, b"", headers), answer(200, {"results": []}, {**headers, "inin-ratelimit-count": "x"}))
    assert client.ask(PARTS, None).exchange.quota == RateLimitHeaders(12, 250, 33.0)
    assert client.ask(PARTS, None).exchange.quota is None


def test_revoked_token_is_renewed_once(server: RawServer, client: ScoringClient) -> None:
    server.respond(token("old"), token("new"), path="/oauth/token")

    def only_new(request: Any, conn: Any) -> None:
        good = request.headers["authorization"] == "Bearer new"
        conn.sendall(results(request) if good else platform_error(401, "bad.credentials", "Bearer old is not valid"))

    server.respond(only_new)
    assert isinstance(client.ask(PARTS, None), Answered)
    assert len(server.to(SCORE)) == 2
    server.respond(platform_error(401, "bad.credentials", "Bearer new is not valid"))
    got = client.ask(PARTS, None)
    assert isinstance(got, Forbidden)
    assert got.exchange.status == 401
    assert "'client-1'" in got.message
    assert got.exchange.error_text == "Bearer *** is not valid"
    assert len(server.to(SCORE)) == 4


def test_a_gateway_that_echoes_the_request(server: RawServer, client: ScoringClient) -> None:
    def echo(request: Any, conn: Any) -> None:
        sent = request.headers["authorization"]
        message = "x" * 290 + sent  # the token is at the cut of the text
        conn.sendall(answer(400, {"code": sent, "message": message}, {"ININ-Correlation-Id": sent.split()[1]}))

    long_token = "ghijklmnop" * 8  # no hexadecimal digits: an id of the exchange must not look like a part of it
    server.respond(token(long_token), path="/oauth/token")
    server.respond(echo)
    got = client.ask(PARTS, None)
    assert isinstance(got, Refused)
    assert not any(long_token[n : n + 4] in repr(got) for n in range(10))
    assert got.exchange.correlation_id is None


def test_a_token_renewed_meanwhile_is_not_shown(server: RawServer, client: ScoringClient) -> None:
    server.respond(token("first-token"), token("second-token"), path="/oauth/token")
    server.respond(
        platform_error(401, "bad.credentials", "no"),
        platform_error(400, "bad.request", "first-token was bad, second-token is"),
    )
    got = client.ask(PARTS, None)
    assert isinstance(got, Refused)
    assert got.message == "HTTP 400 bad.request"
    assert got.exchange.error_text == "*** was bad, *** is"


def test_a_login_service_that_echoes_the_basic_header(server: RawServer, client: ScoringClient) -> None:
    def echo(request: Any, conn: Any) -> None:
        sent = request.headers["authorization"]
        conn.sendall(answer(401, {"error": "invalid_client", "error_description": f"bad header: {sent}"}))

    server.respond(echo, path="/oauth/token")
    got = client.ask(PARTS, None)
    assert isinstance(got, Forbidden)
    assert "(invalid_client)" in got.message
    assert got.exchange.error_text.startswith("bad header: Basic ***")
    assert server.requests[0].headers["authorization"].split()[1].rstrip("=") not in repr(got)


@pytest.mark.parametrize("status", [400, 401])
def test_wrong_secret(server: RawServer, client: ScoringClient, status: int) -> None:
    said = {"error": "invalid_client", "error_description": f"secret {SECRET} is wrong"}
    server.respond(answer(status, said), path="/oauth/token")
    got = client.ask(PARTS, None)
    assert isinstance(got, Forbidden)
    assert "(invalid_client)" in got.message
    assert got.exchange.error_text == "secret *** is wrong"
    assert "genesys.client_secret" in got.message
    assert SECRET not in repr(got)
    assert server.to(SCORE) == []


@pytest.mark.parametrize(
    "raw",
    [
        answer(503, b"", {"retry-after": "4"}),
        answer(429),
        answer(404),
        answer(302, b"", {"location": "/"}),
        answer(200, b"no json"),
        answer(200, [1]),
        token(""),
        token("two\nlines"),
        token(token_type="mac"),
        answer(200, b" " * 70_000),
    ],
)
def test_a_failing_token_endpoint_is_transient_and_distinguished_from_a_failing_api(
    server: RawServer, client: ScoringClient, raw: bytes
) -> None:
    server.respond(raw, path="/oauth/token")
    got = client.ask(PARTS, None)
    assert isinstance(got, Unavailable)
    assert got.failure is HttpFailure.NO_TOKEN
    assert got.retry_after_s == (4.0 if b"retry-after" in raw else None)
    assert "no token" in got.message
    server.respond(token(), path="/oauth/token")
    assert isinstance(client.ask(PARTS, None), Answered)


def test_compressed_answers(server: RawServer, client: ScoringClient) -> None:
    packed = gzip.compress(b'{"results": [1]}')
    server.respond(
        answer(200, packed, {"content-encoding": "gzip"}), answer(200, b"zip?", {"content-encoding": "gzip"})
    )
    good = client.ask(PARTS, None)
    assert isinstance(good, Answered)
    assert good.results == [1]
    bad = client.ask(PARTS, None)
    assert isinstance(bad, Unavailable)
    assert bad.failure is HttpFailure.MALFORMED


@pytest.mark.parametrize("chunked", [False, True])
def test_gzip_bomb_ends_early(server: RawServer, client: ScoringClient, *, chunked: bool) -> None:
    bomb = gzip.compress(b'{"results":[' + b" " * 60_000_000)
    plain = answer(200, bomb, {"content-encoding": "gzip"})
    in_chunks = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-encoding: gzip\r\n\r\n"
        + f"{len(bomb):x}\r\n".encode()
        + bomb
        + b"\r\n0\r\n\r\n"
    )
    server.respond(in_chunks if chunked else plain)
    tracemalloc.start()
    got = client.ask(PARTS, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert isinstance(got, Unavailable)
    assert got.failure is HttpFailure.MALFORMED
    assert "too large" in got.message


def test_redirect_body_is_bounded(server: RawServer, client: ScoringClient) -> None:
    server.respond(answer(302, b"x" * 9_000_000, {"location": "/elsewhere"}))
    got = client.ask(PARTS, None)
    assert isinstance(got, Unexpected)
    assert got.exchange.status == 302


def test_cookies_and_netrc_are_ignored(
    server: RawServer, client: ScoringClient, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.respond(answer(200, {"results": []}, {"set-cookie": "AWSALB=1; Path=/"}))
    client.ask(PARTS, None)
    client.ask(PARTS, None)
    assert all("cookie" not in request.headers for request in server.requests)
    assert server.requests[-1].headers["authorization"] == "Bearer token-1"


def test_connection_refused(server: RawServer) -> None:
    url = "http://127.0.0.1:9"  # the discard port: no listener
    elsewhere = ScoringClient(url, server.url, "client-1", SECRET, "m")
    got = elsewhere.ask(PARTS, None)
    assert isinstance(got, Unavailable)
    assert got.failure is HttpFailure.NO_CONNECTION
    assert "127.0.0.1:9" in got.message
    assert "refused" in got.message
    assert got.exchange.status is None
    elsewhere.close()


def test_name_that_does_not_exist(server: RawServer) -> None:
    client = ScoringClient("http://api.invalid", server.url, "client-1", SECRET, "m", timeout_s=5.0)
    got = client.ask(PARTS, None)
    assert isinstance(got, Unavailable)
    assert got.failure is HttpFailure.NO_CONNECTION
    assert "api.invalid" in got.message
    client.close()


@pytest.mark.parametrize(
    "url", ["", "api.example", "ftp://a", "https://", "http://u:pw@host", "http://h?x=1", "http://h:x"]
)
def test_invalid_urls_are_rejected_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match=r"genesys\.base_url") as caught:
        ScoringClient(url, "http://127.0.0.1", "id", SECRET, "m")
    assert "pw" not in str(caught.value)


def test_nothing_secret_in_any_repr(client: ScoringClient) -> None:
    client.ask(PARTS, None)
    shown = repr(client) + repr(client._tokens) + repr(client._tokens.token())
    assert SECRET not in shown
    assert "token-1" not in shown


def test_a_closed_client_returns_an_error_for_each_call(client: ScoringClient) -> None:
    client.close()
    got = client.ask(PARTS, None)
    assert isinstance(got, Unavailable)
    assert isinstance(got.exchange, Exchange)
    assert "closed" in got.message
