"""The target genesys-outbound over real HTTP: requests, the result of every response, tokens and quota."""

from __future__ import annotations

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from raw_http import RawServer, answer, hang_up, raw_server, token
from support_targets import callback, score, settings

from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.errors import SettingsError
from stream_scorer.genesys.oauth import TokenSource
from stream_scorer.genesys.request_quota import Quota
from stream_scorer.http_client.client import Http
from stream_scorer.settings import Settings
from stream_scorer.targets.contact_columns import DEFAULT_COLUMNS
from stream_scorer.targets.factory import build_target
from stream_scorer.targets.genesys_outbound import OutboundTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECRET = "s3cr3t-of-the-test"
LIST = "list/1"
LIST_PATH = "/api/v2/outbound/contactlists/list%2F1"
ADD = f"{LIST_PATH}/contacts?priority=true&doNotQueue=true"
# The contact id is the number to call, so that the default columns are enough.
LISTED = {"columnNames": [*DEFAULT_COLUMNS], "phoneColumns": [{"columnName": "contact_id", "type": "cell"}], "size": 1}


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(answer(200, []))
        server.respond(answer(200, LISTED), path=LIST_PATH)
        yield server


@pytest.fixture
def make(server: RawServer) -> Iterator[Callable[..., OutboundTarget]]:
    made: list[OutboundTarget] = []

    def make(requests_per_minute: int = 300, **more: Any) -> OutboundTarget:
        http = Http(8)
        tokens = TokenSource(http, server.url, "client-1", SECRET)
        made.append(OutboundTarget(http, tokens, Quota(requests_per_minute), server.url + "/", LIST, **more))
        return made[-1]

    yield make
    for target in made:
        target.close()


def settings_for(server: RawServer, **callbacks: Any) -> Settings:
    genesys = {"base_url": server.url, "login_url": server.url, "client_id": "client-1", "client_secret": SECRET}
    return Settings.model_validate({"genesys": genesys, "callbacks": {"target": "genesys-outbound", **callbacks}})


def test_the_contacts_are_added_to_the_list(server: RawServer) -> None:
    target = build_target(settings_for(server, contact_list_id=LIST))
    one = callback(target, "C-1", "ü")
    got = target.deliver(one)
    assert (got.kind, got.status, got.message) == (DeliveryKind.DELIVERED, 200, "HTTP 200 (OK)")
    fetch, read, request = server.requests
    assert (fetch.path, read.method, read.path) == ("/oauth/token", "GET", LIST_PATH)
    assert (request.method, request.path, request.body) == ("POST", ADD, one.body)
    assert request.headers["authorization"] == "Bearer token-1"
    assert request.headers["content-type"] == "application/json"
    first, second = request.json
    assert first == {
        "id": first["id"],
        "contactListId": LIST,
        "data": {
            "contact_id": "C-1",
            "event_id": "event-C-1",
            "campaign_id": "spring",
            "score": "0.875",
            "confidence_lower": "0.75",
            "confidence_upper": "1.0",
            "model_id": "model-1",
            "model_version": "v1",
            "occurred_at": "2030-03-17T17:46:39.001Z",
            "scored_at": "2030-03-17T17:46:39.999Z",
        },
    }
    assert tuple(first["data"]) == tuple(DEFAULT_COLUMNS)
    assert second["data"]["contact_id"] == "ü"
    assert first["id"] != second["id"]
    assert target.name == f"genesys-outbound {server.url}/contactlists/{LIST}"
    target.close()


def test_a_contact_has_the_same_id_whatever_its_score_and_another_in_every_list(
    make: Callable[..., OutboundTarget], server: RawServer
) -> None:
    target = make()
    ids = [orjson.loads(target.entry(score("C-1", **more)))["id"] for more in ({}, {"score": 0.9, "event_id": "new"})]
    assert ids[0] == ids[1]
    assert uuid.UUID(ids[0]).version == 5
    other = build_target(settings_for(server, contact_list_id="list-2"))
    assert orjson.loads(other.entry(score("C-1")))["id"] != ids[0]


def test_null_is_an_empty_text(make: Callable[..., OutboundTarget]) -> None:
    data = orjson.loads(make().entry(score(campaign_id=None, model_version=None)))["data"]
    assert (data["campaign_id"], data["model_version"]) == ("", "")
    assert all(isinstance(value, str) for value in data.values())


def test_a_thousand_contacts_are_under_the_limit(make: Callable[..., OutboundTarget]) -> None:
    target = make()
    entries = [target.entry(score(f"contact-{number:010}")) for number in range(1000)]
    assert len(target.body("id", "spring", "model-1", 0, entries)) < target.max_body_bytes


# --- answers


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (202, DeliveryKind.DELIVERED, "202"),
        (302, DeliveryKind.REFUSED, "not followed"),
        (400, DeliveryKind.REFUSED, "HTTP 400 (Bad Request) some.code"),
        (403, DeliveryKind.REFUSED, "needs the scope outbound"),
        (404, DeliveryKind.REFUSED, "callbacks.contact_list_id"),
        (409, DeliveryKind.REFUSED, "some.code"),
        (413, DeliveryKind.REFUSED, "413"),
        (429, DeliveryKind.TRY_LATER, "some.code"),
        (500, DeliveryKind.TRY_LATER, "some.code"),
        (504, DeliveryKind.TRY_LATER, "504"),
    ],
)
def test_answers(
    server: RawServer, make: Callable[..., OutboundTarget], status: int, kind: DeliveryKind, words: str
) -> None:
    server.respond(answer(status, {"code": "some.code", "message": "hunter2", "status": status}))
    target = make()
    got = target.deliver(callback(target))
    assert (got.kind, got.status) == (kind, status)
    assert words in got.message
    assert "hunter2" not in got.message
    assert "\n" not in got.message
    assert len(server.to(ADD)) == 1


def test_retry_after_applies_to_every_request(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    server.respond(answer(429, {"code": "too.many.requests"}, {"retry-after": "600"}), answer(200, []))
    target = make()
    first, second = (target.deliver(callback(target)) for _ in range(2))
    assert (first.kind, first.retry_after_s) == (DeliveryKind.TRY_LATER, 600.0)
    assert (second.kind, second.status) == (DeliveryKind.NOT_SENT, None)
    assert second.retry_after_s == pytest.approx(600, abs=30)
    assert len(server.to(ADD)) == 1


def test_a_list_without_an_answer_delays_no_other_list(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    asked = threading.Event()

    def hang(*_: Any) -> None:
        asked.set()
        server.released.wait(20)

    server.respond(hang, path="/api/v2/outbound/contactlists/slow")
    target = make(contact_lists={"autumn": "slow"}, timeout_s=2.0)
    slow = [replace(callback(target, "C-1", campaign_id="autumn"), target=target.target_of("autumn"))] * 6
    with ThreadPoolExecutor(len(slow)) as pool:
        answers = [pool.submit(target.deliver, one) for one in slow]
        assert asked.wait(5)
        assert target.deliver(callback(target, "C-2")).kind is DeliveryKind.DELIVERED
        assert not any(one.done() for one in answers), "it waited for the other list"
        assert {one.result().kind for one in answers} == {DeliveryKind.TRY_LATER}
    assert len(server.to("/api/v2/outbound/contactlists/slow")) == 1, "those that waited share its result"


def test_no_response_is_retried_later(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    server.respond(b"")
    target = make(timeout_s=0.4)
    got = target.deliver(callback(target))
    assert (got.kind, got.status) == (DeliveryKind.TRY_LATER, None)
    assert len(server.to(ADD)) == 1


def test_a_callback_for_another_target_is_held_and_not_sent(
    server: RawServer, make: Callable[..., OutboundTarget]
) -> None:
    hook = build_target(settings(target="log"))
    outbound = make()
    got = outbound.deliver(callback(hook))
    assert got.kind is DeliveryKind.HELD
    assert "made for 'log'" in got.message
    assert not server.requests


def test_waiting_callbacks_follow_another_region_or_proxy_but_no_other_list(
    server: RawServer, make: Callable[..., OutboundTarget]
) -> None:
    server.respond(token(), path="/oauth/token")
    outbound = make()
    one = callback(outbound, "C-1")
    moved = replace(one, target=f"genesys-outbound https://api.elsewhere.example/contactlists/{LIST}")
    assert outbound.deliver(moved).kind is DeliveryKind.DELIVERED
    for other in (
        "genesys-outbound https://api.elsewhere.example/contactlists/2",
        f"webhook https://x/contactlists/{LIST}",
    ):
        assert outbound.deliver(replace(one, target=other)).kind is DeliveryKind.HELD
    assert [one.method for one in server.to("/api")] == ["GET", "POST"]


# --- tokens


def test_a_rejected_token_is_renewed_once(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    server.respond(token("old"), token("new"), path="/oauth/token")
    server.respond(answer(401, {"code": "bad.credentials"}), answer(200, []))
    target = make()
    one = callback(target)
    assert target.deliver(one).kind is DeliveryKind.DELIVERED
    requests = server.to(ADD)
    assert [request.headers["authorization"] for request in requests] == ["Bearer old", "Bearer new"]
    assert [request.body for request in requests] == [one.body, one.body]


def test_a_second_401_holds(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    server.respond(answer(401, {"code": "bad.credentials"}))
    target = make()
    got = target.deliver(callback(target))
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, 401)
    assert "genesys.client_id" in got.message
    assert len(server.to(ADD)) == 2


@pytest.mark.parametrize(
    ("said", "kind", "after_s"),
    [
        (answer(401, {"error": "invalid_client"}), DeliveryKind.TRY_LATER, None),
        (answer(503, b"", {"retry-after": "7"}), DeliveryKind.TRY_LATER, 7.0),
        (answer(200, {"no": "token"}), DeliveryKind.TRY_LATER, None),
    ],
    ids=["refused", "unavailable", "malformed"],
)
def test_without_a_token_nothing_is_sent(
    server: RawServer, make: Callable[..., OutboundTarget], said: bytes, kind: DeliveryKind, after_s: float | None
) -> None:
    server.respond(said, path="/oauth/token")
    target = make()
    got = target.deliver(callback(target))
    assert (got.kind, got.status, got.retry_after_s) == (kind, None, after_s)
    assert SECRET not in got.message
    assert not server.to("/api")


@pytest.mark.parametrize("status", [302, 408, 409, 410, 429, 500, 503, None])
def test_a_remedy_names_no_setting_of_webhooks(
    server: RawServer, make: Callable[..., OutboundTarget], status: int | None
) -> None:
    server.respond(hang_up if status is None else answer(status, {"code": "some.code"}))
    target = make()
    remedy = target.deliver(callback(target, "C-1", "C-2")).remedy
    assert remedy
    assert not any(word in remedy for word in ("callbacks.url", "callbacks.secret", "max_per_minute", "receiver"))


# --- quota


def test_a_wait_for_the_quota_is_limited_and_reported_in_seconds(
    server: RawServer, make: Callable[..., OutboundTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_scorer.targets.outbound_client._QUOTA_WAIT_S", 0.0)
    target = make(requests_per_minute=3)
    answers = [target.deliver(callback(target)) for _ in range(3)]
    assert [got.kind for got in answers] == [DeliveryKind.DELIVERED] * 2 + [DeliveryKind.NOT_SENT]
    assert answers[2].retry_after_s == pytest.approx(60, abs=30)
    assert "genesys.requests_per_minute" in answers[2].message
    assert len(server.to(ADD)) == 2


def test_rate_limit_headers_of_the_platform_are_applied(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    full = {"inin-ratelimit-count": "10", "inin-ratelimit-allowed": "10", "inin-ratelimit-reset": "0.3"}
    server.respond(answer(200, [], full), answer(200, []))
    target = make()
    started = time.monotonic()
    assert [target.deliver(callback(target)).kind for _ in range(2)] == [DeliveryKind.DELIVERED] * 2
    assert time.monotonic() - started >= 0.29


def test_many_threads_keep_the_quota(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    target = make(requests_per_minute=6)
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda: answers.append(target.deliver(callback(target))), daemon=True)
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    while len(answers) < 5:
        time.sleep(0.01)
    target.close()  # requests that wait for the quota continue
    for thread in threads:
        thread.join(10)
    assert len(server.to(ADD)) == 5
    assert sorted(got.kind for got in answers) == [DeliveryKind.DELIVERED] * 5 + [DeliveryKind.NOT_SENT] * 7


def test_a_failed_token_leaves_no_request_in_flight(
    server: RawServer, make: Callable[..., OutboundTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that was not sent must not count as in flight."""
    monkeypatch.setattr("stream_scorer.targets.outbound_client._QUOTA_WAIT_S", 0.0)
    server.respond(answer(500), token(), path="/oauth/token")
    allowed = {"inin-ratelimit-count": "1", "inin-ratelimit-allowed": "2", "inin-ratelimit-reset": "50"}
    server.respond(answer(200, [], allowed))
    target = make()
    kinds = [target.deliver(callback(target)).kind for _ in range(3)]
    assert kinds == [DeliveryKind.TRY_LATER, DeliveryKind.DELIVERED, DeliveryKind.DELIVERED]


# --- settings


@pytest.mark.parametrize(
    ("genesys", "callbacks", "words"),
    [
        ({}, {}, "callbacks.contact_list_id is missing: set STREAM_SCORER_CALLBACKS__CONTACT_LIST_ID"),
        ({"client_secret": "x"}, {"contact_list_id": "l"}, "genesys.client_id is missing"),
        ({"client_id": "x"}, {"contact_list_id": "l"}, "genesys.client_secret is missing"),
    ],
)
def test_invalid_settings_are_one_line(genesys: dict[str, str], callbacks: dict[str, str], words: str) -> None:
    given = {"genesys": genesys, "callbacks": {"target": "genesys-outbound", **callbacks}}
    with pytest.raises(SettingsError) as caught:
        build_target(Settings.model_validate(given))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_echoed_header_shows_nothing(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    def echo(request: Any, conn: Any) -> None:
        conn.sendall(answer(400, {"code": "x" * 290 + request.headers["authorization"]}))

    long_token = "0123456789" * 8
    server.respond(token(long_token), path="/oauth/token")
    server.respond(echo)
    target = make()
    got = target.deliver(callback(target, "C-1"))
    assert got.kind is DeliveryKind.REFUSED
    assert not any(long_token[n : n + 4] in got.message for n in range(10))


def test_no_secret_is_shown(make: Callable[..., OutboundTarget]) -> None:
    target = make()
    assert SECRET not in repr(target)
    assert SECRET not in target.name


def test_a_code_that_quotes_the_callback_is_left_out(server: RawServer, make: Callable[..., OutboundTarget]) -> None:
    target = make()
    sent = callback(target)
    quoted = json.loads(sent.body)[0]["data"]["contact_id"]
    server.respond(answer(400, {"code": f"bad.{quoted}"}))
    assert target.deliver(sent).message == "HTTP 400 (Bad Request)"
