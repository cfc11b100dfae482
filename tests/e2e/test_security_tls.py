"""TLS is verified wherever something is sent over HTTP: login service, API and receiver; none falls back."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, results
from support_targets import SECRET, callback, certificate

from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import Answered, Unavailable
from stream_scorer.genesys.client import ScoringClient
from stream_scorer.targets.signature import Signer
from stream_scorer.targets.ssrf_guard import Guard
from stream_scorer.targets.webhook import WebhookTarget

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTS = [b'{"contactId":"c1","features":{}}']


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"), "localhost")


def context_of(own: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    return context


@pytest.fixture
def login() -> Iterator[RawServer]:
    with raw_server() as server:
        yield server


def asked(api: str, login: RawServer) -> Any:
    client = ScoringClient(api, login.url, "id", "secret", "m", timeout_s=5.0)
    try:
        return client.ask(PARTS, None)
    finally:
        client.close()


def delivered(url: str) -> Any:
    target = WebhookTarget(url, Signer(SECRET), Guard(lambda _: None), timeout_s=5.0)
    try:
        return target.deliver(callback(target))
    finally:
        target.close()


def by_name(server: RawServer) -> str:
    return server.url.replace("127.0.0.1", "localhost")


def test_the_api_is_used_only_with_a_trusted_certificate_for_its_name(
    pems: tuple[Path, Path], login: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, own = pems
    with raw_server(context_of(own)) as api:
        api.respond(lambda request, conn: conn.sendall(results(request)))
        unknown = asked(by_name(api), login)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
        other_name = asked(api.url, login)
        assert not api.requests, "the token was sent to an unauthenticated server"
        assert isinstance(asked(by_name(api), login), Answered)
    for got in (unknown, other_name):
        assert isinstance(got, Unavailable)
        assert got.failure is HttpFailure.NO_CONNECTION
        assert "no TLS connection" in got.message


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("newest", "spoken"), [("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True)])
def test_tls_before_1_2_is_rejected(
    pems: tuple[Path, Path], login: RawServer, monkeypatch: pytest.MonkeyPatch, newest: str, *, spoken: bool
) -> None:
    authority, own = pems
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))
    context = context_of(own)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion[newest]
    with raw_server(context) as server:
        server.respond(answer(200, {"results": []}))
        assert isinstance(asked(by_name(server), login), Answered) == spoken
        got = delivered(f"{by_name(server)}/hooks")
        assert (got.kind is DeliveryKind.DELIVERED) == spoken, got
        assert len(server.requests) == (2 if spoken else 0)


def test_nothing_is_sent_to_a_port_without_tls(login: RawServer) -> None:
    with raw_server() as plain:
        plain.respond(answer(200))
        url = by_name(plain).replace("http:", "https:")
        assert isinstance(asked(url, login), Unavailable)
        assert delivered(f"{url}/hooks").kind is DeliveryKind.TRY_LATER
        assert not plain.requests
