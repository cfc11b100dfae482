"""Redaction of secret Kafka and registry properties: a login service may quote its request in an error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from stream_scorer.redaction.credentials import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Properties of librdkafka and the registry client that may hold credentials.
SECRET_PROPERTY: Final = re.compile(
    r"password|secret|token|jaas|\.key|\.pem|oauthbearer\.config|oauthbearer\.extensions|assertion|kinit\.cmd|username"
    r"|user\.info|proxy",
    re.IGNORECASE,
)
# Of these, properties whose value is not secret, or occurs in harmless texts.
_SHOWN_IN_TEXTS: Final = re.compile(r"username|\.location$|\.file$|kinit\.cmd|algorithm|endpoint", re.IGNORECASE)
_LEAST_CHARACTERS: Final = 4
_PARTS: Final = re.compile(r"[,\s]+")
# Each secret with the name that precedes it in a `Basic` header.
_PAIRS: Final = (
    ("sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret"),
    ("sasl.username", "sasl.password"),
)


def property_redactor(properties: Mapping[str, Any]) -> Callable[[str], str]:
    """Return a function that removes the secrets of ``kafka.properties``, in any spelling, from a text."""
    redactors = [Redactor(str(properties.get(name, "")), str(properties.get(secret, ""))) for name, secret in _PAIRS]
    redactors += [Redactor("", secret) for secret in _secrets(properties)]

    def hide(text: str) -> str:
        for redactor in redactors:
            text = redactor(text)
        return text

    return hide


def _secrets(properties: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of secret properties; for lists of ``name=value`` each value too, since it may be quoted."""
    for name, value in properties.items():
        if not isinstance(value, str) or not SECRET_PROPERTY.search(name) or _SHOWN_IN_TEXTS.search(name):
            continue
        values = [part.partition("=")[2] for part in _PARTS.split(value)] if "oauthbearer." in name else []
        yield from (one for one in (value, *values) if len(one) >= _LEAST_CHARACTERS)
