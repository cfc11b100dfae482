"""Values of numpy and pandas: replacements with their interface, and the libraries themselves if installed."""

from __future__ import annotations

import json
from decimal import Decimal
from importlib import import_module
from types import MappingProxyType
from typing import Any

import pytest

from stream_scorer import ContactFeatureVector, PredictiveScoreCalculator, ScoringPayload
from stream_scorer.core.scoring.types import Reason
from stream_scorer.errors import SettingsError
from stream_scorer.library.plain_values import plain
from stream_scorer.library.validation import value_problem


class Dtype:
    def __init__(self, kind: str) -> None:
        self.kind = kind


class Scalar:
    """Like a numpy scalar or an array without dimensions: no subclass of Python's numbers."""

    ndim = 0

    def __init__(self, value: Any, kind: str) -> None:
        self.value = value
        self.dtype = Dtype(kind)

    def __int__(self) -> int:
        return int(self.value)

    __index__ = __int__

    def __float__(self) -> float:
        return float(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __str__(self) -> str:
        return str(self.value)

    def __ne__(self, other: object) -> bool:
        return bool(self.value != getattr(other, "value", other))

    __hash__ = None  # type: ignore[assignment]


class Float64(float):
    """Like `numpy.float64`, which is a subclass of float."""


class NAType:
    """Like `pandas.NA`, which refuses to be compared."""

    __module__ = "pandas.api.typing"

    def __ne__(self, _: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class NaTType:
    __module__ = "pandas.api.typing"


NAN = float("nan")
MISSING = [None, NAN, Float64(NAN), Scalar(NAN, "f"), Scalar(NAN, "M"), NAType(), NaTType(), Decimal("nan")]
VALUES = [
    (Scalar(7, "i"), 7),
    (Scalar(7, "u"), 7),
    (Scalar(0.5, "f"), 0.5),
    (Float64(0.5), 0.5),
    (Scalar(1, "b"), True),
    (Scalar("a", "U"), "a"),
    (True, True),
    (7, 7),
    ("a", "a"),
    (float("inf"), float("inf")),
]


@pytest.mark.parametrize("value", MISSING, ids=lambda value: type(value).__name__)
def test_what_is_missing(value: Any) -> None:
    assert plain(value) is None


@pytest.mark.parametrize(("value", "expected"), VALUES)
def test_scalars_are_unwrapped(value: Any, expected: Any) -> None:
    got = plain(value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize("value", [[1], {"a": 1}, Decimal("1.5"), Scalar(1, "M"), Scalar(1, "m"), object()])
def test_what_is_no_value_is_left_to_the_checks(value: Any) -> None:
    assert plain(value) is value  # a numpy time would become a number of nanoseconds


@pytest.mark.parametrize("name", ["NAType", "NaTType"])
def test_classes_of_that_name_elsewhere_are_not_missing(name: str) -> None:
    value = type(name, (), {"__module__": "elsewhere"})()
    assert plain(value) is value


class Series:
    """Like a pandas Series of one row: no Mapping."""

    ndim = 1

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        return dict(self.values)


@pytest.mark.parametrize("shape", [dict, MappingProxyType, Series])
def test_features_of_a_contact(shape: Any) -> None:
    given = shape({"calls": Scalar(3, "i"), "segment": Float64(NAN)})
    payload = ScoringPayload(contacts=[ContactFeatureVector(contactId="c", features=given)])
    payload.validate_dimensions(["calls", "segment"]).impute_missing_values({"segment": "a"})
    assert payload.contacts[0].imputed_features == ("segment",)
    assert json.loads(payload.body())["contacts"] == [{"contactId": "c", "features": {"calls": 3, "segment": "a"}}]


def test_scalars_are_imputed_as_plain_values() -> None:
    payload = ScoringPayload(contacts=[ContactFeatureVector(contactId="c", features={"calls": NAN})])
    assert json.loads(payload.impute_missing_values({"calls": Scalar(3, "i")}).body())["contacts"][0]["features"] == {
        "calls": 3
    }


def calculator(expected: Any, imputed: Any) -> PredictiveScoreCalculator:
    return PredictiveScoreCalculator("m", "id", "secret", expected, imputed, base_url="http://127.0.0.1:9")


def test_names_and_defaults_of_a_calculator() -> None:
    made = calculator((Scalar("calls", "U"), "segment"), {"calls": Scalar(3, "i")})
    assert (made.expected_features, made.imputation_map) == (["calls", "segment"], {"calls": 3})
    assert [type(one) for one in (*made.expected_features, *made.imputation_map.values())] == [str, str, int]


@pytest.mark.parametrize(
    ("expected", "imputed", "words"),
    [
        (["calls"], {"calls": NAN}, "'calls' has no value to put in"),
        (["calls"], {"calls": NAType()}, "'calls' has no value to put in"),
        (["calls"], {"calls": Scalar(0, "M")}, "'calls' must be a number"),
        ("calls", {}, "pass a list of names"),
        (None, {}, "expected_features must be a list of names"),
        (["calls", 5], {}, "expected_features: 5 must be text"),
        (["calls", "\ud800"], {}, r"expected_features: '\\ud800' must be text"),
        (["calls"], None, r"imputation_map must be a dict: pass \{\}"),
        (["calls"], ["calls"], "imputation_map must be a dict"),
    ],
)
def test_defaults_that_are_none(expected: Any, imputed: Any, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        calculator(expected, imputed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("model_id", one) for one in (5, "", "\ud800")),
        *(("model_version", one) for one in (5, "", "\ud800")),
        *((name, one) for name in ("client_id", "client_secret") for one in (5, "", b"secret")),
        *(("base_url", one) for one in ("http://host\n", "http://host /", "http://ho\tst")),
        ("max_features", "50"),
    ],
)
def test_arguments_that_are_none_are_named_before_any_request(name: str, value: Any) -> None:
    given = {"model_id": "m", "client_id": "id", "client_secret": "secret", "base_url": "http://127.0.0.1:9"}
    with pytest.raises(SettingsError, match=f"^{name} must ") as caught:
        PredictiveScoreCalculator(expected_features=["a"], imputation_map={}, **{**given, name: value})
    assert str(caught.value).isprintable()


def test_text_that_is_no_unicode_is_named_as_such() -> None:
    assert value_problem("\ud800") == (Reason.WRONG_TYPE, "is not valid Unicode")


# --- the libraries themselves


def test_scalars_of_numpy() -> None:
    numpy = import_module("numpy")
    for value, expected in (
        (numpy.int8(3), 3),
        (numpy.uint64(2**63), 2**63),
        (numpy.float32(0.5), 0.5),
        (numpy.float64(0.5), 0.5),
        (numpy.longdouble("0.5"), 0.5),
        (numpy.bool_(True), True),
        (numpy.str_("a"), "a"),
        (numpy.array(7), 7),
    ):
        assert plain(value) == expected
        assert type(plain(value)) is type(expected)
    for missing in (numpy.nan, numpy.float16("nan"), numpy.datetime64("NaT", "s"), numpy.timedelta64("NaT", "s")):
        assert plain(missing) is None
    for value in (numpy.datetime64("2027-01-01"), numpy.array([1]), numpy.complex64(1)):
        assert plain(value) is value


def test_missing_values_of_pandas() -> None:
    pandas = import_module("pandas")
    frame = pandas.DataFrame(
        {
            "number": [1.5, None],
            "integer": pandas.array([1, None], dtype="Int64"),
            "boolean": pandas.array([True, None], dtype="boolean"),
            "text": ["a", None],
            "category": pandas.Categorical(["a", None]),
            "object": pandas.Series(["a", pandas.NaT], dtype=object),
        }
    )
    rows = [ContactFeatureVector(contactId="c", features=row).features for _, row in frame.iterrows()]
    assert rows[0] == {"number": 1.5, "integer": 1, "boolean": True, "text": "a", "category": "a", "object": "a"}
    assert [type(value) for value in rows[0].values()] == [float, int, bool, str, str, str]
    assert rows[1] == dict.fromkeys(rows[0])
    assert [plain(value) for row in frame.to_dict("records")[1:] for value in row.values()] == [None] * 6
    assert calculator(["number"], frame[["number"]].median()).imputation_map == {"number": 1.5}
