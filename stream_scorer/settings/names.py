"""The names of settings: what exists, what an environment variable is called, what was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

KeyPath: TypeAlias = tuple[str, ...]

PREFIX: Final = "STREAM_SCORER_"


def dotted(path: KeyPath) -> str:
    """Return the key as the documentation writes it: ``kafka.group_id``."""
    return ".".join(path)


def variable(path: KeyPath) -> str:
    """Return the key's environment variable: ``STREAM_SCORER_KAFKA__GROUP_ID``."""
    return PREFIX + "__".join(path).upper()


def file_key(key: str) -> str:
    """Return the key that names the file in which a secret stands."""
    return f"{key}_file"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean …?`` with the known name next to ``name``; with none near, a short list of all."""
    known = tuple(known)
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.6) or get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if len(known) <= 20 else ""  # noqa: PLR2004 - what fits a line
