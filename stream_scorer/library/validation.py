"""Validation of features against a list of names, without types, which the library's callers do not declare.

A value must be one that JSON represents unambiguously; the API checks the types of the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stream_scorer.core.scoring.feature_types import MAX_INTEGER
from stream_scorer.core.scoring.types import Reason
from stream_scorer.core.text import is_text, quoted
from stream_scorer.errors import SettingsError
from stream_scorer.library.plain_values import plain

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_ITEMS_SHOWN: Final = 5


def impute(features: Mapping[str, Any], imputation_map: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the features with absent and null ones imputed, and the names of those."""
    filled = tuple(name for name in imputation_map if features.get(name) is None)
    return {**features, **{name: plain(imputation_map[name]) for name in filled}}, filled


def failures_of(
    features: Mapping[str, Any], expected: Collection[str], max_features: int, missing: Collection[str]
) -> list[tuple[Reason, str]]:
    """Return each reason that applies, once, in the order of the contract, with one sentence; empty: none.

    Args:
        features: plain values; null is checked by ``missing`` alone.
        expected: the names of the features.
        max_features: maximum number of features of a contact.
        missing: the expected features without a value or an imputation.
    """
    found: list[tuple[Reason, str]] = []
    if len(features) > max_features:
        found.append((Reason.TOO_MANY_FEATURES, f"{len(features)} features, and max_features is {max_features}"))
    unsupported = [quoted(name) for name in features if name not in expected]
    if unsupported:
        found.append((Reason.UNSUPPORTED_FEATURE, f"the model has no feature {_joined(unsupported)}"))
    if missing:
        names = _joined([quoted(name) for name in missing])
        found.append((Reason.MISSING_FEATURE, f"absent or null, and nothing to impute: {names}"))
    problems = [(name, value_problem(value)) for name, value in features.items() if value is not None]
    for reason in (Reason.WRONG_TYPE, Reason.OUT_OF_RANGE):
        sentences = [f"{quoted(name)} {problem[1]}" for name, problem in problems if problem and problem[0] is reason]
        if sentences:
            found.append((reason, _joined(sentences)))
    return found


def value_problem(value: Any) -> tuple[Reason, str] | None:
    """Return the reason and problem of a value; None: it is valid."""
    kind = type(value)
    if kind is bool or (kind is str and is_text(value)):
        return None
    if kind is int:
        too_great = not -MAX_INTEGER <= value <= MAX_INTEGER
        return (Reason.OUT_OF_RANGE, "is an integer beyond what JSON carries exactly") if too_great else None
    if kind is float:
        finite = float("-inf") < value < float("inf")  # NaN fails both comparisons
        return None if finite else (Reason.OUT_OF_RANGE, "is not a finite number")
    if kind is str:
        return Reason.WRONG_TYPE, "is not valid Unicode"
    return Reason.WRONG_TYPE, f"must be a number, a string or a boolean, not {kind.__name__}"


def check_text(argument: str, value: Any) -> None:
    """Check an argument that must be text.

    Raises:
        SettingsError: it is not, for example because the variable that it was read from is not set.
    """
    if not isinstance(value, str) or not value or not is_text(value):
        raise SettingsError(f"{argument} must be text that is not empty")


def _joined(parts: list[str]) -> str:
    more = len(parts) - _ITEMS_SHOWN
    return "; ".join(parts[:_ITEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
