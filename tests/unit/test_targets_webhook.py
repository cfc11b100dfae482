"""The body of contract section 7, and the class of every response; over real HTTP: tests/e2e/test_webhook_http.py."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest
from requests.structures import CaseInsensitiveDict
from support_targets import CALLBACK_ID, PLANNED_AT_MS, SECRET, callback, score

from stream_scorer.core.callbacks.types import DeliveryKind
from stream_scorer.targets.log_target import LogTarget
from stream_scorer.targets.payload import MAX_BODY_BYTES, encode_body, encode_entry, iso_time
from stream_scorer.targets.response_policy import classify_response
from stream_scorer.targets.signature import Signer
from stream_scorer.targets.ssrf_guard import Guard
from stream_scorer.targets.webhook import WebhookTarget

NOW = datetime(2030, 1, 31, 6, tzinfo=UTC)


def target(url: str = "https://example.com/hooks/path-secret?token=query-secret") -> WebhookTarget:
    return WebhookTarget(url, Signer(SECRET), Guard())


def test_the_body_is_that_of_the_contract() -> None:
    body = target().body(
        CALLBACK_ID, "spring", "model-1", PLANNED_AT_MS, [encode_entry(score("C-1")), encode_entry(score("ü"))]
    )
    assert orjson.loads(body) == {
        "type": "contact.scored",
        "timestamp": "2030-03-17T17:46:40.000Z",
        "data": {
            "callback_id": CALLBACK_ID,
            "campaign_id": "spring",
            "model_id": "model-1",
            "contacts": [
                {
                    "event_id": f"event-{contact_id}",
                    "contact_id": contact_id,
                    "score": 0.875,
                    "confidence_lower": 0.75,
                    "confidence_upper": 1.0,
                    "model_version": "v1",
                    "occurred_at": "2030-03-17T17:46:39.001Z",
                    "scored_at": "2030-03-17T17:46:39.999Z",
                }
                for contact_id in ("C-1", "ü")
            ],
        },
    }
    assert body == target().body(
        CALLBACK_ID, "spring", "model-1", PLANNED_AT_MS, [encode_entry(score("C-1")), encode_entry(score("ü"))]
    )


def test_what_may_be_null_is_null() -> None:
    data = orjson.loads(encode_body("id", None, "m", 0, [encode_entry(score(model_version=None))]))["data"]
    assert data["campaign_id"] is None
    assert data["contacts"][0]["model_version"] is None


def test_quotes_and_control_characters_in_ids_stay_within_their_text() -> None:
    odd = 'a"}]}},\\\x00\u2028'
    body = orjson.loads(encode_body(odd, odd, odd, 0, [encode_entry(score(odd))]))
    assert body["data"]["callback_id"] == body["data"]["campaign_id"] == body["data"]["model_id"] == odd
    assert body["data"]["contacts"][0]["contact_id"] == odd


def test_a_full_callback_of_usual_contacts_is_under_the_limit() -> None:
    entries = [encode_entry(score(f"contact-{number:010}", score=math.pi / 4)) for number in range(75)]
    assert len(encode_body(CALLBACK_ID, "a campaign with a long name", "model", 0, entries)) < MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
        (2**63 - 1, "9999-12-31T23:59:59.999Z"),
        (-(2**63), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_times(at_ms: int, text: str) -> None:
    assert iso_time(at_ms) == text


# --- responses

MEANINGS = {
    DeliveryKind.DELIVERED: (200, 201, 202, 204, 299),
    DeliveryKind.REFUSED: (300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 409, 413, 422, 451, 499),
    DeliveryKind.SWITCHED_OFF: (410,),
    DeliveryKind.TRY_LATER: (408, 429, 500, 502, 503, 504, 599, 600, 999, 101, 199),
}


@pytest.mark.parametrize(("status", "kind"), [(status, kind) for kind, found in MEANINGS.items() for status in found])
def test_what_a_status_means(status: int, kind: DeliveryKind) -> None:
    got = classify_response(status, {}, 12.5, NOW.timestamp())
    assert (got.kind, got.status, got.latency_ms, got.retry_after_s) == (kind, status, 12.5, None)
    assert f"HTTP {status}" in got.message
    assert "\n" not in got.message


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), None),
        ("-5", None),
        ("86400", 86_400.0),
        ("99999999999", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(status: int, header: str, seconds: float | None) -> None:
    got = classify_response(status, CaseInsensitiveDict({"retry-after": header}), 0.0, NOW.timestamp())
    assert got.retry_after_s == seconds


def test_a_redirect_does_not_show_where_it_leads() -> None:
    got = classify_response(302, {"Location": "https://x/?token=s3cret"}, 0.0, 0.0)
    assert "s3cret" not in repr(got)
    assert "not followed" in got.message


# --- names, secrets, and invalid requests


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.com/hooks/path-secret?token=query-secret", "webhook https://example.com"),
        ("http://127.0.0.1:8091/callbacks", "webhook http://127.0.0.1:8091"),
        ("https://user:pass-secret@[::1]:80/x", "webhook https://[::1]:80"),
    ],
)
def test_nothing_secret_is_in_name_or_repr(url: str, name: str) -> None:
    made = target(url)
    assert made.name == name
    assert "secret" not in repr(made)
    assert SECRET not in repr(made)


@pytest.mark.parametrize("callback_id", ["", "a b", "a\r\nX-Injected: 1", "ü", "x" * 257])
def test_an_id_that_can_be_no_header_is_refused_and_not_sent(callback_id: str) -> None:
    made = target()
    got = made.deliver(callback(made, callback_id=callback_id))
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, None)
    assert "id cannot stand in a header" in got.message


def test_a_body_that_is_no_text_is_refused_and_not_sent() -> None:
    made = target()
    got = made.deliver(replace(callback(made), body=b"\xff"))
    assert got.kind is DeliveryKind.REFUSED
    assert "UTF-8" in got.message


# --- the log


class Lines(list[tuple[str, dict[str, object]]]):
    def info(self, event: str, /, **fields: object) -> None:
        self.append((event, fields))


def test_the_log_gets_ids_and_counts_and_no_score() -> None:
    lines = Lines()
    made = LogTarget(lines)
    one = callback(made, "C-1", "C-2")
    assert one.body == callback(target(), "C-1", "C-2").body
    got = made.deliver(one)
    assert (got.kind, got.status) == (DeliveryKind.DELIVERED, None)
    [(event, fields)] = lines
    assert event == "callback"
    assert fields["callback_id"] == CALLBACK_ID
    assert fields["campaign_id"] == "spring"
    assert (fields["contacts"], fields["contact_ids"]) == (2, ["C-1", "C-2"])
    assert "0.875" not in str(lines)
