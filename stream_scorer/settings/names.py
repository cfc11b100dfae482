"""Names of settings: dotted keys, environment variables, suggestions for mistyped names."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath: TypeAlias = tuple[str, ...]

PREFIX: Final = "STREAM_SCORER_"


def dotted(path: KeyPath) -> str:
    """Return the dotted key, as in the documentation: ``kafka.group_id``."""
    return ".".join(path)


def variable(path: KeyPath) -> str:
    """Return the key's environment variable: ``STREAM_SCORER_KAFKA__GROUP_ID``."""
    return PREFIX + "__".join(path).upper()


def file_key(key: str) -> str:
    """Return the key of a secret's file."""
    return f"{key}_file"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the known name closest to ``name``; without one, a short list of all."""
    known = tuple(known)
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.6) or get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if len(known) <= 20 else ""  # noqa: PLR2004 - as many as fit a line
