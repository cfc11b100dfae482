from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.local.simulator.config import SimulatorConfig
from stream_scorer.local.simulator.scoring import Model
from stream_scorer.local.simulator.validation import BadRequest, UnknownVersion

BANK = Path(__file__).parents[3] / "shared" / "data" / "bank-marketing-contacts.csv"
FEATURES = {"previous_calls": 2, "avg_handle_time": 240.5, "last_contact_days": 7, "segment_id": "retired"}


def contact(contact_id: str = "C-1", **changes: Any) -> dict[str, Any]:
    return {"contactId": contact_id, "features": FEATURES | changes}


def result(request_contact: dict[str, Any], **config: Any) -> dict[str, Any]:
    _, (only,) = Model(SimulatorConfig(**config)).score({"contacts": [request_contact]})
    return only


def bounds(item: dict[str, Any]) -> tuple[float, float]:
    return item["confidenceInterval"]["lower"], item["confidenceInterval"]["upper"]


def complaint(request: Any, **config: Any) -> tuple[str, str | None]:
    with pytest.raises(BadRequest) as refusal:
        Model(SimulatorConfig(**config)).score(request)
    return refusal.value.complaints[0].field, refusal.value.complaints[0].entity_id


def test_a_contact_has_the_same_score_in_every_process() -> None:
    # Constants, since computed values would hide a dependence on PYTHONHASHSEED.
    assert result(contact()) == {
        "contactId": "C-1",
        "score": 0.936978,
        "confidenceInterval": {"lower": 0.727785, "upper": 1.0},
    }


def test_ids_and_results_stand_in_the_order_of_the_request() -> None:
    ids, results = Model(SimulatorConfig()).score({"contacts": [contact("b"), contact("a"), contact("c")]})
    assert ids == ["b", "a", "c"] == [item["contactId"] for item in results]


@pytest.mark.parametrize(
    "change",
    [{"previous_calls": 5}, {"avg_handle_time": 30.0}, {"last_contact_days": 90}, {"segment_id": "student"}],
)
def test_every_feature_moves_the_score(change: dict[str, Any]) -> None:
    assert result(contact(**change))["score"] != result(contact())["score"]


def test_the_model_version_moves_the_score() -> None:
    model = Model(SimulatorConfig())
    scores = {
        model.score({"contacts": [contact()], **version})[1][0]["score"]
        for version in ({}, {"modelVersion": "v1"}, {"modelVersion": "v2"})
    }
    assert len(scores) == 3


def test_real_contacts_get_a_plausible_spread_of_scores() -> None:
    if not BANK.exists():
        pytest.skip("the real contacts (../shared/data) are not on this machine")
    with BANK.open(encoding="utf-8") as file:
        contacts = [
            contact(
                row["contact_id"],
                previous_calls=int(row["previous_calls"]),
                avg_handle_time=float(row["avg_handle_time"]),
                last_contact_days=int(row["last_contact_days"] or 30),
                segment_id=row["segment_id"] or "default",
            )
            for row in csv.DictReader(file)
        ]
    _, results = Model(SimulatorConfig(max_contacts=len(contacts))).score({"contacts": contacts})
    high = sum(item["score"] >= 0.75 for item in results) / len(results)
    assert 0.10 <= high <= 0.25
    assert min(item["score"] for item in results) < 0.2


def test_intervals_are_narrow_or_inconsistent_as_often_as_configured() -> None:
    contacts = [contact(f"contact-{number:06}") for number in range(20_000)]
    _, results = Model(SimulatorConfig(max_contacts=len(contacts))).score({"contacts": contacts})
    inconsistent = sum(not bounds(item)[0] <= item["score"] <= bounds(item)[1] for item in results)
    narrow = sum(0 <= bounds(item)[1] - bounds(item)[0] < 0.15 for item in results)
    assert 0.003 < inconsistent / len(results) < 0.007
    assert 0.025 < narrow / len(results) < 0.035


def test_inconsistent_intervals_are_swapped_or_beside_the_score() -> None:
    contacts = [contact(f"c{number}", avg_handle_time=number * 10.0) for number in range(500)]
    _, results = Model(SimulatorConfig(inconsistent_share=1)).score({"contacts": contacts})
    swapped = [item for item in results if bounds(item)[0] > bounds(item)[1]]
    outside = [item for item in results if bounds(item)[0] <= bounds(item)[1]]
    assert swapped
    assert outside
    assert not any(bounds(item)[0] <= item["score"] <= bounds(item)[1] for item in outside)
    assert all(0 <= bound <= 1 for item in results for bound in bounds(item))


@given(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_any_values_give_a_score_within_its_bounds(calls: int, time: float, segment: str) -> None:
    item = result(
        contact(previous_calls=calls, avg_handle_time=time, segment_id=segment), inconsistent_share=0, narrow_share=0
    )
    lower, upper = bounds(item)
    assert 0 <= lower <= item["score"] <= upper <= 1
    assert 0.15 < upper - lower <= 0.41


@pytest.mark.parametrize(
    ("request_body", "field"),
    [
        ([], ""),
        ({}, "contacts"),
        ({"contacts": []}, "contacts"),
        ({"contacts": {}}, "contacts"),
        ({"contacts": [contact(str(number)) for number in range(1001)]}, "contacts"),
        ({"contacts": [contact()], "max_features": 50}, "max_features"),
        ({"contacts": [contact()], "modelVersion": None}, "modelVersion"),
        ({"contacts": [contact()], "modelVersion": ""}, "modelVersion"),
        ({"contacts": [contact()], "modelVersion": 1}, "modelVersion"),
        ({"contacts": ["C-1"]}, "contacts"),
        ({"contacts": [None]}, "contacts"),
        ({"contacts": [{"features": FEATURES}]}, "contactId"),
        ({"contacts": [{"contactId": "", "features": FEATURES}]}, "contactId"),
        ({"contacts": [{"contactId": 7, "features": FEATURES}]}, "contactId"),
        ({"contacts": [{"contactId": None, "features": FEATURES}]}, "contactId"),
    ],
)
def test_a_malformed_request_is_refused_and_names_the_place(request_body: Any, field: str) -> None:
    assert complaint(request_body) == (field, None)


@pytest.mark.parametrize(
    ("malformed", "field"),
    [
        ({"contactId": "C-1"}, "features"),
        ({"contactId": "C-1", "features": None}, "features"),
        ({"contactId": "C-1", "features": [1]}, "features"),
        (contact() | {"campaignId": "x"}, "features"),
        ({"contactId": "C-1", "features": {}}, "features.avg_handle_time"),
        (contact(age=3), "features.age"),
        (contact(previous_calls=None), "features.previous_calls"),
        (contact(previous_calls=True), "features.previous_calls"),
        (contact(previous_calls="2"), "features.previous_calls"),
        (contact(previous_calls=2.5), "features.previous_calls"),
        (contact(avg_handle_time="240"), "features.avg_handle_time"),
        (contact(avg_handle_time=False), "features.avg_handle_time"),
        (contact(segment_id=3), "features.segment_id"),
        (contact(segment_id=["a"]), "features.segment_id"),
    ],
)
def test_a_malformed_contact_is_refused_wherever_it_stands(malformed: dict[str, Any], field: str) -> None:
    # The good contact comes first: its cached shape must not make the other one valid.
    request = {"contacts": [contact("good"), malformed]}
    assert complaint(request) == (field, "C-1")
    assert complaint(request, names_invalid_contacts=False) == (field, None)


def test_3_0_is_an_integer_and_3_5_is_not() -> None:
    model = Model(SimulatorConfig())
    assert (
        model.score({"contacts": [contact(previous_calls=3.0)]})[1]
        == model.score({"contacts": [contact(previous_calls=3)]})[1]
    )
    with pytest.raises(BadRequest):
        model.score({"contacts": [contact(previous_calls=3.5)]})


def test_an_id_may_occur_once_in_a_request() -> None:
    assert complaint({"contacts": [contact("a"), contact("b"), contact("a")]}) == ("contacts", "a")


def test_contacts_are_refused_by_prefix_and_named_only_by_the_naming_one() -> None:
    unnamed = {"contacts": [contact("a"), contact("REFUSE-1")]}
    assert complaint(unnamed) == ("contacts", None)
    assert complaint({"contacts": [contact("bad-1")]}, refuse_prefix="bad-") == ("contacts", None)
    assert len(Model(SimulatorConfig(refuse_prefix="", refuse_named_prefix="")).score(unnamed)[0]) == 2
    with pytest.raises(BadRequest) as refusal:
        Model(SimulatorConfig()).score(
            {"contacts": [contact(name) for name in ("REFUSE-NAMED-1", "REFUSE-1", "a", "REFUSE-NAMED-2")]}
        )
    assert [item.entity_id for item in refusal.value.complaints] == ["REFUSE-NAMED-1", "REFUSE-NAMED-2"]


def test_an_unknown_version_is_distinguished_from_a_bad_request() -> None:
    request = {"contacts": [contact()], "modelVersion": "v9"}
    with pytest.raises(UnknownVersion, match="v9"):
        Model(SimulatorConfig()).score(request)
    assert Model(SimulatorConfig(known_versions=None)).score(request)[0] == ["C-1"]
    assert Model(SimulatorConfig(known_versions=("v9",))).score(request)[0] == ["C-1"]


def test_any_features_pass_where_the_model_has_no_list_but_nulls_do_not() -> None:
    free = {"contactId": "C-1", "features": {"a": 1, "b": 2.5, "c": True, "d": "x"}}
    assert 0 <= result(free, features=None)["score"] <= 1
    assert result({"contactId": "C-1", "features": {}}, features=None)["contactId"] == "C-1"
    for wrong in (None, [1], {"x": 1}):
        request = {"contacts": [free | {"contactId": "first"}, {"contactId": "C-1", "features": {"a": wrong}}]}
        assert complaint(request, features=None) == ("features.a", "C-1")
    many = {"contactId": "C-1", "features": {f"f{number}": 1 for number in range(201)}}
    assert complaint({"contacts": [many]}, features=None) == ("features", "C-1")


def test_a_feature_may_change_its_type_from_contact_to_contact_in_any_features_mode() -> None:
    contacts = [
        {"contactId": str(number), "features": {"a": value}} for number, value in enumerate((1, "1", 1.0, True))
    ]
    _, results = Model(SimulatorConfig(features=None)).score({"contacts": contacts})
    assert results[0]["score"] == results[2]["score"] == results[3]["score"] != results[1]["score"]


def test_the_largest_numbers_have_a_score() -> None:
    extreme = 1.7e308
    for calls, handle_time in ((-extreme, extreme), (extreme, extreme), (extreme, -extreme), (10.0**300, 5e-324)):
        features = {**FEATURES, "previous_calls": calls, "avg_handle_time": handle_time}
        _, [result] = Model(SimulatorConfig()).score({"contacts": [{"contactId": "a", "features": features}]})
        assert 0 <= result["score"] <= 1
