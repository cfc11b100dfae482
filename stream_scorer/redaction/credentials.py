"""Redaction of own credentials that foreign text may quote: a gateway's error page often shows the request."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from stream_scorer.redaction.escapes import decoded, unescaped

if TYPE_CHECKING:
    from collections.abc import Iterator

_HIDDEN: Final = "***"
_LEAST_CHARACTERS: Final = 4
# Exchanges in flight may quote earlier tokens; this number covers an hour at one a minute.
_TOKENS_KNOWN: Final = 64
# A text may quote secrets in several kinds of escapes, which are decoded one after another.
_ESCAPES_REMOVED: Final = 4
# A secret file may be replaced while the worker runs; exchanges in flight may quote the previous secret.
_SECRETS_KNOWN: Final = 8
# Credentials of an Authorization header, known or not: the quotation may be truncated.
_CREDENTIALS: Final = re.compile(r"\b(bearer|basic)([\s:=]+)[\w.~+/%-]{20,}=*", re.IGNORECASE)


class Redactor:
    r"""Redactor for the secrets and tokens of one OAuth client, in all spellings in which they may be quoted.

    Spellings: plain, base64 in both alphabets (the secret, a token, the ``Basic`` header), and each of these
    percent-encoded in UTF-8 or escaped for JSON (``\/`` and ``\u003c`` too) or HTML, also nested. A text that hides a
    secret in escapes is returned decoded. Apply it to whole texts: in a truncated one, a part of a secret may be left.
    """

    def __init__(self, client_id: str, client_secret: str | None = None) -> None:
        """Store the client's id and first secret.

        Args:
            client_id: not secret; with the secret it forms the ``Basic`` header.
            client_secret: the first secret, as for `learn_secret`.
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
        """Add a secret, any valid Unicode text. Not safe for concurrent calls."""
        if client_secret and client_secret not in self._secrets[-1:]:
            self._secrets = (*(one for one in self._secrets if one != client_secret), client_secret)[-_SECRETS_KNOWN:]
            self._hide()

    def learn(self, token: str) -> None:
        """Add a token; earlier ones are still hidden. Not safe for concurrent calls."""
        self._tokens = (*(one for one in self._tokens if one != token), token)[-_TOKENS_KNOWN:]
        self._hide()

    def _hide(self) -> None:
        # A new tuple, since other threads may iterate over the old one.
        of_tokens = (one for known in self._tokens for one in _with_base64(known))
        of_secrets = (one for secret in self._secrets for one in self._forms(secret))
        self._hidden = _longest_first((*of_tokens, *of_secrets))

    def _forms(self, secret: str) -> tuple[str, ...]:
        basic = base64.b64encode(f"{self._client_id}:{secret}".encode()).decode()
        return (*_with_base64(secret), *_alphabets(basic))

    def __call__(self, text: str) -> str:
        """Return the text without secrets and tokens."""
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
    """Return the spellings of secrets, longest first, so that a whole is replaced before its parts."""
    return tuple(sorted({one for secret in secrets for one in _spellings(secret)}, key=len, reverse=True))


def _spellings(secret: str) -> Iterator[str]:
    yield secret
    yield secret.replace(" ", "+")  # its spelling in a form, after other characters are decoded
    plain = unescaped(secret)  # a secret that looks like an escape is decoded with the text
    if len(plain) >= _LEAST_CHARACTERS:
        yield plain


def _with_base64(secret: str) -> tuple[str, ...]:
    return secret, *_alphabets(base64.b64encode(secret.encode()).decode())


def _alphabets(in_base64: str) -> tuple[str, str]:
    """Return base64 without padding, in the standard and the URL alphabet."""
    bare = in_base64.rstrip("=")
    return bare, bare.translate(str.maketrans("+/", "-_"))
