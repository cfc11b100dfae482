"""Text for one-line messages."""

from __future__ import annotations

from typing import Final

_MAX_NAME_CHARACTERS: Final = 65


def is_text(value: str) -> bool:
    """Return whether a string can be encoded as UTF-8: a lone surrogate cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def truncated(text: str, max_characters: int) -> str:
    """Return a text of at most this length; the last character of a cut one is an ellipsis."""
    return text if len(text) <= max_characters else f"{text[: max_characters - 1]}…"


def quoted(name: str) -> str:
    """Return a user's name, quoted for a one-line message: control characters escaped, length bounded."""
    return repr(truncated(name, _MAX_NAME_CHARACTERS))
