from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_scorer.core.scoring.response_match import Verifier, match


def item(contact_id: Any, score: Any = 0.5, lower: Any = 0.3, upper: Any = 0.7) -> dict[str, Any]:
    return {"contactId": contact_id, "score": score, "confidenceInterval": {"lower": lower, "upper": upper}}


GOOD = (0.5, 0.3, 0.7)


class TestMatch:
    def test_by_id_whatever_the_order(self) -> None:
        matched = match(["a", "b", "c"], [item("c", 0.6), item("a"), item("b", 0.4)])
        assert matched.results == {"a": GOOD, "b": (0.4, 0.3, 0.7), "c": (0.6, 0.3, 0.7)}
        assert matched.unanswered == []
        assert matched.unknown == 0

    def test_unanswered_are_in_the_order_of_the_request(self) -> None:
        assert match(["d", "a", "c", "b"], [item("a")]).unanswered == ["d", "c", "b"]

    def test_an_empty_response(self) -> None:
        assert match(["a"], []) == ({}, ["a"], 0)

    def test_unknown_ids_are_counted_and_ignored(self) -> None:
        strangers = [item("x"), item("y"), item(7), item(None), {}, None, 3, "a", ["a"]]
        assert match(["a"], [*strangers, item("a")]) == ({"a": GOOD}, [], len(strangers))

    def test_equal_results_for_one_id_are_one(self) -> None:
        assert match(["a"], [item("a", 1, 0, 1), item("a", 1.0, 0.0, 1.0)]) == ({"a": (1.0, 0.0, 1.0)}, [], 0)

    @pytest.mark.parametrize("count", [2, 3])
    def test_different_results_for_one_id_are_none(self, count: int) -> None:
        results = [item("a", 0.4), item("a", 0.5), item("a", 0.5)][:count]
        assert match(["a"], results) == ({}, ["a"], 0)
        assert match(["a"], results[::-1]) == ({}, ["a"], 0)

    def test_a_usable_and_an_unusable_result_are_different(self) -> None:
        assert match(["a"], [item("a"), item("a", None)]).unanswered == ["a"]
        assert match(["a"], [item("a", None), item("a")]).unanswered == ["a"]

    def test_integers_are_numbers(self) -> None:
        [result] = match(["a"], [item("a", 1, 0, 1)]).results.values()
        assert [type(number) for number in result] == [float, float, float]

    @pytest.mark.parametrize(
        "broken",
        [
            item("a", None),
            item("a", "0.5"),
            item("a", True),
            item("a", 0.5, False),
            item("a", 0.5, 0.3, [0.7]),
            item("a", 10**400),
            {"contactId": "a", "score": 0.5},
            {"contactId": "a", "score": 0.5, "confidenceInterval": None},
            {"contactId": "a", "score": 0.5, "confidenceInterval": [0.3, 0.7]},
            {"contactId": "a", "score": 0.5, "confidenceInterval": {"lower": 0.3}},
            {"contactId": "a", "confidenceInterval": {"lower": 0.3, "upper": 0.7}},
        ],
    )
    def test_without_numeric_score_and_bounds_it_is_unanswered(self, broken: dict[str, Any]) -> None:
        assert match(["a"], [broken]) == ({}, ["a"], 0)

    def test_infinity_is_numeric_and_left_to_the_review(self) -> None:
        assert match(["a"], [item("a", math.inf)]).results == {"a": (math.inf, 0.3, 0.7)}

    JSON = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a", "b", "x"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["contactId", "score", "confidenceInterval", "lower", "upper"]), inner, max_size=5
            )
        ),
        max_leaves=12,
    )

    @settings(deadline=None)
    @given(st.lists(JSON, max_size=6))
    def test_any_json_is_survived_and_nothing_is_lost(self, items: list[Any]) -> None:
        matched = match(["a", "b"], items)
        assert sorted([*matched.results, *matched.unanswered]) == ["a", "b"]
        assert all(type(number) is float for result in matched.results.values() for number in result)


class TestReview:
    @pytest.mark.parametrize(
        ("numbers", "reasons"),
        [
            ((0.5, 0.3, 0.7), ()),
            ((0.0, 0.0, 0.2), ()),
            ((1.0, 0.8, 1.0), ()),
            ((0.3, 0.3, 0.7), ()),
            ((0.5, 0.45, 0.55), ("narrow_interval",)),
            ((0.5, 0.5, 0.5), ("narrow_interval",)),
            ((0.5, 0.1, 0.95), ("wide_interval",)),
            ((1.2, 1.0, 1.3), ("score_out_of_range",)),
            ((-0.1, -0.2, 0.2), ("score_out_of_range",)),
            ((1.2, 1.15, 1.25), ("narrow_interval", "score_out_of_range")),
            ((0.2, 0.3, 0.7), ("interval_inconsistent",)),
            ((0.8, 0.3, 0.7), ("interval_inconsistent",)),
            ((0.8, 0.5, 0.6), ("narrow_interval", "interval_inconsistent")),
            ((1.5, 0.3, 0.7), ("score_out_of_range", "interval_inconsistent")),
            ((0.5, 0.7, 0.3), ("interval_inconsistent",)),
            ((0.5, -math.inf, 0.7), ("interval_inconsistent",)),
            ((0.5, 0.3, math.inf), ("interval_inconsistent",)),
            ((0.5, math.nan, 0.7), ("interval_inconsistent",)),
            ((0.5, math.nan, math.nan), ("interval_inconsistent",)),
            ((math.nan, 0.3, 0.7), ("score_out_of_range", "interval_inconsistent")),
            ((math.inf, 0.3, math.inf), ("score_out_of_range", "interval_inconsistent")),
        ],
    )
    def test_reasons(self, numbers: tuple[float, float, float], reasons: tuple[str, ...]) -> None:
        assert Verifier(min_interval_width=0.15, max_interval_width=0.8).review_reasons(*numbers) == reasons

    def test_no_interval_is_too_wide_by_default(self) -> None:
        assert Verifier().review_reasons(0.5, 0.0, 1.0) == ()

    @pytest.mark.parametrize("hundredths", range(86))
    def test_an_interval_of_exactly_the_limit_is_neither_narrow_nor_wide(self, hundredths: int) -> None:
        """In doubles 0.35 - 0.2 is less than 0.15, and 0.3 - 0.15 is more than 0.15 elsewhere on the scale."""
        lower, upper = hundredths / 100, (hundredths + 15) / 100
        assert Verifier(0.15, 0.15).review_reasons(lower, lower, upper) == ()
        assert Verifier(0.15, 0.15).review_reasons(lower, lower, upper - 0.001) == ("narrow_interval",)
        assert Verifier(0.15, 0.15).review_reasons(lower, lower, upper + 0.001) == ("wide_interval",)

    def test_reasons_are_plain_strings(self) -> None:
        assert {type(reason) for reason in Verifier().review_reasons(2.0, 0.5, 0.6)} == {str}
