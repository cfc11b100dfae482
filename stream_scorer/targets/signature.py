"""Signs callbacks as Standard Webhooks says (https://www.standardwebhooks.com), through its own library."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC
from typing import TYPE_CHECKING, Final

from standardwebhooks import Webhook

from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from datetime import datetime

# What Standard Webhooks asks for at least.
MIN_SECRET_BYTES: Final = 24
_PREFIX: Final = "whsec_"


class Signer:
    """Signs with the current secret and, while receivers change over, with the previous one as well.

    Neither secret shows in its repr.
    """

    def __init__(self, secret: str, previous: str | None = None) -> None:
        """Take the secrets, each base64 with or without ``whsec_`` before it.

        Raises:
            SettingsError: one is not base64 or too short; names the setting, not the value.
        """
        keys = [secret_bytes("callbacks.secret", secret)]
        if previous is not None:
            keys.append(secret_bytes("callbacks.secret_previous", previous))
        # With the key's bytes the library need not guess what the text was.
        self._webhooks = [Webhook(key) for key in dict.fromkeys(keys)]

    def headers(self, callback_id: str, body: bytes, at: datetime) -> dict[str, str]:
        """Return ``webhook-id``, ``webhook-timestamp`` and ``webhook-signature`` of one attempt.

        The timestamp is the attempt's and not the callback's: receivers take none that is older than five minutes.

        Args:
            callback_id: the same at every attempt.
            body: what is sent; UTF-8.
            at: when it is sent; with a zone.

        Raises:
            UnicodeDecodeError: the body is not UTF-8, and then nobody could verify its signature.
        """
        at = at.astimezone(UTC).replace(microsecond=0)  # the library takes whatever it gets for UTC
        text = body.decode()
        return {
            "webhook-id": callback_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(webhook.sign(callback_id, at, text) for webhook in self._webhooks),
        }


def secret_bytes(setting: str, secret: str) -> bytes:
    """Return the key that a secret stands for.

    Raises:
        SettingsError: it is not base64 or too short; names ``setting``, not the value.
    """
    text = secret.removeprefix(_PREFIX)
    try:
        # The library leaves out what is no base64; a typing error would give a key that no receiver has.
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
