"""The webhook over real HTTP and TLS: requests, their addresses, and the result of every response."""

from __future__ import annotations

import gzip
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server
from standardwebhooks import Webhook
from support_targets import CALLBACK_ID, SECRET, callback, certificate, resolves

from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.targets.signature import Signer
from stream_scorer.targets.ssrf_guard import Guard, guard_for
from stream_scorer.targets.webhook import WebhookTarget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_scorer.core.callbacks.types import DeliveryAnswer

OTHER_SECRET = f"whsec_{b64encode(b'another secret of enough bytes').decode()}"
PATIENCE_S = 10.0  # where no time-out is tested: this machine may be busy
HURRY_S = 0.4
HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(answer(200))
        yield server


def target_of(url: str, timeout_s: float = PATIENCE_S, **more: Any) -> WebhookTarget:
    return WebhookTarget(url, Signer(SECRET), more.pop("guard", Guard()), timeout_s=timeout_s, **more)


def delivered(url: str, timeout_s: float = PATIENCE_S, **more: Any) -> DeliveryAnswer:
    target = target_of(url, timeout_s, **more)
    try:
        got = target.deliver(callback(target))
    finally:
        target.close()
    assert "\n" not in got.message
    return got


# --- what is sent


def test_exactly_the_body_is_sent_and_its_signature_holds(server: RawServer) -> None:
    target = target_of(f"{server.url}/hooks/?tenant=1")
    one = callback(target, "C-1", "ü")
    assert target.deliver(one).kind is DeliveryKind.DELIVERED
    [request] = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/hooks/?tenant=1", one.body)
    assert request.headers["webhook-id"] == CALLBACK_ID
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "stream-scorer"
    assert request.headers["content-length"] == str(len(one.body))
    assert "cookie" not in request.headers
    assert "traceparent" not in request.headers
    assert abs(time.time() - int(request.headers["webhook-timestamp"])) < 60
    Webhook(SECRET).verify(request.body, request.headers)


def test_an_attempt_sends_its_traceparent(server: RawServer) -> None:
    target = target_of(server.url)
    traceparent = f"00-{'1' * 32}-{'2' * 16}-01"
    target.deliver(callback(target), traceparent)
    [request] = server.requests
    assert request.headers["traceparent"] == traceparent
    Webhook(SECRET).verify(request.body, request.headers)


def test_a_retry_has_the_same_bytes_and_id_and_a_new_signature(server: RawServer) -> None:
    moments = [time.time() - 120, time.time()]
    target = target_of(server.url, wall_clock=lambda: moments[len(server.requests) > 0])
    for _ in range(2):
        target.deliver(callback(target))
    first, second = server.requests
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 120
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert first.connection == second.connection
    for request in (first, second):
        Webhook(SECRET).verify(request.body, request.headers)


def test_proxies_of_the_environment_are_not_used(server: RawServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        proxy = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "")
    assert delivered(server.url).kind is DeliveryKind.DELIVERED


# --- responses whose status decides


@pytest.mark.parametrize(
    "raw",
    [
        answer(200, b"<html>not JSON</html>"),
        answer(200, b"\x00\xff\xfe", {"content-type": "application/json"}),
        answer(200, b"zip?", {"content-encoding": "gzip"}),
        answer(202, b"x" * 10_000_000),
        answer(200, gzip.compress(bytes(100_000_000)), {"content-encoding": "gzip"}),
        HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
        answer(204),
    ],
    ids=["HTML", "garbage", "broken gzip", "large", "gzip bomb", "broken chunk", "empty"],
)
def test_the_body_of_a_2xx_does_not_matter(server: RawServer, raw: bytes) -> None:
    def respond(_: Any, conn: socket.socket) -> None:
        conn.sendall(raw)
        conn.shutdown(socket.SHUT_WR)

    server.respond(respond)
    got = delivered(server.url)
    assert got.kind is DeliveryKind.DELIVERED
    assert got.status in (200, 202, 204)
    assert len(server.requests) == 1


def test_an_endless_answer_is_cut_at_the_deadline(server: RawServer) -> None:
    def drip(_: Any, conn: socket.socket) -> None:
        conn.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        while True:
            conn.sendall(b"1\r\n \r\n")
            time.sleep(0.02)  # the rate of the drip is the fault under test

    server.respond(drip)
    got = delivered(server.url, HURRY_S)
    assert (got.kind, got.status) == (DeliveryKind.DELIVERED, 200)
    assert "its body is ignored: no complete answer" in got.message
    assert got.latency_ms < 1000 * HURRY_S + 2000
    assert server.dropped.acquire(timeout=5)


def test_a_flood_is_not_read_to_its_end(server: RawServer) -> None:
    sent = 0

    def flood(_: Any, conn: socket.socket) -> None:
        nonlocal sent
        conn.sendall(HEAD + b"connection: close\r\n\r\n")
        while True:
            sent += conn.send(bytes(100_000))

    server.respond(flood)
    got = delivered(server.url)
    assert got.kind is DeliveryKind.DELIVERED
    assert server.dropped.acquire(timeout=5)
    assert sent < 50_000_000  # what fits into the sockets' buffers, with room


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(server: RawServer, status: int) -> None:
    server.respond(answer(status, b"", {"location": f"{server.url}/elsewhere?token=s3cret"}))
    got = delivered(f"{server.url}/hooks")
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, status)
    assert "s3cret" not in got.message
    assert [request.path for request in server.requests] == ["/hooks"]


def test_the_body_of_a_response_is_not_passed_on(server: RawServer) -> None:
    server.respond(answer(400, b"hunter2 hunter2", {"x-reason": "hunter2"}).replace(b"Whatever", b"hunter2"))
    assert "hunter2" not in repr(delivered(server.url))


def test_retry_after_is_applied_although_the_body_never_ends(server: RawServer) -> None:
    def stall(_: Any, conn: socket.socket) -> None:
        conn.sendall(b"HTTP/1.1 503 No\r\nretry-after: 9\r\ncontent-length: 50\r\n\r\n")
        conn.recv(1)

    server.respond(stall)
    got = delivered(server.url, HURRY_S)
    assert (got.kind, got.status, got.retry_after_s) == (DeliveryKind.TRY_LATER, 503, 9.0)


def test_a_409_may_mean_that_the_callback_was_received(server: RawServer) -> None:
    server.respond(answer(409))
    got = delivered(server.url)
    assert (got.kind, got.is_conflict, got.is_unanswered) == (DeliveryKind.REFUSED, True, False)


# --- no answer


def hang(_: Any, conn: socket.socket) -> None:
    conn.recv(1)


@pytest.mark.parametrize(
    ("responder", "words"),
    [
        (hang, "no complete answer from 127.0.0.1:.* within 0.4 s"),
        (lambda _, conn: conn.shutdown(socket.SHUT_RDWR), "closed without an answer"),
        (lambda _, conn: conn.sendall(b"SSH-2.0-x\r\n\r\n"), "does not answer in HTTP"),
    ],
    ids=["hangs", "drops", "no HTTP"],
)
def test_without_a_response_it_is_retried_later(server: RawServer, responder: Any, words: str) -> None:
    server.respond(responder)
    got = delivered(server.url, HURRY_S)
    assert (got.kind, got.status, got.retry_after_s) == (DeliveryKind.TRY_LATER, None, None)
    assert re.search(words, got.message), got.message
    assert got.is_unanswered, "the receiver may have it"
    assert len(server.requests) == 1


def test_a_closed_port_and_an_unknown_name_are_retried_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    got = delivered(url)
    assert got.kind is DeliveryKind.TRY_LATER
    assert "refused" in got.message
    assert not got.is_unanswered, "nothing was sent"
    got = delivered("http://nowhere.test/", guard=Guard(resolve=resolves()))
    assert got.kind is DeliveryKind.TRY_LATER
    assert got.message == ("the connection to nowhere.test failed or was lost: Name or service not known")
    assert not got.is_unanswered


def test_an_address_blocked_since_the_start_is_named_and_retried_later(server: RawServer) -> None:
    """A name that resolves to a blocked address may change again, and a rejection would be final."""
    port = int(server.url.rpartition(":")[2])
    answers = ["127.0.0.1", "169.254.169.254", "127.0.0.1"]

    def resolve(host: str, at: int, **more: Any) -> list[Any]:
        return resolves(receiver_test=answers.pop(0))(host, at, **more)

    url = f"http://receiver.test:{port}/hooks"
    guard = guard_for(url, allow_http=True, resolve=resolve)
    got = delivered(url, guard=guard)
    assert (got.kind, got.status) == (DeliveryKind.TRY_LATER, None)
    assert got.message == (f"no connection to receiver.test:{port}: its address 169.254.169.254 is link-local")
    assert not got.is_unanswered
    assert not server.requests
    assert delivered(url, guard=guard).kind is DeliveryKind.DELIVERED


def test_a_hanging_resolver_is_abandoned() -> None:
    released = threading.Event()

    def stalled(*_: Any, **__: Any) -> list[Any]:
        released.wait(10)
        return []

    got = delivered("http://receiver.test/", HURRY_S, guard=Guard(resolve=stalled))
    released.set()
    assert got.kind is DeliveryKind.TRY_LATER
    assert got.message == "no connection to receiver.test within 0.4 s"
    assert not got.is_unanswered


def test_close_ends_requests_in_flight(server: RawServer) -> None:
    reached = threading.Event()

    def wait(_: Any, conn: socket.socket) -> None:
        reached.set()
        conn.recv(1)

    server.respond(wait)
    target = target_of(server.url, 60.0)
    answers: list[DeliveryAnswer] = []
    thread = threading.Thread(target=lambda: answers.append(target.deliver(callback(target))))
    thread.start()
    assert reached.wait(5)
    target.close()
    thread.join(5)
    assert [(got.kind, got.is_unanswered) for got in answers] == [(DeliveryKind.TRY_LATER, True)]


# --- TLS


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"), "receiver.test")


@pytest.fixture
def secure(pems: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RawServer, list[str | None]]]:
    authority, own = pems
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    context.sni_callback = lambda _, name, __: names.append(name)
    with raw_server(context) as server:
        server.respond(answer(200))
        yield server, names


def test_the_checked_address_is_connected_to_and_tls_knows_the_name(
    secure: tuple[RawServer, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, names = secure
    monkeypatch.setattr(socket, "getaddrinfo", resolves())  # only the guard resolves
    port = int(server.url.rpartition(":")[2])
    got = delivered(f"https://receiver.test:{port}/hooks", guard=Guard(resolve=resolves(receiver_test="127.0.0.1")))
    assert got.kind is DeliveryKind.DELIVERED, got
    assert names == ["receiver.test"]
    [request] = server.requests
    assert request.headers["host"] == f"receiver.test:{port}"


def test_a_certificate_for_another_name_is_rejected(secure: tuple[RawServer, list[str | None]]) -> None:
    server, names = secure
    url = f"https://other.test:{server.url.rpartition(':')[2]}/"
    got = delivered(url, guard=Guard(resolve=resolves(other_test="127.0.0.1")))
    assert (got.kind, got.status) == (DeliveryKind.TRY_LATER, None)
    assert "no TLS connection" in got.message
    assert "other.test" in got.message
    assert names == ["other.test"]
    assert not got.is_unanswered
    assert not server.requests


def test_a_certificate_of_an_unknown_authority_is_rejected(
    secure: tuple[RawServer, list[str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = secure
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    url = f"https://receiver.test:{server.url.rpartition(':')[2]}/"
    got = delivered(url, guard=Guard(resolve=resolves(receiver_test="127.0.0.1")))
    assert got.kind is DeliveryKind.TRY_LATER
    assert "certificate" in got.message
    assert not got.is_unanswered
    assert not server.requests
