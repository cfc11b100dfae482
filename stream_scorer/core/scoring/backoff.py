"""Exponential backoff with jitter. Pure: the caller owns the clock, so shutdown never waits for a retry."""

from __future__ import annotations


def next_delay_s(
    attempt: int, *, base_s: float, max_s: float, jitter: float, retry_after_s: float | None = None
) -> float:
    """Return the seconds to wait before the next attempt.

    Formula ("equal jitter": half is fixed, so an overloaded API always gets a pause; half is random, so that workers
    which failed together do not retry together)::

        ceiling = min(max_s, max(base_s, base_s ** attempt))
        delay   = ceiling / 2 + jitter * ceiling / 2

    A ``Retry-After`` takes precedence over the formula and is not limited to ``max_s``: a daily cap can last hours, and
    an earlier request only gets the next 429. A ``Retry-After`` of 0 or in the past is ignored: immediate retries would
    be a burst on a failing API.

    Args:
        attempt: number of failed attempts so far, at least 1.
        base_s: the base of the power, in seconds: 2.0 gives up to 2, 4, 8 … s; below 1 the ceiling stays at it.
        max_s: the maximum of the formula's ceiling, in seconds.
        retry_after_s: the value of ``Retry-After``, in seconds; None if absent or invalid, 0 or less if it is in the
            past.
        jitter: a random number in [0, 1).
    """
    if retry_after_s is not None and retry_after_s > 0:
        return retry_after_s
    try:
        ceiling = min(max_s, max(base_s, base_s**attempt))
    except OverflowError:  # hundreds of failed attempts
        ceiling = max_s
    return ceiling * (1.0 + jitter) / 2.0
