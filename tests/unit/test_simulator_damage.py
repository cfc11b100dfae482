"""Responses with faults: edited results, and errors in the form of the platform."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from stream_scorer.local.simulator.fault_script import RequestSummary
from stream_scorer.local.simulator.faults import Fault, FaultAction, FaultPath, ResultEdit, Selection
from stream_scorer.local.simulator.response_faults import damaged, select
from stream_scorer.local.simulator.scripted_reply import LEVELS, scripted_reply

IDS = [f"C-{number}" for number in range(4)]


def results() -> list[dict[str, Any]]:
    scores = [0.1, 0.5, 0.62, 0.9]
    return [
        {"contactId": i, "score": s, "confidenceInterval": {"lower": s - 0.1, "upper": s + 0.1}}
        for i, s in zip(IDS, scores, strict=True)
    ]


def after(*edits: dict[str, Any]) -> list[dict[str, Any]]:
    given = results()
    found = damaged(given, [ResultEdit.model_validate(edit) for edit in edits])
    assert given == results(), "what is given is not changed"
    return found


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [result["contactId"] for result in found]


# --- selections


def test_a_selection_means_the_first_the_same_share_certain_ones_or_a_prefix() -> None:
    many = [f"contact-{number}" for number in range(10_000)]
    assert select(IDS, "all") == set(IDS)
    assert select(IDS, Selection(count=2)) == {"C-0", "C-1"}
    assert select(IDS, Selection(ids=("C-3", "never asked"))) == {"C-3"}
    assert select(["A-1", "B-1"], Selection(prefix="A-")) == {"A-1"}
    third = select(many, Selection(share=0.3))
    assert 2_700 < len(third) < 3_300
    assert select(many[:5000], Selection(share=0.3)) == third & set(many[:5000]), "whatever else is asked"
    assert select(many, Selection(share=0)) == set()
    assert select(many, Selection(share=1)) == set(many)


# --- edits


def test_results_can_be_missing_doubled_unknown_and_out_of_order() -> None:
    assert ids(after({"do": "omit", "of": {"count": 3}})) == ["C-3"]
    assert after({"do": "omit"}) == []
    repeated = after({"do": "repeat", "of": {"ids": ["C-1"]}})
    assert ids(repeated) == ["C-0", "C-1", "C-1", "C-2", "C-3"]
    assert repeated[1] == repeated[2]
    assert ids(after({"do": "unknown", "of": {"ids": ["C-1"]}})) == ["C-0", "C-1", "unknown-C-1", "C-2", "C-3"]
    assert ids(after({"do": "reverse"})) == IDS[::-1]


def test_results_can_contradict_each_other_in_a_valid_form() -> None:
    found = after({"do": "contradict"})
    assert ids(found) == [i for i in IDS for _ in range(2)]
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert abs(first["score"] - second["score"]) > 0.2
        assert 0 <= second["confidenceInterval"]["lower"] <= second["score"]
        assert second["score"] <= second["confidenceInterval"]["upper"] <= 1


def test_intervals_can_be_impossible() -> None:
    for before, swapped, outside in zip(results(), after({"do": "swap"}), after({"do": "outside"}), strict=True):
        bounds = swapped["confidenceInterval"]
        assert (bounds["upper"], bounds["lower"]) == tuple(before["confidenceInterval"].values())
        bounds = outside["confidenceInterval"]
        assert 0 <= bounds["lower"] < bounds["upper"] <= 1
        assert outside["score"] < bounds["lower"] - 0.04 or outside["score"] > bounds["upper"] + 0.04


def test_fields_can_be_missing_or_anything_at_all() -> None:
    assert "contactId" not in after({"do": "remove", "field": "contactId"})[0]
    assert after({"do": "remove", "field": "upper"})[0]["confidenceInterval"].keys() == {"lower"}
    assert after({"do": "set", "field": "score", "value": "0.5"})[0]["score"] == "0.5"
    assert after({"do": "set", "field": "score", "value": None, "of": {"count": 1}})[0]["score"] is None
    assert after({"do": "set", "field": "contactId", "value": "C-1"})[0]["contactId"] == "C-1"


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["score", "lower", "upper"])
def test_invalid_number_literals_can_be_sent(literal: str, field: str) -> None:
    [result] = after({"do": "omit", "of": {"count": 3}}, {"do": "set", "field": field, "literal": literal})
    text = orjson.dumps(result).decode()
    assert f'"{field}":{literal}' in text
    number = json.loads(text)["score"] if field == "score" else json.loads(text)["confidenceInterval"][field]
    assert not -1e308 < number < 1e308


def test_edits_are_applied_in_order_to_any_remaining_results() -> None:
    renamed = after({"do": "unknown"}, {"do": "omit", "of": {"prefix": "C-"}})
    assert renamed == [], "a selection applies to the contact of the request"
    found = after(
        {"do": "remove", "field": "confidenceInterval"},
        {"do": "set", "field": "lower", "value": 7},
        {"do": "repeat", "of": {"count": 1}},
    )
    assert [result["confidenceInterval"] for result in found] == [{"lower": 7}] * 5
    assert after({"do": "remove", "field": "confidenceInterval"}, {"do": "swap"}) == after({"do": "swap"})
    assert (
        after({"do": "set", "field": "confidenceInterval", "value": 3}, {"do": "remove", "field": "lower"})[0][
            "confidenceInterval"
        ]
        == {}
    )


# --- scripted responses


def answer(path: FaultPath = "score", asked: tuple[str, ...] = (), **action: Any) -> Any:
    fault = Fault.model_validate({"match": {"path": path}, "action": action})
    return scripted_reply(path, fault.action, lambda: RequestSummary(asked), context_id="ctx")


def test_scripted_answers_have_the_asked_body_and_headers() -> None:
    plain = answer(status=503, retry_after="3", headers={"X-A": "b"})
    body = json.loads(plain.body)
    assert (body["code"], body["contextId"], body["details"]) == ("service.unavailable", "ctx", [])
    assert plain.headers == (("Retry-After", "3"), ("X-A", "b"))
    assert json.loads(answer("token", status=401).body)["error"] == "invalid_client"
    assert json.loads(answer("token", status=400, code="invalid_scope").body)["error"] == "invalid_scope"
    assert json.loads(answer("token", status=503).body)["code"] == "service.unavailable"
    assert json.loads(answer(status=401, code="bad.credentials").body)["code"] == "bad.credentials"
    html = answer(status=502, body="html")
    assert (html.content_type.partition(";")[0], html.body[:6]) == ("text/html", b"<html>")
    assert answer(status=500, body="empty").body == b""
    assert answer(status=200, body='{"results":').body == b'{"results":'
    assert answer(status=204).body == b""


def test_bodies_can_be_no_json_another_shape_and_very_deep() -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer(status=200, body="not_json").body)
    assert "results" not in json.loads(answer(status=200, body="wrong_shape").body)
    nested = answer(status=200, body="nested").body
    assert nested.count(b"[") == nested.count(b"]") == LEVELS == 100_000
    with pytest.raises((RecursionError, json.JSONDecodeError)):
        json.loads(nested)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ("all", ["C-0", "C-1", "C-2"]),
        ({"ids": ["C-2", "C-0", "C-9"]}, ["C-0", "C-2"]),
        ({"count": 1}, ["C-0"]),
        (["C-9", "C-0"], ["C-9", "C-0"]),
        ([], []),
    ],
)
def test_a_rejection_names_contacts_of_the_request_or_others(names: Any, named: list[str]) -> None:
    body = json.loads(answer(status=400, names=names, asked=("C-0", "C-1", "C-2")).body)
    assert [detail["entityId"] for detail in body["details"]] == named


def test_an_action_without_a_status_has_no_scripted_response() -> None:
    with pytest.raises(ValueError, match="no status"):
        scripted_reply("score", FaultAction(delay_ms=1), RequestSummary, context_id="ctx")
