"""Signer of callbacks by Standard Webhooks (https://www.standardwebhooks.com), on top of its library."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC
from typing import TYPE_CHECKING, Final

from standardwebhooks import Webhook

from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from datetime import datetime

# The minimum of Standard Webhooks.
MIN_SECRET_BYTES: Final = 24
_PREFIX: Final = "whsec_"


class Signer:
    """Signer with the current secret and, during a rotation, the previous one as well.

    Neither secret is in its repr.
    """

    def __init__(self, secret: str, previous: str | None = None) -> None:
        """Use these secrets, each in base64, with or without ``whsec_`` before it.

        Raises:
            SettingsError: one is not base64 or too short; names the setting, not the value.
        """
        keys = [secret_bytes("callbacks.secret", secret)]
        if previous is not None:
            keys.append(secret_bytes("callbacks.secret_previous", previous))
        # The key is passed as bytes, so that the library need not guess the form of a text.
        self._webhooks = [Webhook(key) for key in dict.fromkeys(keys)]

    def headers(self, callback_id: str, body: bytes, at: datetime) -> dict[str, str]:
        """Return ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature`` of one attempt.

        The timestamp is the attempt's and not the callback's: receivers refuse one that is older than five minutes.

        Args:
            callback_id: the same at every attempt.
            body: the body; UTF-8.
            at: the time of the attempt; with a zone.

        Raises:
            UnicodeDecodeError: the body is not UTF-8, so its signature could not be verified.
        """
        at = at.astimezone(UTC).replace(microsecond=0)  # the library treats any time as UTC
        text = body.decode()
        return {
            "webhook-id": callback_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(webhook.sign(callback_id, at, text) for webhook in self._webhooks),
        }


def secret_bytes(setting: str, secret: str) -> bytes:
    """Return the key of a secret.

    Raises:
        SettingsError: it is not base64 or too short; names ``setting``, not the value.
    """
    text = secret.removeprefix(_PREFIX)
    try:
        # The library ignores invalid base64; a mistyped secret would give a key that no receiver has.
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise SettingsError(
            f"{setting} must be base64, with or without '{_PREFIX}' before it: openssl rand -base64 32 makes one"
        ) from None
    if len(key) < MIN_SECRET_BYTES:
        raise SettingsError(
            f"{setting} is too short: it holds {len(key)} bytes and needs {MIN_SECRET_BYTES};"
            " openssl rand -base64 32 makes one"
        )
    return key
