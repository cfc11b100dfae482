"""Position of a JSON or TOML syntax error, without the parser's message, which may quote the text."""

from __future__ import annotations

import re
from typing import Final

_TOML_PLACE: Final = re.compile(r"\(at (line \d+, column \d+|end of document)\)$")


def parse_error_place(error: Exception) -> str:
    """Return the position as a suffix of "is not JSON" or "is not TOML"; empty if the parser gives none."""
    line, column = getattr(error, "lineno", None), getattr(error, "colno", None)
    if isinstance(line, int) and isinstance(column, int):
        return f" at line {line}, column {column}"
    if isinstance(error, UnicodeDecodeError):
        return f": byte {error.start + 1} is not UTF-8"
    if isinstance(error, RecursionError):
        return ": it is nested too deep"
    place = _TOML_PLACE.search(str(error))
    return f" at {'the end' if place[1] == 'end of document' else place[1]}" if place else ""
