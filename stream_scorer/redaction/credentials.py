"""Takes out of foreign text what it may quote of ours: a gateway's error page likes to show the request it refused."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from stream_scorer.redaction.escapes import decoded, unescaped

if TYPE_CHECKING:
    from collections.abc import Iterator

_HIDDEN: Final = "***"
_LEAST_CHARACTERS: Final = 4
# Of tokens that were renewed meanwhile an exchange under way may still quote; with these, an hour's at one a minute.
_TOKENS_KNOWN: Final = 64
# A text may quote secrets in escapes of several kinds, each of which is decoded in turn.
_ESCAPES_REMOVED: Final = 4
# A secret in a file may be replaced while the worker runs; an exchange under way may still quote the one before.
_SECRETS_KNOWN: Final = 8
# What stands in an Authorization header, known or not: it may have been cut off by whoever quotes it.
_CREDENTIALS: Final = re.compile(r"\b(bearer|basic)([\s:=]+)[\w.~+/%-]{20,}=*", re.IGNORECASE)


class Redactor:
    r"""Knows the secrets of one OAuth client and its tokens, in the spellings in which they come back.

    That is plain, in base64 (the secret, a token, the ``Basic`` header; in both alphabets), and each of these
    percent-encoded in UTF-8 or escaped for JSON (``\/`` and ``\u003c`` too) or HTML, also one in the other. A text
    that hides a secret in escapes is returned without these. To be used on whole texts: of a text that is cut before, a
    part of a secret may be left.
    """

    def __init__(self, client_id: str, client_secret: str | None = None) -> None:
        """Prepare.

        Args:
            client_id: is no secret; together with the secret it is in the ``Basic`` header.
            client_secret: the first one to be hidden, as by `learn_secret`.
        """
        self._client_id = client_id
        self._secrets: tuple[str, ...] = ()
        self._tokens: tuple[str, ...] = ()
        self._hidden: tuple[str, ...] = ()
        if client_secret:
            self.learn_secret(client_secret)

    def __repr__(self) -> str:
        return f"Redactor(tokens={len(self._tokens)})"

    def learn_secret(self, client_secret: str) -> None:
        """Hide this secret too, any text that is valid Unicode: not to be called by two threads at once."""
        if client_secret and client_secret not in self._secrets[-1:]:
            self._secrets = (*(one for one in self._secrets if one != client_secret), client_secret)[-_SECRETS_KNOWN:]
            self._hide()

    def learn(self, token: str) -> None:
        """Hide this token too, even after others have come: not to be called by two threads at once."""
        self._tokens = (*(one for one in self._tokens if one != token), token)[-_TOKENS_KNOWN:]
        self._hide()

    def _hide(self) -> None:
        # A new tuple, since others may be going through the old one.
        of_tokens = (one for known in self._tokens for one in _with_base64(known))
        of_secrets = (one for secret in self._secrets for one in self._forms(secret))
        self._hidden = _longest_first((*of_tokens, *of_secrets))

    def _forms(self, secret: str) -> tuple[str, ...]:
        basic = base64.b64encode(f"{self._client_id}:{secret}".encode()).decode()
        return (*_with_base64(secret), *_alphabets(basic))

    def __call__(self, text: str) -> str:
        """Return the text without any of them."""
        text = self._without(text)
        for _ in range(_ESCAPES_REMOVED):
            plain = next((one for one in decoded(text) if any(map(one.__contains__, self._hidden))), None)
            if plain is None:
                break
            text = self._without(plain)
        return _CREDENTIALS.sub(rf"\1\2{_HIDDEN}", text)

    def _without(self, text: str) -> str:
        for hidden in self._hidden:
            text = text.replace(hidden, _HIDDEN)
        return text


def _longest_first(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """The spellings of secrets: where one is a part of another, the whole goes first."""
    return tuple(sorted({one for secret in secrets for one in _spellings(secret)}, key=len, reverse=True))


def _spellings(secret: str) -> Iterator[str]:
    yield secret
    yield secret.replace(" ", "+")  # so it stands in a form, once its other characters are decoded
    plain = unescaped(secret)  # a secret that looks like an escape is decoded with the text
    if len(plain) >= _LEAST_CHARACTERS:
        yield plain


def _with_base64(secret: str) -> tuple[str, ...]:
    return secret, *_alphabets(base64.b64encode(secret.encode()).decode())


def _alphabets(in_base64: str) -> tuple[str, str]:
    """Base64 without its padding, in the usual alphabet and in that for URLs."""
    bare = in_base64.rstrip("=")
    return bare, bare.translate(str.maketrans("+/", "-_"))
