"""The assumed form of a score response, compared with valid and deviating responses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream_scorer.core.desk.answer_contract import compare_answer, further_fields

GOOD: dict[str, Any] = {"contactId": "a", "score": 0.5, "confidenceInterval": {"lower": 0.4, "upper": 0.6}}


def broken(value: Any) -> dict[str, str]:
    """Return the violated assumptions with their findings."""
    return {one.text: one.found for one in compare_answer(value, "a") if one.holds is False}


def unknown(value: Any) -> int:
    return sum(one.holds is None for one in compare_answer(value, "a"))


def answer(**changes: Any) -> dict[str, Any]:
    return {"results": [{**GOOD, **changes}]}


@pytest.mark.parametrize(
    "value",
    [
        answer(),
        answer(score=1, confidenceInterval={"lower": 0, "upper": 1}),
        answer(score=0.4, confidenceInterval={"lower": 0.4, "upper": 0.4}),
    ],
)
def test_an_answer_of_the_assumed_form_holds(value: Any) -> None:
    assert [one.holds for one in compare_answer(value, "a")] == [True] * 9
    assert all(one.found == "" for one in compare_answer(value, "a"))


@pytest.mark.parametrize(
    ("value", "text", "found", "not_compared"),
    [
        ([], "the body is an object with a list 'results'", "a list", 8),
        (None, "the body is an object with a list 'results'", "null", 8),
        ({"result": []}, "the body is an object with a list 'results'", "no list 'results' in an object", 8),
        ({"results": {}}, "the body is an object with a list 'results'", "no list 'results' in an object", 8),
        ({"results": []}, "one contact has one result", "0 results", 7),
        ({"results": [GOOD, GOOD]}, "one contact has one result", "2 results", 7),
        ({"results": ["x"]}, "the result is an object", "a string", 6),
        (answer(contactId="b"), "'contactId' is the id that was sent", "another id", 0),
        (answer(contactId=7), "'contactId' is the id that was sent", "a number", 0),
        (answer(score="0.5"), "'score' is a number from 0 to 1", "a string", 1),
        (answer(score=True), "'score' is a number from 0 to 1", "a boolean", 1),
        (answer(score=None), "'score' is a number from 0 to 1", "null", 1),
        (answer(confidenceInterval=[0.4, 0.6]), "'confidenceInterval' is an object", "a list", 3),
        (
            answer(confidenceInterval={"lower": 0.4}),
            "'confidenceInterval.upper' is a number from 0 to 1",
            "nothing",
            1,
        ),
        (answer(score=0.7), "lower <= score <= upper", "another order", 0),
        (
            answer(confidenceInterval={"lower": float("nan"), "upper": 0.6}),
            "'confidenceInterval.lower' is a number from 0 to 1",
            "a number that is not finite",
            0,
        ),
        (
            answer(score=55, confidenceInterval={"lower": 0.4, "upper": 60}),
            "'score' is a number from 0 to 1",
            "a number outside 0 to 1",
            0,
        ),
    ],
)
def test_what_does_not_hold_is_named_without_values(value: Any, text: str, found: str, not_compared: int) -> None:
    assert broken(value)[text] == found
    assert unknown(value) == not_compared


def test_no_value_is_repeated() -> None:
    value = answer(contactId="secret-id", score="secret-score", confidenceInterval="secret")
    assert "secret" not in json.dumps([one._asdict() for one in compare_answer(value, "a")])


def test_fields_that_are_not_read_are_named() -> None:
    assert further_fields(answer()) == []
    assert further_fields([]) == []
    assert further_fields({"results": [{**GOOD, "rank": 1}], "entity\n": 2}) == ["'entity\\n'", "'results[].rank'"]
    assert further_fields(answer(confidenceInterval={"lower": 0, "upper": 1, "level": 0.95})) == [
        "'results[].confidenceInterval.level'"
    ]
    assert further_fields({f"f{number}": 1 for number in range(9)})[-1] == "more"
