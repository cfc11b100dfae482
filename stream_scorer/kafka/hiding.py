"""Keeps secrets out of what others say to the client: a login service may quote in its answer what it was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_scorer.genesys.redacting import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Each secret, and the name that stands before it in a `Basic` header.
_PAIRS: Final = (
    ("sasl.oauthbearer.client.id", "sasl.oauthbearer.client.secret"),
    ("sasl.username", "sasl.password"),
)


def hider(properties: Mapping[str, Any]) -> Callable[[str], str]:
    """Return what takes the secrets of ``kafka.properties`` out of a text, in any spelling, and other credentials."""
    redactors = [Redactor(str(properties.get(name, "")), str(properties.get(secret, ""))) for name, secret in _PAIRS]

    def hide(text: str) -> str:
        for redactor in redactors:
            text = redactor(text)
        return text

    return hide
