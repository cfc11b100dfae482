"""What comes out of a calculation: results, what is wrong with them, and contacts without any."""

from __future__ import annotations

import contextlib
import logging
import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stream_scorer.core.scoring.response_match import Verifier
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

_log = logging.getLogger("stream_scorer")


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """The score of one contact.

    Attributes:
        contact_id: whose.
        score: as the API gave it; 0 to 1 unless something is wrong.
        confidence_interval_lower: the interval's lower bound.
        confidence_interval_upper: the interval's upper bound.
        latency_ms: milliseconds that the request took which scored it.
        timestamp: when that was; ISO 8601, UTC.
        imputed_features: the features that were filled in.
        review_reasons: why a person should look at it, in the words of the contract; empty: all is well.
    """

    contact_id: str
    score: float
    confidence_interval_lower: float
    confidence_interval_upper: float
    latency_ms: float
    timestamp: str
    imputed_features: tuple[str, ...] = ()
    review_reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RejectedContact:
    """A contact that could not be scored.

    Attributes:
        index: its place in the caller's list, from 0.
        contact_id: empty where it has none that is text.
        reasons: in the words of the contract; the first one counts.
        detail: one readable sentence.
        contact: what the caller gave.
    """

    index: int
    contact_id: str
    reasons: tuple[str, ...]
    detail: str
    contact: Any = None


@dataclass(frozen=True, slots=True)
class ScoringOutcome:
    """What became of every contact of a calculation, each in the order of the caller's list."""

    scored: tuple[ScoreResult, ...]
    review: tuple[ScoreResult, ...]
    rejected: tuple[RejectedContact, ...]


class PartialOnError:
    """Attaches what is finished, and paid for, as ``partial`` to any exception of a ``with`` block, Ctrl-C included.

    It is no generator: `contextlib` sets attributes of the exception, which one of the caller's may not allow.
    """

    def __init__(self, partial: Callable[[], object], finished: Callable[[], Sized]) -> None:
        """Prepare; both are called only if the block fails.

        Args:
            partial: returns what is attached.
            finished: returns the contacts in it, to be counted.
        """
        self._partial = partial
        self._finished = finished

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            return
        vars(error)["partial"] = self._partial()  # not setattr, for the same reason
        count = len(self._finished())
        with contextlib.suppress(Exception):
            error.add_note(f"{count} contacts were finished before: see the attribute 'partial' of this exception")


class ConfidenceVerifier:
    """Sorts out the results that a person should look at.

    An interval narrower than the model can be sure of, a score outside 0 to 1, bounds that contradict each other or
    the score: each is a reason (`stream_scorer.core.scoring.response_match`).
    """

    def __init__(self, min_confidence_width: float = 0.15, max_confidence_width: float | None = None) -> None:
        """Set how narrow and how wide an interval may be; no ``max_confidence_width``: none is too wide.

        Raises:
            SettingsError: a width is not a finite number; found here, and not when the first results are paid for.
        """
        if not _is_number(min_confidence_width):
            raise SettingsError("min_confidence_width must be a finite number")
        if max_confidence_width is not None and not _is_number(max_confidence_width):
            raise SettingsError("max_confidence_width must be a finite number or None")
        self.min_width = min_confidence_width
        self.max_width = max_confidence_width

    @property
    def rules(self) -> Verifier:
        """The same limits as the core knows them."""
        return Verifier(self.min_width, self.max_width)

    def reasons(self, result: ScoreResult) -> tuple[str, ...]:
        """Return why this result should be reviewed; empty: it is fine."""
        lower, upper = result.confidence_interval_lower, result.confidence_interval_upper
        return self.rules.review_reasons(result.score, lower, upper)

    def verify(self, result: ScoreResult) -> bool:
        """Tell whether a result is fine; a warning in the log says why it is not."""
        reasons = self.reasons(result)
        if reasons:
            _log.warning("score of contact %r needs review: %s", result.contact_id, ", ".join(reasons))
        return not reasons


def _is_number(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, numbers.Real) and math.isfinite(value)
