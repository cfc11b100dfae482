"""Simulated token endpoint: OAuth 2.0 client credentials, by HTTP Basic or as form fields."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson

from stream_scorer.local.simulator.replies import Reply, oauth_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.local.simulator.config import SimulatorConfig

FORM = b"application/x-www-form-urlencoded"


class TokenEndpoint:
    """Issuer of tokens, with their expiry times. Times are monotonic seconds, passed in."""

    def __init__(self) -> None:
        self._expiries: dict[str, float] = {}

    def answer(self, headers: Mapping[bytes, bytes], body: bytes, config: SimulatorConfig, now: float) -> Reply:
        """Answer a token request: 200 with a token, or 400 or 401 with an OAuth error."""
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != FORM:
            return oauth_error(400, "the body must be a form", error="invalid_request")
        form = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        if form.get("grant_type") != "client_credentials":
            return oauth_error(400, "grant_type must be client_credentials", error="unsupported_grant_type")
        client = _basic(headers.get(b"authorization", b"")) or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        if client[0] != config.client_id:
            return oauth_error(400, "client not found")
        if not hmac.compare_digest(client[1].encode(), config.client_secret.encode()):
            return oauth_error(401, "client authentication failed")
        token = self.issue(config.expires_in, now)
        content = {"access_token": token, "token_type": "bearer", "expires_in": config.expires_in}  # a word of OAuth  # nosec B105
        return Reply(200, orjson.dumps(content), headers=(("Cache-Control", "no-store"),))

    def issue(self, life_s: float, now: float) -> str:
        """Issue a new token, and remove expired ones."""
        self._expiries = {token: expiry for token, expiry in self._expiries.items() if expiry > now}
        token = secrets.token_urlsafe(48)
        self._expiries[token] = now + life_s
        return token

    def valid(self, token: str, now: float) -> bool:
        """Return whether the token was issued, is not revoked, and has not expired."""
        return self._expiries.get(token, now) > now

    def revoke_all(self) -> int:
        """Revoke all tokens and return their number."""
        count = len(self._expiries)
        self._expiries.clear()
        return count


def _basic(header: bytes) -> tuple[str, str] | None:
    """Return id and secret of a Basic header; None if it is missing or malformed."""
    scheme, _, encoded = header.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        client_id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return (client_id, secret) if colon else None
