"""Normalization of secrets: surrounding blanks are removed, text that cannot be a secret is rejected.

A secret with a newline, quotation mark or hidden character gets a 401 from the login service, like a wrong secret.
Kubernetes and Docker pass such texts on unchanged. No message repeats any part of the secret.
"""

from __future__ import annotations

import re
from typing import Final

# Characters that editors and web pages leave around a text, in addition to Unicode's white space.
_AROUND: Final = "\0\ufeff\u200b\u200c\u200d\u2060"
_QUOTES: Final = frozenset({'""', "''", "``", "“”", "„“", "\u2018\u2019", "«»"})
_ASSIGNMENT: Final = re.compile(
    r"""(export\s+)?(GENESYS|STREAM_SCORER)_[A-Z_]+\s*= | ["']?(client_?)?secret(_?previous)?["']?\s*[=:] | \{.*\}$""",
    re.IGNORECASE | re.VERBOSE,
)


class SecretTextError(ValueError):
    """Text that is not a secret; the message completes a sentence about it and repeats nothing of it."""


def clean_secret(text: str) -> str:
    """Return the secret without surrounding blanks and invisible characters.

    Raises:
        SecretTextError: it is empty, quoted, has several lines, is an assignment, or has a hidden character.
    """
    secret = before = text
    while (secret := secret.strip().strip(_AROUND)) != before:
        before = secret
    if not secret:
        raise SecretTextError("is empty")
    if secret[0] + secret[-1] in _QUOTES and len(secret) > 1:
        raise SecretTextError("is in quotation marks: write the secret without them")
    if len(secret.splitlines()) > 1:
        raise SecretTextError("has several lines: write nothing but the secret")
    if _ASSIGNMENT.match(secret):
        raise SecretTextError("has a name before the secret: write nothing but the secret")
    hidden = next((one for one in secret if not one.isprintable()), None)
    if hidden is not None:
        raise SecretTextError(f"has a character that is not printed (U+{ord(hidden):04X}): write the secret again")
    return secret
