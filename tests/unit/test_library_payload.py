from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stream_scorer import ContactFeatureVector, ScoringPayload
from stream_scorer.errors import ContactError

EXPECTED = ["calls", "segment"]


def payload(*features: dict[str, Any], **more: Any) -> ScoringPayload:
    return ScoringPayload(contacts=[contact(f"c{n}", one) for n, one in enumerate(features)], **more)


def contact(contact_id: str, features: dict[str, Any]) -> ContactFeatureVector:
    return ContactFeatureVector(contactId=contact_id, features=features)


def test_absent_and_null_are_imputed_and_named() -> None:
    raw = {"calls": None}
    filled = payload(raw, {"calls": 1, "segment": "a"})
    assert filled.impute_missing_values({"calls": 0, "segment": "default"}) is filled
    assert [one.features for one in filled.contacts] == [
        {"calls": 0, "segment": "default"},
        {"calls": 1, "segment": "a"},
    ]
    assert [one.imputed_features for one in filled.contacts] == [("calls", "segment"), ()]
    assert raw == {"calls": None}  # the caller's dict is not modified
    assert filled.validate_dimensions(EXPECTED) is filled


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"calls": 1}, "nothing to impute: 'segment'"),
        ({"calls": 1, "segment": "a", "extra": 1}, "no feature 'extra'"),
        ({"calls": [1], "segment": "a"}, "'calls' must be a number, a string or a boolean, not list"),
        ({"calls": float("inf"), "segment": "a"}, "'calls' is not a finite number"),
        ({"calls": 2**60, "segment": "a"}, "'calls' is an integer beyond"),
        ({"calls": 1, "segment": "\ud800"}, "'segment' is not valid Unicode"),
        ({"calls": 1, "segment": "a", **{f"f{n}": 1 for n in range(49)}}, "51 features"),
    ],
)
def test_an_invalid_value_is_named_with_the_contact(features: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match="contact 'c1'") as caught:
        payload({"calls": 1, "segment": "a"}, features).validate_dimensions(EXPECTED)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ContactError)


def test_the_order_of_the_tutorial() -> None:
    first = payload({"calls": None, "segment": float("nan")})
    assert first.validate_dimensions(EXPECTED) is first  # null is a value to impute, no missing dimension
    [chunk] = first.impute_missing_values({"calls": 0, "segment": "a"}).chunk()
    assert json.loads(chunk.body())["contacts"][0]["features"] == {"calls": 0, "segment": "a"}


def test_null_without_imputation_is_never_sent() -> None:
    left = payload({"calls": 1, "segment": "a"}, {"calls": 1, "segment": None}).validate_dimensions(EXPECTED)
    for send in (left.chunk, left.body):
        with pytest.raises(ContactError, match="contact 'c1': null, and nothing imputed: 'segment'"):
            send()


@pytest.mark.parametrize("contact_id", ["", "x" * 257, "é" * 129, "\ud800", 5, None])
def test_invalid_ids(contact_id: Any) -> None:
    with pytest.raises(ValidationError):
        contact(contact_id, {})


def test_body_and_dumps_hold_nothing_but_contacts_and_version() -> None:
    one = payload({"calls": 1, "segment": "a"}, model_version="v9", max_features=10, batch_limit=5)
    expected = {"contacts": [{"contactId": "c0", "features": {"calls": 1, "segment": "a"}}], "modelVersion": "v9"}
    assert json.loads(one.body()) == expected
    assert one.model_dump(by_alias=True) == expected
    assert set(json.loads(payload({"calls": 1}).body())) == {"contacts"}


def test_chunk_keeps_every_setting() -> None:
    whole = payload(*({"calls": n} for n in range(7)), model_version="v2", max_features=3, batch_limit=3)
    chunks = whole.chunk()
    assert [len(one.contacts) for one in chunks] == [3, 3, 1]
    assert all((one.model_version, one.max_features, one.batch_limit) == ("v2", 3, 3) for one in chunks)
    assert [one.contact_id for part in chunks for one in part.contacts] == [f"c{n}" for n in range(7)]


def test_2500_contacts_are_three_requests() -> None:
    assert [len(one.contacts) for one in payload(*[{"calls": 1}] * 2500).chunk()] == [1000, 1000, 500]


def test_a_small_input_is_one_chunk_and_an_empty_one_none() -> None:
    small = payload({"calls": 1})
    assert small.chunk() == [small]
    assert payload().chunk() == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 300_000)), max_size=12))
def test_every_chunk_can_be_sent(contacts: list[tuple[str, int]]) -> None:
    whole = ScoringPayload(contacts=[contact(one, {"text": "x" * size}) for one, size in contacts], batch_limit=5)
    chunks = whole.chunk()
    for chunk in chunks:
        ids = [one.contact_id for one in chunk.contacts]
        assert len(ids) == len(set(ids)) <= 5
        assert len(chunk.body()) <= 512_000
    sent = [(one.contact_id, len(one.features["text"])) for chunk in chunks for one in chunk.contacts]
    assert sorted(sent) == sorted(contacts)


def test_a_contact_over_the_limit_is_a_chunk_of_its_own() -> None:
    huge = payload({"calls": 1}, {"text": "x" * 600_000}, {"calls": 2})
    assert [[one.contact_id for one in chunk.contacts] for chunk in huge.chunk()] == [["c0", "c2"], ["c1"]]
