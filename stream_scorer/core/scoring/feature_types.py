"""One feature of the model: its type, its limits, and the validation of a value.

``integer`` takes a long, or a double without fraction (which becomes the integer). Its limits are -(2**53 - 1) and
2**53 - 1, since JSON guarantees no more between two programs. ``number`` takes a long or a finite double (a greater
long becomes the nearest double). A boolean is no number, and a string is never parsed. A value of the right type
outside those bounds, the model's own limits or its choices is ``out_of_range``; so are NaN and the infinities.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from stream_scorer.core.scoring.types import FeatureValue, Reason
from stream_scorer.core.text import is_text, quoted
from stream_scorer.errors import SettingsError

FeatureType: TypeAlias = Literal["integer", "number", "boolean", "string"]

MAX_INTEGER: Final = 2**53 - 1
_MAX_NUMBER: Final = sys.float_info.max


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature the model expects.

    Attributes:
        name: its name in the event and in the request.
        type: the type of its value; see the module docstring.
        impute: the value if the feature is absent or null; None: such a contact is rejected.
        minimum: the lowest value allowed, for ``integer`` and ``number``.
        maximum: the highest value allowed, for ``integer`` and ``number``.
        choices: the only values allowed; None: any.

    Raises:
        SettingsError: the parts contradict each other; names ``model.features.<name>``.
    """

    name: str
    type: FeatureType
    impute: FeatureValue | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[FeatureValue, ...] | None = None

    def __post_init__(self) -> None:
        key = f"model.features.{quoted(self.name)[1:-1]}"
        if not self.name:
            raise SettingsError("model.features: a feature needs a name that is not empty")
        if self.type not in ("integer", "number", "boolean", "string"):
            raise SettingsError(f"{key}.type is {self.type!r}: use integer, number, boolean or string")
        self._check_limits(key)
        rule = compile_rule(self)
        unlimited = rule._replace(choices=None)
        if self.choices is not None and not self.choices:
            raise SettingsError(f"{key}.choices is empty, so no value would be allowed: list values or leave it out")
        for choice in self.choices or ():
            if validate(unlimited, choice) is not None:
                raise SettingsError(f"{key}.choices: {choice!r} is not of type {self.type} or outside the limits")
        if self.impute is not None and validate(rule, self.impute) is not None:
            raise SettingsError(
                f"{key}.impute: {self.impute!r} is not of type {self.type}, or breaks minimum, maximum or choices"
            )

    def _check_limits(self, key: str) -> None:
        for which, limit in (("minimum", self.minimum), ("maximum", self.maximum)):
            if limit is None:
                continue
            if self.type not in ("integer", "number"):
                raise SettingsError(f"{key}.{which}: only an integer or a number has one, this feature is {self.type}")
            if type(limit) not in (int, float) or not -_MAX_NUMBER <= limit <= _MAX_NUMBER:
                raise SettingsError(f"{key}.{which}: {limit!r} is not a finite number")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise SettingsError(f"{key}: minimum {self.minimum} is greater than maximum {self.maximum}")


class Rule(NamedTuple):
    """A feature, prepared for the loop. A value of type ``exact`` between ``low`` and ``high`` is valid."""

    name: str
    kind: FeatureType
    exact: type
    low: Any
    high: Any
    choices: frozenset[FeatureValue] | None
    impute: FeatureValue | None


_EXACT: Final[dict[str, type]] = {"integer": int, "number": float, "boolean": bool, "string": str}


def compile_rule(feature: Feature) -> Rule:
    """Prepare a feature for checking."""
    bound = MAX_INTEGER if feature.type == "integer" else _MAX_NUMBER
    rule = Rule(
        feature.name,
        feature.type,
        _EXACT[feature.type],
        -bound if feature.minimum is None else max(feature.minimum, -bound),
        bound if feature.maximum is None else min(feature.maximum, bound),
        None if feature.choices is None else frozenset(feature.choices),
        None,
    )
    if feature.impute is None or validate(rule, feature.impute) is not None:
        return rule
    return rule._replace(impute=normalized(rule, feature.impute))


def normalized(rule: Rule, value: Any) -> Any:
    """Return a valid value in the form that is sent: an integer without fraction, a number safe for any JSON parser."""
    kind = type(value)
    if rule.exact is int and kind is float and value.is_integer():
        return int(value)
    if rule.exact is float and kind is int and not -MAX_INTEGER <= value <= MAX_INTEGER:
        return float(value)
    return value


def validate(rule: Rule, value: Any) -> Reason | None:
    """Return why a value that is not null is invalid; None: it is valid."""
    kind = type(value)
    if rule.exact is int:
        # NaN and the infinities are no fractions either: they have the right type and are out of range.
        fits = kind is int or (kind is float and (value.is_integer() or not math.isfinite(value)))
    elif rule.exact is float:
        fits = kind in (int, float)
    else:
        fits = kind is rule.exact and (kind is not str or is_text(value))
    if not fits:
        return Reason.WRONG_TYPE
    if rule.exact in (int, float) and not rule.low <= value <= rule.high:
        return Reason.OUT_OF_RANGE
    return Reason.OUT_OF_RANGE if rule.choices is not None and value not in rule.choices else None


def describe_type(rule: Rule, value: Any) -> str:
    """Return the error for a value of the wrong type, without the value."""
    if rule.exact is str and type(value) is str:
        return f"{quoted(rule.name)} is not valid Unicode"
    given = _KINDS.get(type(value), "something else")
    return f"{quoted(rule.name)} must be {_KINDS_WANTED[rule.kind]}, not {given}"


def describe_range(rule: Rule) -> str:
    """Return the error for a value outside its limits, without the value."""
    if rule.choices is not None:
        return f"{quoted(rule.name)} is none of the model's choices, or outside its limits"
    low = "-1.8e308" if rule.low == -_MAX_NUMBER else rule.low
    high = "1.8e308" if rule.high == _MAX_NUMBER else rule.high
    return f"{quoted(rule.name)} must be from {low} to {high}"


_KINDS: Final = {
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    str: "a string",
    list: "a list",
    dict: "an object",
}
_KINDS_WANTED: Final = {"integer": "an integer", "number": "a number", "boolean": "a boolean", "string": "a string"}
