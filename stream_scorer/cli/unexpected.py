"""An error that no part of the program expects, in one line without its text."""

from __future__ import annotations

import traceback

_PACKAGE = __name__.partition(".")[0]


def unexpected_line(error: BaseException) -> str:
    """Return the class of an error and the place in this package that it comes from.

    Its text is left out, since a library's words may quote URLs, headers and records.
    """
    places = [
        f"{module} line {line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (module := str(frame.f_globals.get("__name__"))).partition(".")[0] == _PACKAGE
    ]
    return f"unexpected {type(error).__name__}{f' in {places[-1]}' if places else ''}"
