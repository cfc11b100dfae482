"""Results of a calculation: scores, review reasons and rejected contacts."""

from __future__ import annotations

import contextlib
import logging
import math
import numbers
from dataclasses import dataclass, field
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
        contact_id: id of the contact.
        score: as the API returned it; 0 to 1 unless a review reason applies.
        confidence_interval_lower: the interval's lower bound.
        confidence_interval_upper: the interval's upper bound.
        latency_ms: milliseconds of the request that scored it.
        timestamp: time of that request; ISO 8601, UTC.
        imputed_features: the names of imputed features.
        review_reasons: reasons for a person's review, in the contract's terms; empty: none.
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
    """Contact without a score.

    Attributes:
        index: its index in the caller's list, from 0.
        contact_id: its id; empty if it has none that is text.
        reasons: in the contract's terms; the first one is decisive.
        detail: one readable sentence.
        contact: the contact as passed by the caller.
    """

    index: int
    contact_id: str
    reasons: tuple[str, ...]
    detail: str
    contact: Any = field(default=None, repr=False)  # personal data


@dataclass(frozen=True, slots=True)
class ScoringOutcome:
    """Outcomes of a calculation, each in the order of the caller's list."""

    scored: tuple[ScoreResult, ...]
    review: tuple[ScoreResult, ...]
    rejected: tuple[RejectedContact, ...]

    def __repr__(self) -> str:
        counts = f"scored={len(self.scored)}, review={len(self.review)}, rejected={len(self.rejected)}"
        return f"<ScoringOutcome {counts}>"


class PartialOnError:
    """Context manager that attaches finished, and so billed, contacts as ``partial`` to any exception, Ctrl-C included.

    A class and not a generator: `contextlib` sets attributes of the exception, which a caller's class may forbid.
    """

    def __init__(self, partial: Callable[[], object], finished: Callable[[], Sized]) -> None:
        """Store two functions; both are called only if the block fails.

        Args:
            partial: returns the attached object.
            finished: returns its contacts, to be counted.
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
    """Rules for results that need a person's review.

    Reasons (`stream_scorer.core.scoring.response_match`): an interval narrower than the model can be sure of, a score
    outside 0 to 1, bounds that contradict each other or the score.
    """

    def __init__(self, min_confidence_width: float = 0.15, max_confidence_width: float | None = None) -> None:
        """Set the limits of an interval's width; no ``max_confidence_width``: no upper limit.

        Raises:
            SettingsError: a width is not a finite number; raised here, before results are billed.
        """
        if not _is_number(min_confidence_width):
            raise SettingsError("min_confidence_width must be a finite number")
        if max_confidence_width is not None and not _is_number(max_confidence_width):
            raise SettingsError("max_confidence_width must be a finite number or None")
        self.min_width = min_confidence_width
        self.max_width = max_confidence_width

    def __repr__(self) -> str:
        return f"ConfidenceVerifier(min_confidence_width={self.min_width}, max_confidence_width={self.max_width})"

    @property
    def rules(self) -> Verifier:
        """The same limits as a rule of the core."""
        return Verifier(self.min_width, self.max_width)

    def reasons(self, result: ScoreResult) -> tuple[str, ...]:
        """Return the reasons for a review; empty: none."""
        lower, upper = result.confidence_interval_lower, result.confidence_interval_upper
        return self.rules.review_reasons(result.score, lower, upper)

    def verify(self, result: ScoreResult) -> bool:
        """Return whether a result needs no review; otherwise log a warning with the reasons."""
        reasons = self.reasons(result)
        if reasons:
            _log.warning("score of contact %r needs review: %s", result.contact_id, ", ".join(reasons))
        return not reasons


def _is_number(value: Any) -> bool:
    return type(value) is not bool and isinstance(value, numbers.Real) and math.isfinite(value)
