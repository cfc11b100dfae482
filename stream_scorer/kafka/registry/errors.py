"""Error texts for the schema registry's client.

Its HTTP and OAuth libraries quote URLs, the proxy's password and answers of login services, so their texts are
discarded. The registry's own answer is kept: it names the incompatible field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka.schema_registry.error import SchemaRegistryError

from stream_scorer.core.text import truncated
from stream_scorer.http_client.errors import causes_of, system_words
from stream_scorer.redaction.credentials import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_CHARACTERS: Final = 300
_NO_TOKEN: Final = "the login service gives no token"  # noqa: S105 - a text, not a password
# By class name, since the client uses one of two HTTP libraries. The first match counts.
_WORDS: Final[tuple[tuple[str, str], ...]] = (
    ("ConnectTimeout", "no connection in time"),
    ("TimeoutException", "no answer in time"),
    ("ProxyError", "the proxy does not connect"),
    ("UnsupportedProtocol", "its URL, or a redirect, is neither http nor https"),
    ("InvalidURL", "its URL, or the proxy's, is invalid"),
    ("ConnectError", "no connection"),
    ("NetworkError", "the connection was lost"),
    ("ProtocolError", "it does not answer in HTTP"),
    ("DecodingError", "its answer cannot be decompressed"),
    ("TooManyRedirects", "it redirects again and again"),
    ("OAuth2Error", _NO_TOKEN),
    ("AuthlibBaseError", _NO_TOKEN),
    ("OAuthTokenError", _NO_TOKEN),
    ("JSONDecodeError", "its answer is not JSON"),
    ("UnicodeDecodeError", "its answer is not text"),
    ("RecursionError", "its answer is nested too deep"),
    ("SSLError", "no TLS connection"),
    ("OSError", "no connection"),
    ("HTTPError", "the exchange failed"),
)


def registry_error_text(error: Exception, redact: Callable[[str], str]) -> str:
    """Return one line about an exception of the client; ``redact`` removes secrets that the registry quotes."""
    if isinstance(error, SchemaRegistryError):
        return _answer(error, redact)
    causes = tuple(causes_of(error))
    words = list(dict.fromkeys(words for cause in causes if (words := _words_for(cause)) is not None))
    if not words:
        return f"unexpected {type(error).__name__} of the client"
    text = ": ".join(words[:2]) if words[0] == _NO_TOKEN else words[0]
    return text + system_words(causes)


def _words_for(error: BaseException) -> str | None:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return next((words for name, words in _WORDS if name in kinds), None)


def _answer(error: SchemaRegistryError, redact: Callable[[str], str]) -> str:
    status: Any = error.http_status_code
    code: Any = error.error_code
    text: Any = error.error_message  # from JSON of any sender
    if not isinstance(code, int) or code < 0 or not isinstance(text, str):
        return f"HTTP {status}, and no answer of a schema registry"  # a gateway's page is not shown, not even in part
    line = " ".join(redact(text).split())
    line = truncated(line, _MAX_CHARACTERS)
    printable = "".join(one if one.isprintable() else " " for one in line)
    return f"{printable} (HTTP {status}, code {code})"


def registry_redactor(user: str, password: str, properties: Mapping[str, Any]) -> Callable[[str], str]:
    """Return a function that removes the secrets of ``schema_registry.properties`` from a text.

    Args:
        user: the user of the URL; may be empty.
        password: the password of the URL; may be empty.
        properties: the client's properties.
    """
    given_user, _, given_password = str(properties.get("basic.auth.user.info", "")).partition(":")
    client_id = str(properties.get("bearer.auth.client.id", ""))
    pairs = (
        (user, password),
        (given_user, given_password),
        (client_id, str(properties.get("bearer.auth.client.secret", ""))),
        ("", str(properties.get("bearer.auth.token", ""))),
    )
    redactors = [Redactor(*pair) for pair in pairs]

    def redact(text: str) -> str:
        for redactor in redactors:
            text = redactor(text)
        return text

    return redact
