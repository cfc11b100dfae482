from __future__ import annotations

import io
import math
from datetime import datetime
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_scorer.core.scoring.event_time import FIRST_MS, LAST_MS
from stream_scorer.core.scoring.feature_types import MAX_INTEGER, Feature
from stream_scorer.core.scoring.features import Complete, ContactChecker, Failures, FeatureList
from stream_scorer.core.scoring.types import ContactEvent, Reason
from stream_scorer.errors import SettingsError

TUTORIAL = FeatureList(
    [
        Feature("previous_calls", "integer", impute=0),
        Feature("avg_handle_time", "number", impute=180.0),
        Feature("last_contact_days", "integer", impute=30),
        Feature("segment_id", "string", impute="default"),
    ]
)
EVERY_TYPE = FeatureList(
    [
        Feature("age", "integer", minimum=18, maximum=120),
        Feature("balance", "number", minimum=-1000.0),
        Feature("known", "boolean"),
        Feature("job", "string", choices=("clerk", "farmer")),
    ]
)
GOOD: dict[str, Any] = {"age": 40, "balance": 1.5, "known": False, "job": "clerk"}


def python_time(at_ms: int) -> datetime:
    """Return the time as read by deserializers in Python, Confluent's included: all of them use fastavro."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema("long"), at_ms)
    body.seek(0)
    read: Any = fastavro.schemaless_reader(
        body, fastavro.parse_schema({"type": "long", "logicalType": "timestamp-millis"}), None
    )
    assert isinstance(read, datetime)
    return read


def complete(result: Complete | Failures) -> Complete:
    assert isinstance(result, tuple), result
    return result


def failures(result: Complete | Failures) -> Failures:
    assert isinstance(result, list), result
    return result


def reasons(result: Complete | Failures) -> list[Reason]:
    return [reason for reason, _ in failures(result)]


class TestImputing:
    def test_absent_and_null_features_are_imputed_in_model_order(self) -> None:
        features, imputed = complete(TUTORIAL.check({"segment_id": "x", "last_contact_days": None}))
        assert list(features.items()) == [
            ("previous_calls", 0),
            ("avg_handle_time", 180.0),
            ("last_contact_days", 30),
            ("segment_id", "x"),
        ]
        assert imputed == ("previous_calls", "avg_handle_time", "last_contact_days")

    def test_zero_false_and_empty_are_values(self) -> None:
        model = FeatureList([Feature("n", "number", 5), Feature("b", "boolean", True), Feature("s", "string", "x")])
        assert complete(model.check({"n": 0.0, "b": False, "s": ""})) == ({"n": 0.0, "b": False, "s": ""}, ())

    def test_the_event_is_not_modified(self) -> None:
        given_features: dict[str, Any] = {"segment_id": None}
        complete(TUTORIAL.check(given_features))
        assert given_features == {"segment_id": None}

    def test_nothing_to_impute(self) -> None:
        [(reason, detail)] = failures(EVERY_TYPE.check({"age": 40, "balance": None, "job": "clerk"}))
        assert reason is Reason.MISSING_FEATURE
        assert "'balance'" in detail
        assert "'known'" in detail


class TestTypes:
    @pytest.mark.parametrize(
        ("name", "value", "taken"),
        [
            ("age", 18, 18),
            ("age", 120.0, 120),
            ("balance", 7, 7),
            ("balance", -1000.0, -1000.0),
            ("balance", 2**62, float(2**62)),
            ("balance", 1.7e308, 1.7e308),
            ("known", True, True),
            ("job", "farmer", "farmer"),
        ],
    )
    def test_taken(self, name: str, value: Any, taken: Any) -> None:
        features, imputed = complete(EVERY_TYPE.check({**GOOD, name: value}))
        assert features[name] == taken
        assert type(features[name]) is type(taken)
        assert imputed == ()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("age", 40.5),
            ("age", True),
            ("age", "40"),
            ("balance", False),
            ("balance", "1.5"),
            ("known", 1),
            ("known", 0.0),
            ("known", "true"),
            ("job", 7),
            ("job", "\ud800"),
            ("job", ["clerk"]),
            ("age", {}),
        ],
    )
    def test_wrong_type(self, name: str, value: Any) -> None:
        [(reason, detail)] = failures(EVERY_TYPE.check({**GOOD, name: value}))
        assert reason is Reason.WRONG_TYPE
        assert detail.startswith(f"'{name}' is not valid Unicode" if value == "\ud800" else f"'{name}' must be a")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("age", 17),
            ("age", 121.0),
            ("age", 1e300),
            ("age", math.nan),
            ("age", math.inf),
            ("balance", -1000.5),
            ("balance", math.nan),
            ("balance", math.inf),
            ("balance", -math.inf),
            ("job", "pilot"),
            ("job", ""),
        ],
    )
    def test_out_of_range(self, name: str, value: Any) -> None:
        [(reason, detail)] = failures(EVERY_TYPE.check({**GOOD, name: value}))
        assert reason is Reason.OUT_OF_RANGE
        assert detail.startswith(f"'{name}' ")

    def test_integers_that_json_does_not_carry_are_out_of_range(self) -> None:
        model = FeatureList([Feature("n", "integer")])
        assert complete(model.check({"n": MAX_INTEGER})) == ({"n": MAX_INTEGER}, ())
        assert reasons(model.check({"n": MAX_INTEGER + 1})) == [Reason.OUT_OF_RANGE]
        assert reasons(model.check({"n": -(2**63)})) == [Reason.OUT_OF_RANGE]
        assert reasons(FeatureList([Feature("n", "number")]).check({"n": 10**400})) == [Reason.OUT_OF_RANGE]


class TestSeveralFailures:
    def test_all_failures_are_named_once_in_the_order_of_the_contract(self) -> None:
        model = FeatureList(
            [Feature(name, "integer", minimum=0) for name in ("a", "b", "c", "d", "e", "f")], max_features=6
        )
        result = model.check({"a": -1, "b": "x", "c": -5, "d": "y", "e": None, "zz": 1, "yy": None})
        assert reasons(result) == [
            Reason.TOO_MANY_FEATURES,
            Reason.UNSUPPORTED_FEATURE,
            Reason.MISSING_FEATURE,
            Reason.WRONG_TYPE,
            Reason.OUT_OF_RANGE,
        ]
        details = dict(failures(result))
        assert details[Reason.TOO_MANY_FEATURES] == "7 features, and model.max_features is 6"
        assert details[Reason.UNSUPPORTED_FEATURE] == "the model has no feature 'zz'; 'yy'"
        assert details[Reason.MISSING_FEATURE] == "absent or null, and nothing to impute: 'e'; 'f'"
        assert (
            details[Reason.WRONG_TYPE] == "'b' must be an integer, not a string; 'd' must be an integer, not a string"
        )

    def test_an_unsupported_feature_is_reported_even_if_null(self) -> None:
        assert reasons(TUTORIAL.check({"other": None})) == [Reason.UNSUPPORTED_FEATURE]

    def test_details_are_one_bounded_line_without_values(self) -> None:
        hostile: dict[str, Any] = {f"evil\r\nname{index}" + "x" * 500: index for index in range(200)}
        result = TUTORIAL.check({**hostile, "segment_id": 4111111111111111, "previous_calls": "secret"})
        for _, detail in failures(result):
            assert "\n" not in detail
            assert "\r" not in detail
            assert len(detail) < 1000
            assert "4111" not in detail
            assert "secret" not in detail
        assert "and 195 more" in dict(failures(result))[Reason.UNSUPPORTED_FEATURE]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-5, 130),
    st.floats(),
    st.sampled_from([40.0, 0.0, "clerk", "farmer"]),
    st.text("aé\ud800", max_size=3),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*GOOD, "other"]), SCALARS))
def test_the_fast_and_the_slow_path_agree(features: dict[str, Any]) -> None:
    result = EVERY_TYPE.check({**GOOD, **features})
    assert bool(EVERY_TYPE._failures({**GOOD, **features})) == isinstance(result, list)


class TestModel:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"name": ""}, "needs a name"),
            ({"type": "int"}, "model.features.x.type is 'int': use integer, number, boolean or string"),
            ({"impute": "0"}, "model.features.x.impute: '0' is not of type integer"),
            ({"impute": True}, "impute"),
            ({"impute": 0.5}, "impute"),
            ({"impute": 10**400}, "impute"),
            ({"impute": 5, "minimum": 6}, "impute: 5"),
            ({"impute": 5, "choices": (1, 2)}, "impute: 5"),
            ({"minimum": 2, "maximum": 1}, "minimum 2 is greater than maximum 1"),
            ({"minimum": math.nan}, "minimum: nan is not a finite number"),
            ({"maximum": True}, "maximum: True is not a finite number"),
            ({"type": "string", "minimum": 1}, "only an integer or a number"),
            ({"choices": ()}, "choices is empty"),
            ({"choices": ("a",)}, "choices: 'a'"),
            ({"choices": (1, 9), "maximum": 5}, "choices: 9"),
        ],
    )
    def test_contradictions_name_the_setting(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError) as caught:
            Feature(**{"name": "x", "type": "integer", **arguments})
        assert message in str(caught.value)

    def test_an_integer_may_be_imputed_as_a_double_without_fraction(self) -> None:
        features, _ = complete(FeatureList([Feature("n", "integer", impute=30.0)]).check({}))
        assert repr(features) == "{'n': 30}"

    def test_names_are_unique_and_fit(self) -> None:
        with pytest.raises(SettingsError, match="two features have one name"):
            FeatureList([Feature("x", "integer"), Feature("x", "string")])
        with pytest.raises(SettingsError, match="max_features is 1"):
            FeatureList([Feature("x", "integer"), Feature("y", "string")], max_features=1)

    def test_names_are_in_model_order(self) -> None:
        assert EVERY_TYPE.names == ("age", "balance", "known", "job")


EVENT = ContactEvent("e-1", "c-1", {}, 1_000_000, None, None)


class TestContact:
    def test_good(self) -> None:
        features, imputed = complete(ContactChecker(TUTORIAL).check(EVENT, 10**15))
        assert len(features) == len(imputed) == 4

    @pytest.mark.parametrize("good", ["x", "x" * 256, "é" * 128, "\U0001f600" * 64])
    def test_ids_of_1_to_256_bytes(self, good: str) -> None:
        checker = ContactChecker(TUTORIAL)
        complete(checker.check(EVENT._replace(contact_id=good)))
        complete(checker.check(EVENT._replace(event_id=good)))

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            ("", "is empty"),
            ("x" * 257, "has 257 bytes, more than the 256 allowed"),
            ("é" * 129, "has 258 bytes"),
            ("\ud800", "is not valid Unicode"),
        ],
    )
    @pytest.mark.parametrize("field", ["contact_id", "event_id"])
    def test_other_ids(self, field: str, bad: str, problem: str) -> None:
        event = EVENT._replace(event_id=bad) if field == "event_id" else EVENT._replace(contact_id=bad)
        [(reason, detail)] = failures(ContactChecker(TUTORIAL).check(event))
        assert reason is Reason.INVALID_CONTACT
        assert detail.startswith(f"{field} {problem}")

    @pytest.mark.parametrize("at_ms", [FIRST_MS, -1, 0, 631_151_999, 4_133_980_800, 1_796_000_000_000, LAST_MS])
    def test_times_readable_by_every_consumer(self, at_ms: int) -> None:
        complete(ContactChecker(TUTORIAL).check(EVENT._replace(occurred_at_ms=at_ms)))
        assert python_time(at_ms).year in range(1, 10_000)

    @pytest.mark.parametrize(
        ("at_ms", "problem"),
        [
            (FIRST_MS - 1, "is outside the years 1 to 9999"),
            (LAST_MS + 1, "is outside the years 1 to 9999"),
            (-(2**63), "is outside the years 1 to 9999"),
            # Found here: times in another unit.
            (1_796_000_000, "is in seconds, and milliseconds since 1970 are expected"),
            (1_796_000_000_000_000, "is in microseconds, and milliseconds"),
            (1_796_000_000_000_000_000, "is in nanoseconds, and milliseconds"),
        ],
    )
    def test_a_time_out_of_range_or_in_another_unit(self, at_ms: int, problem: str) -> None:
        event = EVENT._replace(occurred_at_ms=at_ms)
        [(reason, detail)] = failures(ContactChecker(TUTORIAL).check(event))
        assert reason is Reason.INVALID_CONTACT
        assert detail.startswith(f"occurred_at {problem}")

    @settings(max_examples=200, deadline=None)
    @given(st.integers(-(2**63), 2**63 - 1) | st.integers(FIRST_MS - 10, FIRST_MS + 10) | st.integers(0, 2**50))
    def test_accepted_times_are_readable_by_deserializers(self, at_ms: int) -> None:
        if isinstance(ContactChecker(TUTORIAL).check(EVENT._replace(occurred_at_ms=at_ms)), tuple):
            assert python_time(at_ms)

    def test_attributes_within_their_limits(self) -> None:
        for good in ({str(number): "x" for number in range(64)}, {"é": "x" * 16_382}):
            complete(ContactChecker(TUTORIAL).check(EVENT._replace(attributes=good)))

    @pytest.mark.parametrize(
        ("attributes", "problem"),
        [
            ({str(number): "" for number in range(65)}, "attributes are 65, more than the 64 allowed"),
            ({"é": "x" * 16_383}, "attributes have 16385 bytes, more than the 16384 allowed"),
            ({"secret": "\ud800"}, "attributes are not valid Unicode"),
        ],
    )
    def test_attributes_over_their_limits(self, attributes: dict[str, str], problem: str) -> None:
        checked = ContactChecker(TUTORIAL).check(EVENT._replace(attributes=attributes))
        assert checked == [(Reason.INVALID_CONTACT, problem)]

    def test_expired_is_older_than_the_limit(self) -> None:
        checker = ContactChecker(TUTORIAL, max_event_age_s=1.5)
        for age in (1_500, 0, -10_000, None):
            complete(checker.check(EVENT, age))
        assert failures(checker.check(EVENT, 1_501)) == [
            (
                Reason.EXPIRED,
                "the event was 1 s old when it was written to the topic, and scoring.max_event_age_s is 1.5",
            )
        ]

    def test_all_failures_in_the_order_of_the_contract(self) -> None:
        event = EVENT._replace(contact_id="", event_id="", features={"other": 1, "segment_id": 5})
        result = ContactChecker(TUTORIAL, max_event_age_s=1).check(event, 10**12)
        assert reasons(result) == [
            Reason.INVALID_CONTACT,
            Reason.EXPIRED,
            Reason.UNSUPPORTED_FEATURE,
            Reason.WRONG_TYPE,
        ]
        assert failures(result)[0][1] == "contact_id is empty; event_id is empty"
