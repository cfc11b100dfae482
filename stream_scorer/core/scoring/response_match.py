"""Match of a response with its request: the score of each contact, and the scores that need a review."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from stream_scorer.core.scoring.types import ReviewReason

if TYPE_CHECKING:
    from collections.abc import Sequence

ScoreAndBounds: TypeAlias = "tuple[float, float, float]"

# Bounds are decimal fractions: 0.35 - 0.2 is 0.15, but the difference of the nearest doubles is slightly less.
_ROUNDING: Final = 1e-9


class Matched(NamedTuple):
    """A response, matched by contact id.

    Attributes:
        results: score, lower and upper bound of each scored contact, in the order of the response.
        unanswered: the contacts without a usable result, in the order of the request.
        unknown: number of results without a contact of the request.
    """

    results: dict[str, ScoreAndBounds]
    unanswered: list[str]
    unknown: int


def match(contact_ids: Sequence[str], items: Sequence[Any]) -> Matched:
    """Match the items of ``results`` with the contacts of the request.

    A result counts only with a numeric score and bounds. Two equal results for one id count once; two different ones do
    not count. The items may be any JSON values.
    """
    asked = set(contact_ids)
    found: dict[str, ScoreAndBounds | None] = {}
    unknown = 0
    for item in items:
        contact_id = item.get("contactId") if type(item) is dict else None
        if type(contact_id) is not str or contact_id not in asked:
            unknown += 1
            continue
        result = _score_and_bounds(item)
        if contact_id not in found:
            found[contact_id] = result
        elif found[contact_id] != result:
            found[contact_id] = None
    results = {contact_id: result for contact_id, result in found.items() if result is not None}
    return Matched(results, [contact_id for contact_id in contact_ids if contact_id not in results], unknown)


def _score_and_bounds(item: dict[str, Any]) -> ScoreAndBounds | None:
    interval = item.get("confidenceInterval")
    if type(interval) is not dict:
        return None
    score, lower, upper = item.get("score"), interval.get("lower"), interval.get("upper")
    if type(score) is float and type(lower) is float and type(upper) is float:
        return score, lower, upper
    if any(type(number) not in (int, float) for number in (score, lower, upper)):
        return None
    try:
        return float(score), float(lower), float(upper)  # type: ignore[arg-type]
    except OverflowError:
        return None


@dataclass(frozen=True, slots=True)
class Verifier:
    """Check of a score and its confidence interval.

    Attributes:
        min_interval_width: a confidence interval narrower than this goes to review.
        max_interval_width: a wider one too; None: none is too wide.
    """

    min_interval_width: float = 0.15
    max_interval_width: float | None = None

    def review_reasons(self, score: float, lower: float, upper: float) -> tuple[str, ...]:
        """Return why this score needs a review, in the order of the contract; empty: it needs none.

        Bounds that are swapped or not finite have no width, so such an interval is neither narrow nor wide. NaN fails
        every comparison here, so it counts as out of range and inconsistent.
        """
        width = upper - lower
        narrow = width < self.min_interval_width - _ROUNDING
        wide = self.max_interval_width is not None and width > self.max_interval_width + _ROUNDING
        score_in_range = 0.0 <= score <= 1.0
        score_inside = lower <= score <= upper
        if score_in_range and score_inside and not narrow and not wide and width < inf:
            return ()
        bounds_ordered = lower <= upper and isfinite(lower) and isfinite(upper)
        found = (
            (ReviewReason.NARROW_INTERVAL, narrow and bounds_ordered),
            (ReviewReason.WIDE_INTERVAL, wide and bounds_ordered),
            (ReviewReason.SCORE_OUT_OF_RANGE, not score_in_range),
            (ReviewReason.INTERVAL_INCONSISTENT, not (bounds_ordered and score_inside)),
        )
        return tuple(reason.value for reason, applies in found if applies)
