"""Text for one-line messages."""

from __future__ import annotations

from typing import Final

_NAME_CHARACTERS_SHOWN: Final = 64


def is_text(value: str) -> bool:
    """Return whether a string can be encoded as UTF-8: a lone surrogate cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """Return a user's name, quoted for a one-line message: control characters escaped, length bounded."""
    return repr(name if len(name) <= _NAME_CHARACTERS_SHOWN else f"{name[:_NAME_CHARACTERS_SHOWN]}…")
