"""``Retry-After`` (RFC 9110, section 10.2.3), and numbers of seconds in headers."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

SECONDS: Final = re.compile(r"[+-]?\d{1,12}(\.\d{1,9})?")
_MAX_RETRY_AFTER_S: Final = 86_400.0


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Return the seconds of a ``Retry-After``; None: absent or ignored.

    Both forms are valid, seconds and HTTP date. One that is unreadable, not positive, or longer than a day is ignored.
    Obeying it would stop the work for an error of the server, or repeat requests without a pause.

    Args:
        value: the header.
        now_s: Unix seconds, for the date.
    """
    if value is None:
        return None
    seconds = read_number(value)
    if seconds is None:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_s
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return seconds if 0 < seconds <= _MAX_RETRY_AFTER_S else None


def read_number(value: str | None) -> float | None:
    """Return the number in a header; None: absent, or not a number."""
    if value is None or not SECONDS.fullmatch(value.strip()):
        return None
    number = float(value)
    return number if math.isfinite(number) else None
