"""Wire format of the platform: bodies, error bodies and headers. Bytes and text in, values out.

The score endpoint is in no public SDK, so this module is the only place with knowledge of its format.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

import orjson

from stream_scorer.core.charset import decode_text
from stream_scorer.core.scoring.api_response import Exchange, RateLimitHeaders
from stream_scorer.core.text import truncated
from stream_scorer.errors import ContactError
from stream_scorer.http_client.retry_after import SECONDS, read_number, retry_after_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_scorer.core.scoring.types import FeatureValue
    from stream_scorer.http_client.client import Timing

Redact: TypeAlias = "Callable[[str], str]"

_MAX_TEXT: Final = 300
_MAX_NAMED: Final = 10_000
_MAX_ID_CHARACTERS: Final = 256
# A result takes 120 bytes, and 1,700 if JSON has to escape each byte of the longest id. The rest of an answer is at
# most an error page.
_ANSWER_BYTES: Final = 64 * 1024
_ANSWER_BYTES_PER_CONTACT: Final = 2 * 1024
# The longest limits of the platform are daily ones. A larger value is an error, most often a Unix time.
_MAX_RESET_S: Final = 86_400.0
_NOT_PRINTED: Final = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
_HTTP_DATE: Final = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} (GMT|UTC|[+-]\d{4})"
)
_CODE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CORRELATION_ID: Final = re.compile(r"[\w.:-]{1,100}", re.ASCII)
# Codes with which the platform refuses a client or a model permanently (texts of its SDK). A gateway on the way uses
# the same statuses with other codes. None: any code, in the platform's form.
_REFUSALS: Final[Mapping[int, frozenset[str] | None]] = {
    401: None,
    403: frozenset({"missing.permissions", "app.not.authorized.for.scope"}),
    404: frozenset({"not.found"}),
}
# The platform's general codes (texts of its SDK). They are no contact's data, even if a feature has the same value.
_KNOWN_CODES: Final = frozenset(
    {
        *("bad.request", "invalid.value", "bad.credentials", "authentication.required", "missing.permissions"),
        *("app.not.authorized.for.scope", "not.found", "method.not.allowed", "request.timeout"),
        *("request.entity.too.large", "unsupported.media.type", "too.many.requests"),
        *("too.many.requests.retry.after", "internal.server.error", "bad.gateway", "service.unavailable"),
    }
)
# RFC 6749, section 5.2. Frameworks put the status there ({"error": "Unauthorized"}), which is no OAuth error.
_OAUTH_ERRORS: Final = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant"),
        *("unauthorized_client", "unsupported_grant_type", "invalid_scope"),
    }
)
NOT_THE_PLATFORM: Final = (
    "this is not the platform's own error; check {setting} and the gateways and proxies on the way"
)
_HTML_TITLE: Final = re.compile(r"<title[^>]*>([^<]+)", re.IGNORECASE)


def _as_it_is(text: str) -> str:
    return text


class MalformedAnswer(ValueError):
    """A 2xx body that is not the expected JSON."""


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """Parts of an error body; each is one line, bounded, and empty if the body lacks it.

    Attributes:
        code: the error's code, a short word of letters, digits, dots, hyphens and underscores.
        text: its free text; it may quote anything, so it is logged at `debug` only.
        named: the contact ids in ``details[].entityId``, unchanged, since they are compared with those of the request.
        has_platform_form: whether it is JSON with the platform's ``code``, and its ``contextId`` or ``status``.
    """

    code: str
    text: str
    named: frozenset[str]
    has_platform_form: bool = False


# --- requests


def score_path(model_id: str) -> str:
    """Return the path of the score endpoint."""
    return f"/api/v2/predictiveengagement/models/{quote(model_id, safe='')}/score"


def encode_contact(contact_id: str, features: Mapping[str, FeatureValue]) -> bytes:
    """Return a contact's JSON for a request, in UTF-8.

    Numbers must be finite: JSON has no others, and the encoder would write null instead.

    Raises:
        ContactError: JSON cannot represent a value (an integer of more than 64 bits, half a surrogate pair).
    """
    try:
        return orjson.dumps({"contactId": contact_id, "features": features})
    except TypeError:
        raise ContactError(
            f"contact {contact_id!r} cannot be written as JSON: {', '.join(map(repr, _unwritable(features)))} is no"
            " text, boolean, finite number or integer of 64 bits"
        ) from None


def _unwritable(features: Mapping[str, Any]) -> list[str]:
    """Return the names of the features that JSON cannot represent."""
    found = []
    for name, value in features.items():
        try:
            orjson.dumps({name: value})
        except TypeError:
            found.append(name)
    return found


def build_body(parts: Sequence[bytes], model_version: str | None) -> bytes:
    """Return the body of a request: ``contacts`` and, if given, ``modelVersion``; nothing else.

    Args:
        parts: results of `encode_contact`, one for each contact.
        model_version: the version to request; None: the platform's choice.
    """
    return b'{"contacts":[' + b",".join(parts) + b"]" + _version(model_version) + b"}"


def body_overhead(model_version: str | None) -> int:
    """Return the bytes of a body without its contacts; n contacts add n - 1 bytes for the commas between them."""
    return len(build_body((), model_version))


def _version(model_version: str | None) -> bytes:
    return b"" if model_version is None else b',"modelVersion":' + orjson.dumps(model_version)


# --- answers


def answer_limit(contacts: int) -> int:
    """Return the maximum bytes of an answer: parsing JSON takes fifty times its length in memory.

    Args:
        contacts: number of contacts in the request.
    """
    return _ANSWER_BYTES + contacts * _ANSWER_BYTES_PER_CONTACT


def parse_results(body: bytes) -> list[Any]:
    """Return the unchecked items of ``results`` of a 2xx; numbers may be NaN or infinite.

    Raises:
        MalformedAnswer: the body is not JSON or not an object with a list ``results``.
    """
    try:
        answer = read_json(body)
    except ValueError:
        raise MalformedAnswer(f"the body of {len(body)} bytes is not JSON") from None
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise MalformedAnswer("the body has no list 'results'")
    return results


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text, in any encoding of Unicode, with or without a byte order mark.

    Numbers that orjson refuses are accepted: ``1e999``, which is JSON, and ``NaN`` or ``Infinity``, which are not. The
    API has billed the answer: one odd number sends one contact to review, and does not bill a thousand again.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except ValueError:
        text = decode_text(body)
    try:
        return orjson.loads(text)
    except ValueError:
        pass
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deep") from None


def parse_error(body: bytes, redact: Redact = _as_it_is, hide: Redact = _as_it_is) -> ErrorBody:
    """Return the parts of an error body: the platform's JSON, HTML, empty or garbage. Never raises.

    Args:
        body: the answer's body.
        redact: removes secrets; it receives each text whole, before it is cut.
        hide: removes the request's ids and values from the free text, likewise.
    """

    def clean(text: str) -> str:
        return bounded_line(hide(redact(text)))  # cut last: a cut through a secret would leave a part of it

    try:
        answer = read_json(body)
    except ValueError:
        title = _HTML_TITLE.search(decode_text(body[: _MAX_TEXT * 64], "replace"))
        return ErrorBody("", clean(title[1]) if title else "", frozenset())
    if not isinstance(answer, dict):
        return ErrorBody("", "", frozenset())
    # The login service uses OAuth's keys, the API its own.
    code = _first_text(answer, "code", "error")
    if not _CODE.fullmatch(code) or redact(code) != code:
        code = ""
    text = clean(_first_text(answer, "message", "error_description", "description"))
    return ErrorBody(code, text, _named(answer.get("details")), _has_platform_form(answer))


def is_platform_refusal(status: int, error: ErrorBody) -> bool:
    """Return whether a 401, 403 or 404 of the score endpoint is the platform's own refusal of the client or the model.

    Args:
        status: the answer's status.
        error: its body.
    """
    if status not in _REFUSALS:
        return False
    codes = _REFUSALS[status]
    return error.has_platform_form if codes is None else error.code in codes


def shown_code(error: ErrorBody, hide: Redact) -> str:
    """Return the code for logs and errors; ``hide`` empties one with data of the request, unless the code is known."""
    return error.code if error.code in _KNOWN_CODES else hide(error.code)


def is_oauth_refusal(error: ErrorBody) -> bool:
    """Return whether a 400 or 401 of the token endpoint is its own refusal of the client (RFC 6749, section 5.2)."""
    return error.code in _OAUTH_ERRORS


def exchange_of(timing: Timing, status: int | None, headers: Mapping[str, str], redact: Redact = _as_it_is) -> Exchange:
    """Return the facts of an exchange, with those in its headers; ``redact`` as for `parse_error`."""
    return Exchange(
        started_at_ms=timing.started_at_ms,
        finished_at_ms=timing.finished_at_ms,
        latency_ms=timing.latency_ms,
        status=status,
        correlation_id=_correlation_id(headers.get("ININ-Correlation-Id", ""), redact),
        quota=quota_reading(headers),
    )


def quota_reading(headers: Mapping[str, str]) -> RateLimitHeaders | None:
    """Return the ``inin-ratelimit-*`` headers; None if one is missing or invalid."""
    count = read_number(headers.get("inin-ratelimit-count"))
    allowed = read_number(headers.get("inin-ratelimit-allowed"))
    reset_s = read_number(headers.get("inin-ratelimit-reset"))
    if count is None or allowed is None or reset_s is None:
        return None
    if count < 0 or allowed < 0 or not 0 <= reset_s <= _MAX_RESET_S:
        return None
    return RateLimitHeaders(int(count), int(allowed), reset_s)


def ignored_retry_after(value: str | None, now_s: float, redact: Redact = _as_it_is) -> str:
    """Return a ``Retry-After`` that `retry_after_s` ignores, as text for a log line; empty: none, or it is obeyed.

    Args:
        value: the header.
        now_s: Unix seconds, for a date.
        redact: as for `parse_error`.
    """
    if value is None or retry_after_s(value, now_s) is not None:
        return ""
    shown = value.strip()
    if not shown:
        return "(empty)"
    if (SECONDS.fullmatch(shown) or _HTTP_DATE.fullmatch(shown)) and redact(shown) == shown:
        return shown
    return "neither a number of seconds nor an HTTP date"


def bounded_line(text: str) -> str:
    """Return foreign text as one bounded line without control characters, for a log line or a header."""
    clean = _NOT_PRINTED.sub(" ", text[: _MAX_TEXT * 4]).strip()  # cut first: it may have megabytes
    clean = clean.encode("utf-8", "replace").decode()
    return truncated(clean, _MAX_TEXT)


def _correlation_id(value: str, redact: Redact) -> str | None:
    """Return the id, if valid: it is written to the audit, where an echoed request header must not appear."""
    return value if _CORRELATION_ID.fullmatch(value) and redact(value) == value else None


def _first_text(answer: dict[str, Any], *keys: str) -> str:
    return next((value for key in keys if isinstance(value := answer.get(key), str) and value), "")


def _has_platform_form(answer: dict[str, Any]) -> bool:
    code, context_id, status = answer.get("code"), answer.get("contextId"), answer.get("status")
    return isinstance(code, str) and code != "" and (isinstance(context_id, str) or type(status) is int)


def _named(details: Any) -> frozenset[str]:
    if not isinstance(details, list):
        return frozenset()
    ids = (detail.get("entityId") for detail in details[:_MAX_NAMED] if isinstance(detail, dict))
    return frozenset(one for one in ids if isinstance(one, str) and 0 < len(one) <= _MAX_ID_CHARACTERS)
