"""One deadline for the whole exchange at every possible stall, and the result of a lost connection."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, results

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import Answered, Unavailable
from stream_scorer.genesys.client import ScoringClient
from stream_scorer.genesys.wire import encode_contact
from stream_scorer.http_client import connections

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = [encode_contact("c1", {"calls": 1})]
TIMEOUT_S = 0.4
PATIENCE_S = 10.0  # where no time-out is tested: this machine may be busy
HEAD = b"HTTP/1.1 200 OK\r\n"


def drip(first: bytes, piece: bytes) -> Any:
    """Send ``first``, then ``piece`` repeatedly with pauses below the socket time-out until the client disconnects."""

    def responder(_: Any, conn: socket.socket) -> None:
        conn.sendall(first)
        while True:
            conn.sendall(piece)
            time.sleep(0.02)  # the rate of the drip is the fault under test

    return responder


def silent(_: Any, conn: socket.socket) -> None:
    """Send nothing until the client disconnects."""
    conn.recv(1)


STALLS = {
    "no answer": silent,
    "headers": drip(HEAD, b"x-more: 1\r\n"),
    "status line": drip(b"", b"H"),
    "body with length": drip(HEAD + b"content-length: 1000000\r\n\r\n", b" "),
    "chunked body": drip(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "body without length": drip(HEAD + b"connection: close\r\n\r\n", b" "),
}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    made = folder / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no openssl to make a certificate with: {error}")
    made.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return made


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    context = None
    if request.param == "https":
        certificate = request.getfixturevalue("certificate")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with raw_server(context) as server:
        server.respond(lambda asked, conn: conn.sendall(results(asked)))
        yield server


def client_of(server: RawServer, timeout_s: float, token_timeout_s: float = PATIENCE_S) -> ScoringClient:
    url = server.url
    return ScoringClient(url, url, "id", "secret", "m", timeout_s=timeout_s, token_timeout_s=token_timeout_s)


@pytest.fixture
def client(server: RawServer) -> Iterator[ScoringClient]:
    client = client_of(server, PATIENCE_S)
    yield client
    client.close()


@pytest.fixture
def hurried(server: RawServer) -> Iterator[ScoringClient]:
    client = client_of(server, TIMEOUT_S)
    yield client
    client.close()


def unavailable(answer: Any, trouble: HttpFailure) -> Unavailable:
    assert isinstance(answer, Unavailable)
    assert answer.failure is trouble, answer
    assert answer.exchange.latency_ms < 1000 * TIMEOUT_S + 2000
    return answer


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("reused", [False, True])
def test_stalled_answer(server: RawServer, hurried: ScoringClient, stall: str, *, reused: bool) -> None:
    if reused:
        hurried.ask(PARTS, None)
    server.respond(STALLS[stall])
    got = unavailable(hurried.ask(PARTS, None), HttpFailure.TIMEOUT)
    assert got.exchange.latency_ms >= 1000 * TIMEOUT_S - 10
    assert "within 0.4 s" in got.message
    assert server.dropped.acquire(timeout=5)  # the connection is really gone, not left to the garbage collector


@pytest.mark.parametrize("stall", ["no answer", "body with length"])
def test_stalled_token(server: RawServer, stall: str) -> None:
    server.respond(STALLS[stall], path="/oauth/token")
    client = client_of(server, PATIENCE_S, TIMEOUT_S)
    assert "no token" in unavailable(client.ask(PARTS, None), HttpFailure.NO_TOKEN).message
    client.close()


def test_error_status_counts_although_its_body_stalls(server: RawServer, hurried: ScoringClient) -> None:
    head = b"HTTP/1.1 429 Slow\r\nretry-after: 9\r\ncontent-length: 50\r\n\r\n"
    server.respond(drip(head, b" "))
    got = unavailable(hurried.ask(PARTS, None), HttpFailure.RATE_LIMITED)
    assert (got.retry_after_s, got.exchange.status) == (9.0, 429)


def test_server_that_does_not_read(server: RawServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # accepts in the kernel, reads nothing
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        sender = ScoringClient(url, server.url, "id", "secret", "m", timeout_s=TIMEOUT_S)
        unavailable(sender.send(b" " * 30_000_000, 1), HttpFailure.TIMEOUT)
        sender.close()


def test_tls_handshake_that_stalls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        client = ScoringClient(url, url, "id", "secret", "m", token_timeout_s=TIMEOUT_S)
        assert "within 0.4 s" in unavailable(client.ask(PARTS, None), HttpFailure.NO_TOKEN).message
        client.close()


def test_resolver_that_stalls(hurried: ScoringClient, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = threading.Event()
    real = socket.getaddrinfo

    def stalled(*args: Any, **kwargs: Any) -> Any:
        resolved.wait(10)
        return real(*args, **kwargs)

    hurried.ask(PARTS, None)
    monkeypatch.setattr(connections, "IDLE_LIMIT_S", -1.0)
    monkeypatch.setattr(socket, "getaddrinfo", stalled)
    got = unavailable(hurried.ask(PARTS, None), HttpFailure.NO_CONNECTION)
    assert "no connection" in got.message
    resolved.set()


def test_certificate_that_is_not_trusted(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with raw_server(context) as server:
        client = client_of(server, PATIENCE_S)
        got = unavailable(client.ask(PARTS, None), HttpFailure.NO_TOKEN)
        assert "TLS" in got.message
        assert "certificate" in got.message
        client.close()


@pytest.mark.parametrize(
    ("sent", "trouble", "status"),
    [
        (b"", HttpFailure.NO_CONNECTION, None),
        (HEAD + b"content-length: 100\r\n\r\n{", HttpFailure.MALFORMED, 200),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\n{", HttpFailure.MALFORMED, 200),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", HttpFailure.MALFORMED, 200),
        (b"HTTP/1.1 500 No\r\ncontent-length: 100\r\n\r\n{", HttpFailure.SERVER_ERROR, 500),
    ],
)
def test_connection_lost(
    server: RawServer, client: ScoringClient, sent: bytes, trouble: HttpFailure, status: int | None
) -> None:
    def drop(_: Any, conn: socket.socket) -> None:
        conn.sendall(sent)
        conn.shutdown(socket.SHUT_RDWR)

    server.respond(drop)
    got = unavailable(client.ask(PARTS, None), trouble)
    assert got.exchange.status == status
    assert len(server.to("/api")) == 1  # a billed POST is not repeated automatically


def test_an_idle_connection_that_was_closed_is_not_used(server: RawServer, client: ScoringClient) -> None:
    def answer_and_leave(request: Any, conn: socket.socket) -> None:
        conn.sendall(results(request))
        conn.shutdown(socket.SHUT_RDWR)

    server.respond(answer_and_leave)
    assert isinstance(client.ask(PARTS, None), Answered)
    assert server.dropped.acquire(timeout=5)
    assert isinstance(client.ask(PARTS, None), Answered)


def test_a_long_idle_connection_is_not_used(
    server: RawServer, client: ScoringClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.ask(PARTS, None)
    client.ask(PARTS, None)
    monkeypatch.setattr(connections, "IDLE_LIMIT_S", -1.0)
    client.ask(PARTS, None)
    first, second, third = (request.connection for request in server.to("/api"))
    assert first == second != third


def test_close_ends_requests_in_flight(server: RawServer) -> None:
    client = client_of(server, timeout_s=30.0)
    reached = threading.Event()

    def hang(_: Any, __: Any) -> None:
        reached.set()
        server.released.wait(10)

    server.respond(hang)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(client.ask(PARTS, None)))
    thread.start()
    assert reached.wait(5)
    client.close()
    thread.join(5)
    assert not thread.is_alive()
    assert "closed" in unavailable(answers[0], HttpFailure.NO_CONNECTION).message


def test_no_sockets_or_threads_are_left(server: RawServer) -> None:
    def left() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    others = set(threading.enumerate())  # of clients not closed by other tests
    before = left()
    client = client_of(server, 0.1)
    for raw in (drip(HEAD, b"x: 1\r\n"), answer(200, b"zip?", {"content-encoding": "gzip"}), answer(503), silent):
        server.respond(raw)
        for _ in range(3):
            client.ask(PARTS, None)
    client.close()
    for _ in range(200):
        if left() <= before and not any(
            one.name.startswith("stream-scorer") for one in set(threading.enumerate()) - others
        ):
            return
        threading.Event().wait(0.02)
    pytest.fail(f"{left() - before} sockets left; threads: {threading.enumerate()}")
