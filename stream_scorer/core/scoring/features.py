"""Validation and imputation of a contact's features.

`ContactChecker.check` applies the checks of the contract, section 5, from ``invalid_contact`` to ``out_of_range``, in
that order, and reports every one that fails. A valid contact is the common case and takes a loop without error texts.
Only if that loop finds a fault is the contact checked again for its failures. The rules of type and limits are in
`stream_scorer.core.scoring.feature_types`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stream_scorer.core.attributes import attributes_problem
from stream_scorer.core.scoring.event_time import AFTER_SECONDS_MS, LAST_MS, time_problem
from stream_scorer.core.scoring.feature_types import (
    Feature,
    compile_rule,
    describe_range,
    describe_type,
    normalized,
    validate,
)
from stream_scorer.core.scoring.types import Reason
from stream_scorer.core.text import is_text, quoted
from stream_scorer.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_scorer.core.scoring.types import ContactEvent, FeatureValue

Complete: TypeAlias = "tuple[dict[str, FeatureValue], tuple[str, ...]]"
Failures: TypeAlias = "list[tuple[Reason, str]]"

MAX_ID_BYTES: Final = 256
_ITEMS_SHOWN: Final = 5


class FeatureList:
    """The features of one model, prepared once for checking many contacts."""

    __slots__ = ("_max_features", "_names", "_rules", "_unpacked")

    def __init__(self, features: Sequence[Feature], max_features: int = 50) -> None:
        """Prepare the checks.

        Args:
            features: in the order of their position in requests.
            max_features: a contact with more is rejected.

        Raises:
            SettingsError: two features have one name, or there are more than ``max_features``.
        """
        self._rules = tuple(compile_rule(feature) for feature in features)
        # Plain tuples: Python unpacks them several times as fast, for each feature of each contact.
        self._unpacked = tuple((rule, *rule) for rule in self._rules)
        self._names = frozenset(feature.name for feature in features)
        self._max_features = max_features
        if len(self._names) < len(self._rules):
            raise SettingsError("model.features: two features have one name")
        if len(self._rules) > max_features:
            raise SettingsError(
                f"model.max_features is {max_features}, but model.features has {len(self._rules)}: no contact would fit"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names in the order of the model."""
        return tuple(rule.name for rule in self._rules)

    def check(self, features: Mapping[str, FeatureValue | None]) -> Complete | Failures:
        """Check one contact's features and impute missing ones.

        Returns:
            For a valid contact a tuple: its features in model order with imputed values, and the imputed names.
            Otherwise a list: each reason that applies, once, in the order of the contract, with one sentence.
        """
        complete: dict[str, FeatureValue] = {}
        imputed: tuple[str, ...] = ()
        known = 0
        for rule, name, _, exact, low, high, choices, impute in self._unpacked:
            value: Any = features.get(name)
            kind = type(value)
            if value is None:
                if impute is None:
                    break
                complete[name] = impute
                imputed += (name,)
                known += name in features
            elif kind is exact and choices is None and (value.isascii() if exact is str else low <= value <= high):
                complete[name] = value
                known += 1
            elif validate(rule, value) is None:
                complete[name] = normalized(rule, value)
                known += 1
            else:
                break
        else:
            if known == len(features) <= self._max_features:
                return complete, imputed
        return self._failures(features)

    def _failures(self, features: Mapping[str, FeatureValue | None]) -> Failures:
        failures: Failures = []
        if len(features) > self._max_features:
            failures.append(
                (Reason.TOO_MANY_FEATURES, f"{len(features)} features, and model.max_features is {self._max_features}")
            )
        unsupported = [quoted(name) for name in features if name not in self._names]
        if unsupported:
            failures.append((Reason.UNSUPPORTED_FEATURE, f"the model has no feature {_joined(unsupported)}"))
        missing: list[str] = []
        broken: dict[Reason, list[str]] = {Reason.WRONG_TYPE: [], Reason.OUT_OF_RANGE: []}
        for rule in self._rules:
            value = features.get(rule.name)
            if value is None:
                if rule.impute is None:
                    missing.append(quoted(rule.name))
                continue
            verdict = validate(rule, value)
            if verdict is Reason.WRONG_TYPE:
                broken[verdict].append(describe_type(rule, value))
            elif verdict is not None:
                broken[verdict].append(describe_range(rule))
        if missing:
            failures.append((Reason.MISSING_FEATURE, f"absent or null, and nothing to impute: {_joined(missing)}"))
        failures.extend((reason, _joined(sentences)) for reason, sentences in broken.items() if sentences)
        return failures


class ContactChecker:
    """All checks of a decoded event before it may be sent to the API."""

    __slots__ = ("_check_features", "_max_event_age_ms", "checks_age")

    def __init__(self, features: FeatureList, max_event_age_s: float | None = None) -> None:
        """Prepare the checks; with ``max_event_age_s`` an older event is ``expired``."""
        self._check_features = features.check
        self.checks_age = max_event_age_s is not None
        self._max_event_age_ms = None if max_event_age_s is None else max_event_age_s * 1000.0

    def check(self, event: ContactEvent, age_ms: int | None = None) -> Complete | Failures:
        """Check one event; return as `FeatureList.check`.

        Args:
            event: the decoded event.
            age_ms: its age when it was written to the topic; None: its age is not checked.
        """
        event_id, contact_id, features, occurred_at_ms, _, _, attributes = event
        result = self._check_features(features)
        max_age_ms = self._max_event_age_ms
        is_expired = max_age_ms is not None and age_ms is not None and age_ms > max_age_ms
        if (
            contact_id.isascii()
            and 0 < len(contact_id) <= MAX_ID_BYTES
            and event_id.isascii()
            and 0 < len(event_id) <= MAX_ID_BYTES
            and AFTER_SECONDS_MS <= occurred_at_ms <= LAST_MS
            and not is_expired
            and not (attributes and attributes_problem(attributes))
        ):
            return result
        failures: Failures = []
        sentences = [
            f"{field} {problem}"
            for field, value in (("contact_id", contact_id), ("event_id", event_id))
            if (problem := _id_problem(value))
        ]
        if (problem := time_problem(occurred_at_ms)) is not None:
            sentences.append(f"occurred_at {problem}")
        if (problem := attributes_problem(attributes)) is not None:
            sentences.append(f"attributes {problem}")
        if sentences:
            failures.append((Reason.INVALID_CONTACT, "; ".join(sentences)))
        if is_expired and max_age_ms is not None and age_ms is not None:
            limit = f"scoring.max_event_age_s is {max_age_ms / 1000:g}"
            written = f"the event was {age_ms // 1000} s old when it was written to the topic"
            failures.append((Reason.EXPIRED, f"{written}, and {limit}"))
        if not failures:
            return result
        return failures + result if isinstance(result, list) else failures


def _id_problem(value: str) -> str | None:
    if not value:
        return "is empty"
    if not is_text(value):
        return "is not valid Unicode"
    size = len(value.encode())
    return f"has {size} bytes, more than the {MAX_ID_BYTES} allowed" if size > MAX_ID_BYTES else None


def _joined(parts: Sequence[str]) -> str:
    more = len(parts) - _ITEMS_SHOWN
    return "; ".join(parts[:_ITEMS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
