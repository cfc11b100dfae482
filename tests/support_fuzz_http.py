"""Arbitrary HTTP responses and servers that send them, for tests/fuzz."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from raw_http import RawServer, token
from support_fuzz import DOUBLES, LONGS, TEXTS, mutilated

from stream_scorer.genesys.client import ScoringClient

if TYPE_CHECKING:
    import socket

SECRET = "s3cr3t-of-the-fuzz"
TOKEN = "t0ken-of-the-fuzz-0123456789"
NAMES = [f"c{number}" for number in range(12)]

# --- bodies: JSON of a kind, then damaged, then packed

NUMBERS = st.one_of(DOUBLES, LONGS, st.integers(), st.sampled_from([10**400, -(10**4000), 0.5, 0.3, 0.7, -0.0]))
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)
RESULT = st.fixed_dictionaries(
    {"contactId": st.sampled_from(NAMES) | ANYTHING},
    optional={
        "score": NUMBERS | ANYTHING,
        "confidenceInterval": st.fixed_dictionaries({}, optional={"lower": NUMBERS, "upper": NUMBERS}) | ANYTHING,
    },
)
GOOD_RESULT = st.builds(
    lambda name, score: {
        "contactId": name,
        "score": score,
        "confidenceInterval": {"lower": score, "upper": score + 0.2},
    },
    *(st.sampled_from(NAMES), st.floats(0, 0.8)),
)
RESULTS = st.lists(GOOD_RESULT | RESULT | ANYTHING, max_size=15)
DETAILS = st.lists(st.fixed_dictionaries({"entityId": st.sampled_from(NAMES) | ANYTHING}) | ANYTHING, max_size=4)
ECHOES = st.sampled_from([f"Authorization: Bearer {TOKEN}", SECRET, f"<title>{SECRET}</title>", "Basic " + "QQ" * 20])
ERRORS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("code", "message", "error", "error_description", "description"), TEXTS | ECHOES | ANYTHING),
        "details": DETAILS | ANYTHING,
    },
)
GRANTS = st.fixed_dictionaries(
    {"access_token": st.just(TOKEN) | ANYTHING},
    optional={"token_type": st.sampled_from(["bearer", "Bearer", "mac"]) | ANYTHING, "expires_in": NUMBERS | ANYTHING},
)
TWICE = (
    '{"results":[{"contactId":"c0","score":0.1,"score":0.5,"confidenceInterval":{"lower":0,"upper":1}}],"results":[]}'
)
WRITTEN = st.one_of(
    *((st.fixed_dictionaries({"results": RESULTS}) | ERRORS | GRANTS | ANYTHING).map(json.dumps).map(str.encode),),
    st.sampled_from([TWICE, "[" * 5_000, '{"results":' * 900, '{"results":[1e999,' + "9" * 5_000 + "]}"]).map(
        str.encode
    ),
    ECHOES.map(lambda echo: f"<html><title{'<title' * 50}>{echo}</title>".encode()),
)
BODIES = WRITTEN | mutilated(WRITTEN) | st.binary(max_size=60)
BOMB = gzip.compress(b" " * 9_000_000)
PACKED = st.one_of(
    BODIES.map(lambda body: ("gzip", gzip.compress(body, 1))),
    mutilated(BODIES.map(gzip.compress)).map(lambda body: ("gzip", body)),
    BODIES.map(lambda body: ("deflate", zlib.compress(body, 1))),
    st.just(("gzip", BOMB)),
    st.tuples(st.sampled_from(["br", "identity", "gzip, gzip", "x"]), BODIES),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Retry-After",
            "inin-ratelimit-count",
            "inin-ratelimit-allowed",
            "inin-ratelimit-reset",
            "ININ-Correlation-Id",
            "Content-Type",
            "Location",
            "Set-Cookie",
            "WWW-Authenticate",
            "Content-Length",
            "Transfer-Encoding",
        ]
    ),
    st.one_of(
        st.sampled_from(
            ["1", "0", "-1", "1e9", "9" * 400, "nan", "Fri, 15 Jan 2027 08:01:00 GMT", "chunked", "300, 300"]
        ),
        st.sampled_from(
            ["Fri, 15 Jan 99999 08:01:00 GMT", "Thu, 01 Jan 1970 00:00:00 -2359", f"Bearer {TOKEN}", "\u00b2"]
        ),
        TEXTS,
    ),
    max_size=4,
)
STATUSES = st.sampled_from([200, 201, 204, 206, 302, 304, 400, 401, 403, 404, 408, 413, 418, 422, 429, 500, 502, 503])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Return what a server sends before it closes the connection."""
    encoding, body = draw(BODIES.map(lambda body: ("", body)) | PACKED)
    headers = draw(HEADERS)
    lines = [f"HTTP/1.1 {draw(STATUSES | st.integers(0, 9999))} {draw(st.sampled_from(['', 'OK', SECRET]))}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"content-encoding: {encoding}"] if encoding else []
    head = "\r\n".join(lines).encode("utf-8", "replace")
    if draw(st.integers(0, 3)):
        head += b"\r\ncontent-length: %d" % len(body)
    whole = head + b"\r\n\r\n" + body
    return draw(st.just(whole) | st.just(whole) | mutilated(st.just(whole)) | st.binary(max_size=40))


# --- through the socket


class HttpHarness:
    """A client, and servers for both of its endpoints that send a scripted response and close the connection."""

    def __init__(self, server: RawServer) -> None:
        # As the services set it: it repeats whole headers.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self.server = server
        self.said = b""
        self.granted: bytes | None = None
        server.responders = {"*": lambda _, conn: self._end_with(conn, self.said), "/oauth/token": self._grant}

    def client(self) -> ScoringClient:
        return ScoringClient(self.server.url, self.server.url, "id", SECRET, "m", timeout_s=5.0, token_timeout_s=5.0)

    def _grant(self, _: Any, conn: socket.socket) -> None:
        # After a valid token the connection stays open; otherwise the next request might use the closed connection.
        conn.sendall(token(TOKEN)) if self.granted is None else self._end_with(conn, self.granted)

    @staticmethod
    def _end_with(conn: socket.socket, data: bytes) -> None:
        conn.sendall(data)
        conn.shutdown(1)  # half-closed: the client reads to the end instead of waiting
