"""Event times: milliseconds since 1970, within the years that every deserializer can read.

A score contains the event's time. Python's deserializers, Confluent's among them, convert it to ``datetime`` and fail
outside the years 1 to 9999, so such a time is invalid. The same check detects a producer that writes seconds or
microseconds: read as milliseconds, its times are in 1970 or beyond the year 9999.

All functions take Unix milliseconds.
"""

from __future__ import annotations

from typing import Final

FIRST_MS: Final = -62_135_596_800_000  # 0001-01-01T00:00:00Z
LAST_MS: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
# The years 1990 to 2100, in which contacts are called, in seconds.
_FROM_S: Final = 631_152_000
_UNTIL_S: Final = 4_133_980_800
# Times from here to `LAST_MS` need no further check: they are not in seconds.
AFTER_SECONDS_MS: Final = _UNTIL_S
# By default brokers refuse records that are further ahead of their clock (message.timestamp.after.max.ms).
MAX_CLOCK_DIFFERENCE_MS: Final = 3_600_000
_UNITS: Final = (("seconds", 1), ("milliseconds", 1_000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000))


def unit_of(number: int) -> str | None:
    """Return the unit in which a number is a time in the years 1990 to 2100; None: in no unit."""
    return next((unit for unit, factor in _UNITS if _FROM_S * factor <= number < _UNTIL_S * factor), None)


def time_problem(at_ms: int) -> str | None:
    """Return why an event's time is invalid, without the time; None: it is valid."""
    unit = unit_of(at_ms)
    if unit not in (None, "milliseconds"):
        return f"is in {unit}, and milliseconds since 1970 are expected"
    return None if FIRST_MS <= at_ms <= LAST_MS else "is outside the years 1 to 9999"


def age_ms(occurred_at_ms: int, *, written_ms: int, now_ms: int) -> int | None:
    """Return the age of an event when it was written to its topic.

    The worker's clock is not used: if it is ahead, every event would be old.

    Args:
        occurred_at_ms: the event's time.
        written_ms: Kafka's timestamp of its record; negative: it has none, and the worker's clock is used.
        now_ms: the worker's clock. If the record is more than an hour ahead of it, one of the two clocks is wrong.

    Returns:
        The age; None: it is not known.
    """
    if written_ms < 0:
        return now_ms - occurred_at_ms
    return None if written_ms - now_ms > MAX_CLOCK_DIFFERENCE_MS else written_ms - occurred_at_ms
