from __future__ import annotations

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.core.scoring.api_response import RateLimitHeaders
from stream_scorer.errors import ContactError
from stream_scorer.genesys import wire
from stream_scorer.http_client.retry_after import retry_after_s

NOW_S = 1_800_000_000.0
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
)


@given(st.lists(st.tuples(TEXT, st.dictionaries(TEXT, VALUES, max_size=4)), max_size=5), st.none() | TEXT)
def test_the_body_has_its_content_and_its_announced_length(contacts: list, version: str | None) -> None:
    parts = [wire.encode_contact(contact_id, features) for contact_id, features in contacts]
    body = wire.build_body(parts, version)
    expected = {"contacts": [{"contactId": contact_id, "features": features} for contact_id, features in contacts]}
    assert json.loads(body) == (expected if version is None else {**expected, "modelVersion": version})
    commas = max(0, len(parts) - 1)
    assert len(body) == wire.body_overhead(version) + sum(map(len, parts)) + commas


@pytest.mark.parametrize("value", [2**70, "\ud800"])
def test_a_value_not_representable_in_json_names_the_contact(value: object) -> None:
    with pytest.raises(ContactError, match="'c1'"):
        wire.encode_contact("c1", {"x": value})


def test_model_id_cannot_leave_its_place_in_the_path() -> None:
    assert wire.score_path("../a b?c") == "/api/v2/predictiveengagement/models/..%2Fa%20b%3Fc/score"


def test_results() -> None:
    assert wire.parse_results(b'{"results":[{"a":1},null],"more":1}') == [{"a": 1}, None]


def test_numbers_that_are_not_finite_are_read() -> None:
    big, negative, nothing = wire.parse_results(b'{"results":[1e999,-Infinity,NaN]}')
    assert (big, negative) == (math.inf, -math.inf)
    assert math.isnan(nothing)


ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_answers_in_any_encoding_of_unicode_are_used(encoding: str) -> None:
    """They are billed."""
    text = '{"results": [{"contactId": "é\U0001f600", "score": 0.5}, {"score": 1e999}]}'
    results = wire.parse_results(text.encode(encoding))
    assert results == [{"contactId": "é\U0001f600", "score": 0.5}, {"score": math.inf}]
    assert wire.parse_results(f"\ufeff{text}".encode(encoding)) == results
    details = {"code": "bad.request", "message": "né", "details": [{"entityId": "é"}]}
    error = wire.parse_error(json.dumps(details, ensure_ascii=False).encode(encoding))
    assert (error.code, error.text, error.named) == ("bad.request", "né", {"é"})
    page = "<html><title>502 é</title>".encode(encoding)
    assert wire.parse_error(page).text == "502 é"


@pytest.mark.parametrize(
    "body", [b'{"results":[NaN', b'{"results":[1e999]}x', b"\xff{}", b"[" * 100_000, b"", b"\xff\xfe{", b"{\0\0"]
)
def test_other_invalid_json_is_rejected(body: bytes) -> None:
    with pytest.raises(wire.MalformedAnswer):
        wire.parse_results(body)


@given(st.binary())
def test_any_bytes_are_results_or_malformed(body: bytes) -> None:
    with contextlib.suppress(wire.MalformedAnswer):
        assert isinstance(wire.parse_results(body), list)
    error = wire.parse_error(body)
    assert "\n" not in error.code + error.text


@pytest.mark.parametrize("details", [None, 1, {}, [[]], [None], [{"entityId": None}], [{"entityId": ""}], [{}]])
def test_details_without_a_contact(details: object) -> None:
    assert wire.parse_error(json.dumps({"details": details}).encode()).named == frozenset()


def test_error_body_is_bounded_and_cleaned() -> None:
    details = [{"entityId": f"c{n}"} for n in range(20_000)] + [{"entityId": "x" * 257}]
    body = {"code": "bad\x00.request", "message": "m" * 5_000_000, "details": details}
    error = wire.parse_error(json.dumps(body).encode())
    assert error.code == ""
    assert len(error.text) == 300
    assert len(error.named) == 10_000


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"", "", ""),
        (b"\xff\xfe\x00", "", ""),
        (b"null", "", ""),
        (b'"text"', "", ""),
        (b'{"code":1,"message":[]}', "", ""),
        (b'{"error":"invalid_client","description":"nope"}', "invalid_client", "nope"),
        (b'{"error":"no client","description":"nope"}', "", "nope"),
        (b"<html><TITLE lang=en>502\n Bad Gateway</TITLE>", "", "502 Bad Gateway"),
        (b"[" * 100_000, "", ""),
    ],
)
def test_error_bodies_of_all_kinds(body: bytes, code: str, text: str) -> None:
    error = wire.parse_error(body)
    assert (error.code, error.text) == (code, text)


PLATFORM = {"message": "no", "contextId": "c", "status": 0, "details": [], "errors": []}


@pytest.mark.parametrize(
    ("status", "body", "refuses"),
    [
        (401, {**PLATFORM, "code": "bad.credentials"}, True),
        (401, {"code": "authentication.required", "status": 401}, True),
        (401, {"code": "authentication.required", "contextId": "c"}, True),
        (401, {"code": "x"}, False),  # a gateway's JSON
        (401, {"message": "Unauthorized", "status": 401}, False),
        (401, {"error": "invalid_client", "status": 401}, False),
        (401, {"code": 401, "contextId": "c"}, False),
        (403, {**PLATFORM, "code": "missing.permissions"}, True),
        (403, {**PLATFORM, "code": "app.not.authorized.for.scope"}, True),
        (403, {**PLATFORM, "code": "forbidden"}, False),
        (404, {**PLATFORM, "code": "not.found"}, True),
        (404, {**PLATFORM, "code": "missing.permissions"}, False),
        (400, {**PLATFORM, "code": "not.found"}, False),
    ],
)
def test_a_refusal_of_the_platform_itself(status: int, body: dict, refuses: bool) -> None:
    assert wire.is_platform_refusal(status, wire.parse_error(json.dumps(body).encode())) == refuses


@pytest.mark.parametrize("body", [b"", b"<html><title>403 Forbidden</title>", b"[]", b'"not.found"'])
def test_a_body_other_than_a_json_object_is_no_platform_error(body: bytes) -> None:
    assert not any(wire.is_platform_refusal(status, wire.parse_error(body)) for status in (401, 403, 404))
    assert not wire.is_oauth_refusal(wire.parse_error(body))


@pytest.mark.parametrize(
    ("error", "refuses"), [("invalid_client", True), ("unauthorized_client", True), ("Unauthorized", False)]
)
def test_a_refusal_of_the_token_endpoint_itself(error: str, refuses: bool) -> None:
    assert wire.is_oauth_refusal(wire.parse_error(json.dumps({"error": error}).encode())) == refuses


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("1e3", None),
        ("9" * 400, None),
        ("5", 5.0),
        (" 2.5 ", 2.5),
        ("-7", None),
        ("0", None),
        ("86400", 86_400.0),
        ("86401", None),
        ("1800000060", None),  # a Unix time
        ("Fri, 15 Jan 2027 08:01:00 GMT", 60.0),
        ("Friday, 15-Jan-27 08:01:00 GMT", 60.0),
        ("Fri, 15 Jan 2027 08:01:00 -0000", 60.0),
        ("Fri, 15 Jan 2021 08:01:00 GMT", None),
        ("Fri, 29 Jan 2027 08:01:00 GMT", None),
        ("Fri, 45 Jan 2027 08:01:00 GMT", None),
        ("Fri, 15 Jan 99999 08:01:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert retry_after_s(value, NOW_S) == seconds
    assert bool(wire.ignored_retry_after(value, NOW_S)) == (value is not None and seconds is None)


@pytest.mark.parametrize("value", ["secret \r\n", "1" * 500, "soon", "1893456000123"])
def test_an_ignored_retry_after_is_quoted_if_it_is_a_number_or_a_date(value: str) -> None:
    assert wire.ignored_retry_after(value, NOW_S) == "neither a number of seconds nor an HTTP date"
    for quoted in ("-3", "1893456000", "Fri, 15 Jan 2010 08:01:00 GMT"):
        assert wire.ignored_retry_after(f" {quoted} ", NOW_S) == quoted
    assert wire.ignored_retry_after("1893456000", NOW_S, lambda text: text.replace("345", "***")).startswith("neither")


@given(st.text())
def test_retry_after_of_any_text(value: str) -> None:
    seconds = retry_after_s(value, NOW_S)
    assert seconds is None or 0 < seconds <= 86_400


@pytest.mark.parametrize(
    ("count", "allowed", "reset", "reading"),
    [
        ("1", "300", "59", RateLimitHeaders(1, 300, 59.0)),
        ("1", "300", "0.5", RateLimitHeaders(1, 300, 0.5)),
        (None, "300", "59", None),
        ("1", None, "59", None),
        ("1", "300", None, None),
        ("1, 1", "300", "59", None),
        ("-1", "300", "59", None),
        ("1", "-300", "59", None),
        ("1", "300", "-1", None),
        ("1", "300", "1e9", None),
        ("1", "300", "99999999", None),
        ("one", "300", "59", None),
    ],
)
def test_quota_reading(
    count: str | None, allowed: str | None, reset: str | None, reading: RateLimitHeaders | None
) -> None:
    names = ("inin-ratelimit-count", "inin-ratelimit-allowed", "inin-ratelimit-reset")
    given_headers = zip(names, (count, allowed, reset), strict=True)
    assert wire.quota_reading({name: value for name, value in given_headers if value is not None}) == reading


@given(st.text())
def test_one_line_of_any_text(text: str) -> None:
    clean = wire.bounded_line(text)
    clean.encode()
    assert len(clean) <= 300
    assert clean.splitlines() in ([], [clean])
    assert all(one.isprintable() or ord(one) > 0xFF for one in clean)
