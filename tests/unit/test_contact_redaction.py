"""No id, value or free text of an error of the API is in a message, a header, `/readyz` or a log above `debug`."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support_core import contact, policy
from test_genesys_oauth import TIMING, FakeHttp, granted
from test_observer import Harness

from stream_scorer.core.scoring.api_response import Answered, Refused
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request
from stream_scorer.core.scoring.response_policy import Context, FailureKind, classify, while_others_succeed
from stream_scorer.genesys import wire
from stream_scorer.genesys.client import ScoreEndpoint
from stream_scorer.genesys.oauth import TokenRefused, TokenSource, TokenUnavailable
from stream_scorer.http_client.client import HttpAnswer
from stream_scorer.local import simulator
from stream_scorer.redaction.contacts import ContactRedactor

FEATURES: dict[str, Any] = {
    "employer": 'Böhm & Söhne "Süd"',
    "city": "Ulm",
    "note": "prefers to be called after the evening news",
    "income": 48213.75,
    "age": 47,
    "is_customer": True,
    "segment": "gold-plus",
}
BODY = wire.build_body([wire.encode_contact("C-1047", FEATURES)], "v7")
QUOTED = ("Böhm", "Söhne", "Süd", "Ulm", "evening news", "48213", "47", "gold-plus", "C-1047", "true")


def error(http_status: int, /, headers: dict[str, str] | None = None, **body: Any) -> HttpAnswer:
    return HttpAnswer(http_status, headers or {}, json.dumps(body).encode(), TIMING)


def send(answer: HttpAnswer, body: bytes = BODY) -> Any:
    http = FakeHttp(granted("a-bearer-token"), answer, granted("another-token"), answer)  # a 401 is repeated once
    endpoint = ScoreEndpoint(http, TokenSource(http, "http://login", "id", "secret"), "http://api", "model")
    return endpoint.send(body, 1)[0]


def test_the_message_has_status_and_code_and_no_free_text() -> None:
    got = send(error(400, code="invalid.value", message="a text of the API", details=[{"entityId": "C-1047"}]))
    assert got.message == "HTTP 400 invalid.value"
    assert got.named == {"C-1047"}
    assert got.exchange.error_text == "a text of the API"


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 408, 413, 418, 422, 429, 500, 503])
@pytest.mark.parametrize("key", ["message", "description", "error_description"])
def test_free_text_is_in_no_message(status: int, key: str) -> None:
    said = "feature income of C-1047 must be below 40000, was 48213.75; city was Ulm"
    got = send(error(status, code="bad.value", **{key: said}))
    assert "HTTP " + str(status) in got.message
    assert not any(value in got.message for value in (*QUOTED, "income", "must"))
    assert got.exchange.error_text == "feature income of *** must be below ***, was ***; city was ***"


@pytest.mark.parametrize("status", [502, 403])
def test_the_title_of_a_gateway_s_page_is_in_no_message(status: int) -> None:
    page = f"<html><title>{status} city=Ulm was blocked</title>".encode()
    got = send(HttpAnswer(status, {}, page, TIMING))
    assert "Ulm" not in got.message
    assert got.exchange.error_text == "*** city=*** was blocked"


@pytest.mark.parametrize(
    "said",
    [
        FEATURES["employer"],
        FEATURES["employer"].upper(),
        quote(FEATURES["employer"]),
        json.dumps(FEATURES["employer"]),
        FEATURES["employer"].replace("&", "&amp;").replace('"', "&quot;"),
        FEATURES["note"][:20] + "…",
        f"<{FEATURES['note']}>",
        "48213.75, 48,213.75, 48213,75, 4.821375e4 and 48213.8",
        "[47]",
        "True",
        "in ULM.",
        "gold-plus",
        "C-1047",
        json.dumps(FEATURES),
        "x" * 290 + FEATURES["note"],
        "x" * 5000 + FEATURES["note"],
    ],
)
def test_no_spelling_of_a_value_is_left(said: str) -> None:
    shown = send(error(400, code="invalid.value", message=f"got {said} here")).exchange.error_text
    assert shown
    assert not any(value.lower() in shown.lower() for value in (*QUOTED, "called after", "Böhm", "%C3"))


def test_a_short_value_is_hidden_as_a_word_of_its_own() -> None:
    redactor = ContactRedactor(wire.build_body([wire.encode_contact("7", {"grade": "A", "none": None})], None))
    assert redactor.hide_in_text("an A grade, grade=a; Apples none") == "an *** grade, grade=***; Apples none"


@pytest.mark.parametrize(
    "code",
    [
        "Ulm",
        "ulm",
        "city.Ulm.unknown",
        "gold-plus",
        "segment_gold-plus_unknown",
        "C-1047",
        "contact.C-1047",
        "age.47",
        "income.48213.75",
        "x" * 65,
        "two words",
        "Ulm\u200b",
        "bad\r\nvalue",
        "é",
        "secret",
        "",
    ],
)
def test_an_invalid_code_or_one_that_quotes_the_request_is_dropped(code: str) -> None:
    assert send(error(400, code=code, message="no")).message == "HTTP 400"
    assert send(error(503, error=code)).message == "HTTP 503"


@pytest.mark.parametrize("code", ["invalid.value", "a" * 64, "E_1_2-x", "quota.limit.474", "bulmer.gold"])
def test_any_other_code_is_passed_on(code: str) -> None:
    assert send(error(400, code=code)).message == f"HTTP 400 {code}"


def test_a_quoted_code_changes_no_decision() -> None:
    body = wire.build_body([wire.encode_contact("c", {"state": "not.found"})], None)
    got = send(error(404, code="not.found", message="no", status=404), body)
    assert got.platform_error
    assert got.message.startswith("HTTP 404 not.found: ")


@pytest.mark.parametrize("status", [200, 400, 503])
@pytest.mark.parametrize("quoted", ["C-1047", "Ulm", "gold-plus", "47", "48213.75"])
def test_a_correlation_id_equal_to_a_contact_id_or_value_is_dropped(status: int, quoted: str) -> None:
    assert send(error(status, {"ININ-Correlation-Id": quoted}, results=[])).exchange.correlation_id is None


@pytest.mark.parametrize("correlation_id", ["6f1e2b3c-1047-4222-8333-944455556647", "c0ffee-47", "x:C-10"])
def test_a_correlation_id_stays(correlation_id: str) -> None:
    got = send(error(503, {"ININ-Correlation-Id": correlation_id}))
    assert got.exchange.correlation_id == correlation_id


@pytest.mark.parametrize("value", ["Ulm", "in 5 s, gold-plus", "Ulm, 01 Jan 2030 00:00:00 GMT", "1" * 13])
def test_an_ignored_retry_after_that_is_no_number_or_date_is_not_quoted(value: str) -> None:
    got = send(error(503, {"Retry-After": value}))
    assert got.ignored_retry_after == "neither a number of seconds nor an HTTP date"


@pytest.mark.parametrize("status", [400, 401, 503])
def test_the_login_service_s_free_text_is_in_no_message(status: int) -> None:
    http = FakeHttp(error(status, error="invalid_client", error_description="user Jane Doe is locked"))
    got = TokenSource(http, "http://login", "id", "secret").token()
    assert isinstance(got, TokenRefused | TokenUnavailable)
    assert "(invalid_client)" in got.message
    assert "Jane" not in got.message
    assert got.exchange.error_text == "user Jane Doe is locked"


def test_the_login_service_s_code_is_bounded() -> None:
    http = FakeHttp(error(401, error="the password of Jane Doe is wrong"))
    got = TokenSource(http, "http://login", "id", "secret").token()
    assert isinstance(got, TokenRefused)
    assert "Jane" not in got.message
    assert "with HTTP 401: " in got.message


@pytest.mark.parametrize("value", ["invalid.value", "Invalid.Value", "invalid", "value"])
def test_a_code_of_the_platform_stays_although_a_feature_has_its_value(value: str) -> None:
    body = wire.build_body([wire.encode_contact("C-1047", {"note": value})], None)
    got = send(error(422, code="invalid.value", message=f"note must not be {value}"), body)
    assert got.message == "HTTP 422 invalid.value"
    assert got.exchange.error_text == "note must not be ***"
    assert send(error(422, code=f"{value}.of.a.note"), body).message == "HTTP 422"
    assert send(error(422, code="Invalid.Value"), body).message == "HTTP 422"  # not the platform's spelling


def test_every_code_of_the_simulator_is_known() -> None:
    source = "".join(file.read_text() for file in Path(simulator.__file__).parent.glob("*.py"))
    used = set(re.findall(r'"([a-z]+(?:\.[a-z]+)+)"', source)) - {"openapi.json", "http.disconnect"}
    assert len(used) >= 10
    for code in used:
        assert wire.shown_code(wire.ErrorBody(code, "", frozenset()), lambda _: "hidden") == code


def request_of(answer_id: str = "C-1047") -> Request:
    return Request("batch", BatchKey(None, version_from_event=False), (contact(answer_id),), attempts=1)


def test_a_rejected_record_names_status_and_code() -> None:
    got = send(error(422, code="invalid.value", message="income of C-1047 was 48213.75"))
    failure = classify(request_of(), got, policy())
    assert failure.kind is FailureKind.REFUSED
    decision = while_others_succeed(request_of(), failure, policy(), Context(0.0, 0, 0.0, lambda: "id"))
    [failed] = decision.failed
    assert failed.detail == "the API fails or refuses this contact alone: HTTP 422 invalid.value"


def test_free_text_is_logged_at_debug_alone() -> None:
    harness = Harness()
    got = send(error(400, code="invalid.value", message="income of C-1047 was 48213.75 in Ulm"))
    assert isinstance(got, Refused)
    harness.failed(got)
    harness.breaker.trip(got.message, harness.now)
    above = [line for line in harness.log.lines if line[0] != "debug"]
    assert "income" not in repr(above)
    assert "income" not in str(harness.observe.readiness_failure())
    fields = {"batch_id": "batch", "attempt": 1, "status": 400, "text": "income of *** was *** in ***"}
    assert ("debug", "error text received", fields) in harness.log.lines


def test_an_answer_without_free_text_has_no_line_of_its_own() -> None:
    harness = Harness()
    harness.failed(send(error(503, code="service.unavailable")))
    assert [line[1] for line in harness.log.lines if "text" in line[1]] == []


def test_a_body_of_another_form_hides_all_of_its_values() -> None:
    redactor = ContactRedactor(b'[{"id":"0f","data":{"contact_id":"C-1","score":"0.8731"},"callable":true}]')
    assert redactor.hide_in_code("contact.C-1") == ""
    assert redactor.hide_in_text("C-1 has 0.8731") == "*** has ***"


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"contacts":[]}', b"1"])
def test_a_body_without_contacts_redacts_only_numbers(body: bytes) -> None:
    assert ContactRedactor(body).hide_in_text("no contacts in 2 of 3") == "no contacts in *** of ***"
    assert ContactRedactor(body).hide_in_code("a.b") == "a.b"


def test_the_body_of_a_good_answer_is_not_parsed() -> None:
    got = send(HttpAnswer(200, {"ININ-Correlation-Id": "c0ffee"}, b'{"results":[]}', TIMING), b"not even JSON")
    assert isinstance(got, Answered)
    assert got.exchange.correlation_id == "c0ffee"


def test_redaction_is_linear() -> None:
    parts = [wire.encode_contact(f"c-{n}", {f"f{m}": f"value {n} {m}" for m in range(50)}) for n in range(1000)]
    answer = error(400, code="invalid.value", message="value " * 600)
    began = time.process_time()
    send(dataclasses.replace(answer), wire.build_body(parts, None))
    assert time.process_time() - began < 2.0
