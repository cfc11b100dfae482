from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.genesys import wire
from stream_scorer.http_client.client import Timing
from stream_scorer.redaction.credentials import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = 'p+s/s w=rd&"quoted"<\u00e9\'>'
BASIC = base64.b64encode(f"id:{SECRET}".encode()).decode()
TIMING = Timing(1, 2, 1.0)


@pytest.mark.parametrize(
    "echo",
    [
        SECRET,
        f"Basic {BASIC}",
        BASIC.rstrip("="),
        base64.b64encode(SECRET.encode()).decode(),
        quote(SECRET),
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote_plus(SECRET),
        quote_plus(BASIC),
        BASIC.rstrip("=").replace("+", "-").replace("/", "_"),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET)[1:-1].replace("/", "\\/"),
        json.dumps(BASIC)[1:-1].replace("/", "\\/"),
        json.dumps(SECRET)[1:-1].replace("\\u00e9", "\\u00E9"),
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        orjson.dumps(SECRET).decode()[1:-1].replace("/", "\\/"),
        r"p+s\/s w\u003drd\u0026\"quoted\"\u003c\u00e9\u0027\u003e",
        r"p+s/s w\u003Drd\u0026\"quoted\"\u003C\u00E9\u0027\u003E",
        html.escape(SECRET),
        html.escape(SECRET).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        html.escape(SECRET).replace("&#x27;", "&apos;"),
    ],
)
def test_every_spelling_of_the_secret_is_hidden(echo: str) -> None:
    clean = Redactor("id", SECRET)(f"got <{echo}> from you")
    assert clean.startswith("got <")
    assert clean.endswith("> from you")
    assert echo not in clean
    assert "***" in clean


def owasp(text: str) -> str:
    return html.escape(text).replace("/", "&#x2F;").replace("=", "&#x3D;").replace("+", "&#43;")


@pytest.mark.parametrize("of", [SECRET, BASIC, base64.b64encode(SECRET.encode()).decode()])
@pytest.mark.parametrize(
    "spell",
    [
        lambda text: quote(text, safe="!'()*~-._"),  # encodeURIComponent
        lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
        lambda text: quote(quote(text, safe=""), safe=""),
        lambda text: json.dumps(text).replace("/", "\\u002F").replace("+", "\\u002b"),
        lambda text: json.dumps(json.dumps(text)),
        lambda text: html.escape(text, quote=False),
        lambda text: html.escape(text).replace("é", "&eacute;"),
        lambda text: "".join(f"&#{ord(one)};" for one in text),
        owasp,
        lambda text: owasp(json.dumps(text)),
        lambda text: json.dumps(quote(text)),
        lambda text: quote(owasp(text)),
    ],
)
@pytest.mark.parametrize("secret", [SECRET, "100%41&amp;\\u0041\\n", "plain"])
def test_escapes_of_any_kind_hide_nothing(spell: Callable[[str], str], of: str, secret: str) -> None:
    text = of if secret == SECRET else secret
    clean = Redactor("id", secret)(f"got <{spell(text)}> from you")
    assert spell(text) not in clean
    assert text not in clean
    assert "***" in clean


def test_a_text_without_secrets_keeps_its_escapes() -> None:
    text = "50%25 of \\u0041 &amp; b &#99999999999999;" + "&#9" * 9 + f"&#{'9' * 5000};"
    assert Redactor("id", SECRET)(text) == text


def test_recent_tokens_are_redacted_with_bounded_memory() -> None:
    redact = Redactor("id", SECRET)
    for number in range(100):
        redact.learn(f"token-number-{number}-")
        redact.learn(f"token-number-{number}-")
    clean = redact(" ".join(f"token-number-{number}-" for number in range(100)))
    assert clean == " ".join([*(f"token-number-{number}-" for number in range(36)), *["***"] * 64])


def test_recent_secrets_are_redacted_with_bounded_memory() -> None:
    redact = Redactor("id", "secret-number-0-")
    for number in range(1, 10):
        redact.learn_secret(f"secret-number-{number}-")
        redact.learn_secret(f"secret-number-{number}-")
    clean = redact(" ".join(f"secret-number-{number}-" for number in range(10)))
    assert clean == " ".join([*(f"secret-number-{number}-" for number in range(2)), *["***"] * 8])


@pytest.mark.parametrize("token", ["a+b/c-d_e.f~g=", "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"])
def test_every_spelling_of_a_token_is_hidden(token: str) -> None:
    redact = Redactor("id", SECRET)
    redact.learn(token)
    encoded = base64.b64encode(token.encode()).decode()
    for echo in (
        token,
        token.replace("/", "\\/"),
        quote_plus(token),
        encoded,
        encoded.rstrip("="),
        quote_plus(encoded),
    ):
        assert redact(f"<{echo}>").rstrip("=%3D>") == "<***", echo


def test_a_token_with_another_as_prefix_is_redacted_as_a_whole() -> None:
    redact = Redactor("id", SECRET)
    redact.learn("abcdef")
    redact.learn("abcdefghi")
    assert redact("abcdefghi") == "***"


@pytest.mark.parametrize("text", ["Bearer authentication required", "Basic realm=x", "", "a bearer of bad news"])
def test_text_without_credentials_is_unchanged(text: str) -> None:
    assert Redactor("id", SECRET)(text) == text


@pytest.mark.parametrize("text", ["Authorization: Bearer {}", "bearer={}", "BASIC {} was refused", "x Basic: {}"])
def test_credentials_are_recognized_by_their_scheme(text: str) -> None:
    cut_off = "eyJhbGciOiJSUzI1NiIsInR5c"
    assert Redactor("id", "")(text.format(cut_off)) == text.format("***")


@given(st.integers(0, 400), st.sampled_from(["message", "error_description", "title"]))
def test_a_secret_across_the_cut_leaves_no_part(before: int, where: str) -> None:
    secret = "".join(f"<{n:03}" for n in range(30)) if where != "title" else "".join(f"{n:03}." for n in range(30))
    text = "x" * before + secret
    body = f"<title>{text}</title>".encode() if where == "title" else json.dumps({where: text}).encode()
    said = wire.parse_error(body, Redactor("id", secret)).text
    assert set(said) <= set("x*\u2026")
    assert len(said) <= 300


@pytest.mark.parametrize("value", ["c0ffee-1", "a.b:c_d", "x" * 100])
def test_correlation_id(value: str) -> None:
    headers = {"ININ-Correlation-Id": value}
    assert wire.exchange_of(TIMING, 200, headers, Redactor("id", SECRET)).correlation_id == value


@pytest.mark.parametrize("value", ["", "two words", "Bearer t", "x" * 101, "\u00e9", "a;b", "the-token", "<the-token>"])
def test_an_invalid_correlation_id_or_one_with_a_token(value: str) -> None:
    redact = Redactor("id", SECRET)
    redact.learn("the-token")
    assert wire.exchange_of(TIMING, 200, {"ININ-Correlation-Id": value}, redact).correlation_id is None


def test_repr_hides_everything() -> None:
    redact = Redactor("id", SECRET)
    redact.learn("the-token")
    assert repr(redact) == "Redactor(tokens=1)"
