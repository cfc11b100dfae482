"""Takes out of foreign text what it may quote of ours: a gateway's error page likes to show the request it refused."""

from __future__ import annotations

import base64
import html
import json
import re
from typing import Final
from urllib.parse import quote, quote_plus

_HIDDEN: Final = "***"
# Of tokens that were renewed meanwhile an exchange under way may still quote; with these, an hour's at one a minute.
_TOKENS_KNOWN: Final = 64
_HEX: Final = re.compile(r"%[0-9A-F]{2}")
# What stands in an Authorization header, known or not: it may have been cut off by whoever quotes it.
_CREDENTIALS: Final = re.compile(r"\b(bearer|basic)([\s:=]+)[\w.~+/%-]{20,}=*", re.IGNORECASE)


class Redactor:
    """Knows the secret of one OAuth client and its tokens, in the spellings in which they come back.

    That is plain, in base64 as in a ``Basic`` header, percent-encoded, and escaped for JSON or HTML. To be used on
    whole texts: of a text that is cut before, a part of a secret may be left.
    """

    def __init__(self, client_id: str, client_secret: str) -> None:
        """Prepare.

        Args:
            client_id: is no secret; together with the secret it is in the ``Basic`` header.
            client_secret: is to be hidden; any text that is valid Unicode.
        """
        basic = base64.b64encode(f"{client_id}:{client_secret}".encode()).decode()
        secrets = (client_secret, basic.rstrip("="), base64.b64encode(client_secret.encode()).decode().rstrip("="))
        self._of_client = secrets if client_secret else ()
        self._tokens: tuple[str, ...] = ()
        self._hidden = _longest_first(self._of_client)

    def __repr__(self) -> str:
        return f"Redactor(tokens={len(self._tokens)})"

    def learn(self, token: str) -> None:
        """Hide this token too, even after others have come: not to be called by two threads at once."""
        self._tokens = (*(one for one in self._tokens if one != token), token)[-_TOKENS_KNOWN:]
        # A new tuple, since others may be going through the old one.
        self._hidden = _longest_first((*self._tokens, *self._of_client))

    def __call__(self, text: str) -> str:
        """Return the text without any of them."""
        for hidden in self._hidden:
            text = text.replace(hidden, _HIDDEN)
        return _CREDENTIALS.sub(rf"\1\2{_HIDDEN}", text)


def _longest_first(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """The spellings of secrets: where one is a part of another, the whole goes first."""
    return tuple(sorted({one for secret in secrets for one in _spellings(secret)}, key=len, reverse=True))


def _spellings(secret: str) -> tuple[str, ...]:
    quoted = (quote(secret), quote(secret, safe=""), quote_plus(secret))
    return (
        secret,
        *quoted,
        *(_HEX.sub(lambda found: found[0].lower(), one) for one in quoted),
        json.dumps(secret)[1:-1],
        html.escape(secret),
    )
