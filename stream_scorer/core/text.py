"""Text for one-line messages."""

from __future__ import annotations

from typing import Final

_NAME_CHARACTERS_SHOWN: Final = 64


def is_text(value: str) -> bool:
    """Tell whether a string can be written as UTF-8: one half of a surrogate pair alone cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """Return a name that a user gave, quoted for a one-line message: control characters escaped, bounded in length."""
    return repr(name if len(name) <= _NAME_CHARACTERS_SHOWN else f"{name[:_NAME_CHARACTERS_SHOWN]}…")
