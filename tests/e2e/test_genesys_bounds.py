"""Bounds of memory and time for any response; the next request gets its own response."""

from __future__ import annotations

import contextlib
import gzip
import time
import tracemalloc
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, results

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import Answered, Refused, Unavailable, Unexpected
from stream_scorer.genesys.client import ScoringClient
from stream_scorer.genesys.wire import encode_contact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARTS = [encode_contact("c1", {"calls": 1})]
TIMEOUT_S = 1.0
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
MEGABYTES = 1_000_000
DEEP = b'{"results":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
DEEP_OBJECTS = b'{"message":' * 100_000 + b'""' + b"}" * 100_000


@cache  # not at import: every process of a test run imports this module
def packed(wbits: int, megabytes: int = 300) -> bytes:
    """Return so many megabytes of spaces, compressed as a stream."""
    pack = zlib.compressobj(9, zlib.DEFLATED, wbits)
    piece = b" " * MEGABYTES
    return b"".join([*(pack.compress(piece) for _ in range(megabytes)), pack.flush()])


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: packed(31),
    "x-gzip": lambda: packed(31),
    "deflate": lambda: packed(15),
    "deflate, raw": lambda: packed(-15),
    "gzip, gzip": lambda: gzip.compress(packed(31)),
    "gzip, gzip, gzip": lambda: gzip.compress(gzip.compress(packed(31))),
    "gzip, deflate": lambda: zlib.compress(packed(31)),
    "gzip, in small members": lambda: gzip.compress(b" " * 100_000) * 3_000,
}


def endless(first: bytes, piece: bytes) -> Any:
    """Send ``first``, then ``piece`` repeatedly without a pause until the client disconnects."""
    many = piece * (100_000 // len(piece) + 1)

    def responder(_: Any, conn: Any) -> None:
        conn.settimeout(TIMEOUT_S)  # a closed connection is not reported to the sender at once on every network
        with contextlib.suppress(OSError):
            conn.sendall(first)
            while True:
                conn.sendall(many)

    return responder


ENDLESS = {
    "status line": endless(b"", b"H"),
    "header": endless(OK + b"x: ", b"a"),
    "headers": endless(OK, b"x: 1\r\n"),
    "interim responses": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": endless(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
    "headers of an interim response": endless(b"HTTP/1.1 102 Processing\r\n", b"x: 1\r\n"),
    "size of a chunk": endless(CHUNKED, b"0"),
    "extension of a chunk": endless(CHUNKED + b"1;", b"e"),
    "chunks": endless(CHUNKED, b"400\r\n" + b" " * 1024 + b"\r\n"),
    "smallest chunks": endless(CHUNKED, b"1\r\n \r\n"),
    "trailer": endless(CHUNKED + b"1\r\n{\r\n0\r\n", b"e"),
    "trailers": endless(CHUNKED + b"1\r\n{\r\n0\r\n", b"x: 1\r\n"),
    "body without length": endless(OK + b"connection: close\r\n\r\n", b" "),
    "body with a length of its own": endless(OK + b"content-length: 99999999999999999999\r\n\r\n", b" "),
    "gzip members": endless(OK + b"content-encoding: gzip\r\nconnection: close\r\n\r\n", gzip.compress(b"")),
}


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(lambda request, conn: conn.sendall(results(request)))
        yield server


@pytest.fixture
def client(server: RawServer) -> Iterator[ScoringClient]:
    client = ScoringClient(server.url, server.url, "id", "secret", "m", timeout_s=TIMEOUT_S)
    client.ask(PARTS, None)
    yield client
    client.close()


def bounded(client: ScoringClient) -> Any:
    """Send a request and check its time and memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        got = client.ask(PARTS, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 25 * MEGABYTES, f"{peak / MEGABYTES:.0f} MB"
    assert time.monotonic() - began < TIMEOUT_S + 3.0
    return got


@pytest.mark.parametrize("encoding", BOMBS)
def test_compression_bombs(server: RawServer, client: ScoringClient, encoding: str) -> None:
    name = encoding.removesuffix(", raw").removesuffix(", in small members")
    server.respond(answer(200, BOMBS[encoding](), {"content-encoding": name}))
    got = bounded(client)
    assert isinstance(got, Unavailable)
    assert (got.failure, got.exchange.status) == (HttpFailure.MALFORMED, 200)
    assert "too large" in got.message


@pytest.mark.parametrize("status", [400, 500])
def test_compression_bombs_in_error_bodies(server: RawServer, client: ScoringClient, status: int) -> None:
    server.respond(answer(status, packed(31), {"content-encoding": "gzip"}))
    got = bounded(client)
    assert type(got) is {400: Refused, 500: Unavailable}[status]
    assert got.message == f"HTTP {status}"


@pytest.mark.parametrize("what", ENDLESS)
def test_endless_responses(server: RawServer, client: ScoringClient, what: str) -> None:
    server.respond(ENDLESS[what])
    got = bounded(client)
    assert isinstance(got, Unavailable)
    assert got.failure in {HttpFailure.MALFORMED, HttpFailure.TIMEOUT}
    server.respond(lambda request, conn: conn.sendall(results(request)))
    assert isinstance(client.ask(PARTS, None), Answered), "the connection must not be used again"


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br", "x", ",".join(["gzip"] * 50)])
def test_unrequested_content_encodings(server: RawServer, client: ScoringClient, encoding: str) -> None:
    server.respond(answer(200, b'\x1b\x03\x00{"results": []}', {"content-encoding": encoding}))
    got = bounded(client)
    assert isinstance(got, Unavailable)
    assert got.failure is HttpFailure.MALFORMED


@pytest.mark.parametrize("body", [DEEP, DEEP_OBJECTS, b'{"results":[' + DEEP_OBJECTS + b"]}"])
@pytest.mark.parametrize(("status", "kind"), [(200, Unavailable), (400, Refused), (503, Unavailable)])
def test_json_of_a_hundred_thousand_levels(
    server: RawServer, client: ScoringClient, body: bytes, status: int, kind: type
) -> None:
    server.respond(answer(status, body))
    got = bounded(client)
    assert type(got) is kind
    assert len(got.message) < 400


def test_deeply_nested_json_is_no_result(server: RawServer, client: ScoringClient) -> None:
    deep: Any = 0.5
    for _ in range(900):
        deep = [deep]
    server.respond(answer(200, {"results": [{"contactId": "c1", "score": deep, "confidenceInterval": deep}]}))
    assert isinstance(bounded(client), Answered)


class TestInterimResponses:
    """http.client takes them for the response; the real one would then answer the next request."""

    @pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 Whatever"])
    def test_interim_responses_are_skipped(self, server: RawServer, client: ScoringClient, interim: bytes) -> None:
        def hint(request: Any, conn: Any) -> None:
            conn.sendall(2 * (b"HTTP/1.1 " + interim + b"\r\nlink: </a>\r\ncontent-length: 5\r\n\r\n"))
            time.sleep(0.05)  # the answer comes later than its hint
            conn.sendall(results(request))

        server.respond(hint)
        for number in range(3):
            got = client.ask([encode_contact(f"c{number}", {"calls": 1})], None)
            assert isinstance(got, Answered)
            assert [item["contactId"] for item in got.results] == [f"c{number}"]
        assert len({request.connection for request in server.to("/api")}) == 1

    def test_another_protocol_is_not_spoken(self, server: RawServer, client: ScoringClient) -> None:
        server.respond(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
        got = client.ask(PARTS, None)
        assert isinstance(got, Unavailable)
        assert "does not answer in HTTP" in got.message
        server.respond(lambda request, conn: conn.sendall(results(request)))
        assert isinstance(client.ask(PARTS, None), Answered)


def test_bytes_after_a_response_are_not_the_next_one(server: RawServer, client: ScoringClient) -> None:
    stale = answer(418, b"stale")

    def answer_twice(request: Any, conn: Any) -> None:
        conn.sendall(results(request) + stale)

    server.respond(answer_twice)
    for _ in range(3):
        assert not isinstance(client.ask(PARTS, None), Unexpected)


def test_a_login_service_has_the_same_bounds(server: RawServer) -> None:
    for raw in (answer(200, packed(31), {"content-encoding": "gzip"}), answer(200, DEEP)):
        server.respond(raw, path="/oauth/token")
        client = ScoringClient(server.url, server.url, "id", "secret", "m", token_timeout_s=TIMEOUT_S)
        got = bounded(client)
        assert isinstance(got, Unavailable)
        assert "no token" in got.message
        client.close()
