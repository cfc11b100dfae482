"""Callbacks planned from scores: groups, bodies, ids, and scores that are not part of one."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.callbacks.records import callback_id_of, callback_value, read_callback, threshold_headers
from stream_scorer.core.callbacks.selection import (
    BelowThreshold,
    Invalid,
    PlanningRules,
    Selected,
    examine,
    plan_callbacks,
)
from stream_scorer.core.records import SourceRecord
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.targets.payload import MAX_BODY_BYTES, PayloadTarget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_scorer.core.callbacks.selection import Examined, Plan

SCORES = Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE))
CALLBACKS = Codec.single_object(load_schema(SchemaFile.CAMPAIGN_CALLBACK))
NOW_MS = 1_800_000_000_000
RULES = PlanningRules(threshold=0.75, max_contacts=75, max_age_ms=86_400_000, max_record_bytes=1_000_000)


class Webhook(PayloadTarget):
    """The bodies of the real webhook, without its network."""

    name = "webhook https://example.com"


WEBHOOK = Webhook()


def value(**changes: Any) -> dict[str, Any]:
    return {
        "event_id": "e",
        "contact_id": "c",
        "campaign_id": "spring",
        "model_id": "m",
        "model_version": "7",
        "score": 0.9,
        "confidence_lower": 0.8,
        "confidence_upper": 0.95,
        "latency_ms": 1.0,
        "occurred_at": NOW_MS - 5_000,
        "scored_at": NOW_MS - 1_000,
        "imputed_features": [],
        "batch_id": "b",
        "review_reasons": [],
        "attributes": {},
        **changes,
    }


def record(offset: int = 0, partition: int = 0, **changes: Any) -> SourceRecord:
    return SourceRecord("scores", partition, offset, b"c", SCORES.encode(value(**changes)), [])


def look(one: SourceRecord, rules: PlanningRules = RULES) -> Examined:
    return examine(one, codec=SCORES, writer=WEBHOOK, rules=rules, now_ms=NOW_MS)


def planned(records: Iterable[SourceRecord], rules: PlanningRules = RULES) -> Plan:
    return plan_callbacks([look(one, rules) for one in records], writer=WEBHOOK, rules=rules, now_ms=NOW_MS)


class TestExamine:
    @pytest.mark.parametrize(
        ("score", "kind"), [(0.75, Selected), (0.7499999, BelowThreshold), (1.0, Selected), (0.0, BelowThreshold)]
    )
    def test_the_threshold_itself_calls(self, score: float, kind: type) -> None:
        assert isinstance(look(record(score=score)), kind)

    def test_a_score_in_review_is_not_selected(self) -> None:
        assert isinstance(look(record(review_reasons=["narrow_interval"])), BelowThreshold)

    @pytest.mark.parametrize("data", [None, b"", b"\xc3\x01nonsense", SCORES.encode(value())[:-1]])
    def test_what_is_no_score_is_set_aside(self, data: bytes | None) -> None:
        found = look(SourceRecord("scores", 0, 0, b"k", data, []))
        assert isinstance(found, Invalid)
        assert found.reason == "undecodable"
        assert found.found_at_ms == NOW_MS

    @pytest.mark.parametrize("field", ["score", "confidence_lower", "confidence_upper"])
    @pytest.mark.parametrize("number", [float("nan"), float("inf")])
    def test_a_number_that_is_none_is_set_aside(self, field: str, number: float) -> None:
        found = look(record(**{field: number}))
        assert isinstance(found, Invalid)
        assert field in found.detail

    @pytest.mark.parametrize("contact_id", ["", "x" * 257, "ü" * 129])
    def test_a_contact_id_that_is_none(self, contact_id: str) -> None:
        found = look(record(contact_id=contact_id))
        assert isinstance(found, Invalid)
        assert found.reason == "invalid_contact"

    def test_ids_of_256_bytes_always_fit(self) -> None:
        longest = "ü" * 128
        control = "\x01" * 256  # six times as long in JSON
        for text in (longest, control):
            found = look(record(contact_id=text, event_id=text, campaign_id=text, model_id=text, model_version=text))
            assert isinstance(found, Selected)
            [callback] = planned([found.record]).callbacks
            assert len(callback.body) < MAX_BODY_BYTES

    def test_what_cannot_fit_alone_is_set_aside_and_blocks_nothing(self) -> None:
        found = look(record(campaign_id="x" * MAX_BODY_BYTES))
        assert isinstance(found, Invalid)
        assert found.reason == "too_large"
        made = planned([record(0, campaign_id="x" * MAX_BODY_BYTES), record(1)])
        assert [callback.sources for callback in made.callbacks] == [("scores/0/1",)]
        assert [one.record.offset for one in made.unusable] == [0]


class TestPlan:
    def test_the_body_is_that_of_the_contract(self) -> None:
        [callback] = planned([record(4), record(5, partition=1, contact_id="d")]).callbacks
        body = json.loads(callback.body)
        assert body["type"] == "contact.scored"
        assert body["data"]["callback_id"] == callback.callback_id
        assert body["data"]["campaign_id"] == "spring"
        assert [contact["contact_id"] for contact in body["data"]["contacts"]] == ["c", "d"]
        assert callback.sources == ("scores/0/4", "scores/1/5")
        assert callback.contact_ids == ("c", "d")
        assert (callback.attempts, callback.not_before_ms, callback.planned_at_ms) == (0, NOW_MS, NOW_MS)
        assert callback.target == WEBHOOK.name

    def test_one_campaign_and_model_each(self) -> None:
        lanes = [("spring", "m"), (None, "m"), ("spring", "n"), ("autumn", "m")]
        made = planned(record(n, campaign_id=lanes[n % 4][0], model_id=lanes[n % 4][1]) for n in range(12))
        assert [[source.rpartition("/")[2] for source in callback.sources] for callback in made.callbacks] == [
            [str(n), str(n + 4), str(n + 8)] for n in range(4)
        ]

    def test_a_callback_holds_so_many_contacts(self) -> None:
        rules = PlanningRules(0.75, 3, 86_400_000, 1_000_000)
        made = planned((record(n) for n in range(7)), rules)
        assert [len(callback.contact_ids) for callback in made.callbacks] == [3, 3, 1]

    def test_a_score_that_waited_too_long_expires(self) -> None:
        old = NOW_MS - 86_400_001
        made = planned([record(0, scored_at=old), record(1, scored_at=old + 1), record(2, scored_at=old, score=0.1)])
        assert [callback.sources for callback in made.expired] == [("scores/0/0",)]
        assert [callback.sources for callback in made.callbacks] == [("scores/0/1",)]
        assert made.expired[0].body == b""

    def test_a_records_own_size_is_bounded(self) -> None:
        rules = PlanningRules(0.75, 1000, 86_400_000, 4_000)
        made = planned((record(n, contact_id="c" * 200, event_id="e" * 200) for n in range(10)), rules)
        sizes = [len(CALLBACKS.encode(callback_value(callback))) for callback in made.callbacks]
        assert len(sizes) > 1
        assert max(sizes) < 4_000
        assert sum(len(callback.sources) for callback in made.callbacks) == 10

    def test_a_body_longer_than_the_sum_of_its_parts_is_halved(self) -> None:
        class Padded(Webhook):
            max_body_bytes = 2_000

            def body(self, *args: Any) -> bytes:
                return super().body(*args) + b" " * 100 * len(args[4])

        padded = Padded()
        examined = [examine(record(n), codec=SCORES, writer=padded, rules=RULES, now_ms=NOW_MS) for n in range(20)]
        made = plan_callbacks(examined, writer=padded, rules=RULES, now_ms=NOW_MS)
        assert all(len(callback.body) < 2_000 for callback in made.callbacks)
        assert [source for callback in made.callbacks for source in callback.sources] == [
            f"scores/0/{n}" for n in range(20)
        ]
        assert len({callback.callback_id for callback in made.callbacks}) == len(made.callbacks)
        for callback in made.callbacks:
            assert json.loads(callback.body)["data"]["callback_id"] == callback.callback_id


def test_the_id_is_a_uuid5_of_the_sources_in_order() -> None:
    namespace = uuid.UUID("6f1f1f0e-6c0e-5f0b-9a55-0d3c9b0c7d11")
    sources = ["scores/0/1", "scores/1/2"]
    assert callback_id_of(sources) == str(uuid.uuid5(namespace, "scores/0/1\nscores/1/2"))
    assert uuid.UUID(callback_id_of(sources)).version == 5
    assert callback_id_of(sources) != callback_id_of(sources[::-1])
    assert callback_id_of(sources, "an-id") == str(uuid.uuid5(namespace, "scores/0/1\nscores/1/2\nan-id"))


def test_the_same_places_in_a_topic_that_was_created_again_make_other_ids() -> None:
    """Receivers drop known ids."""
    old = record(1, scored_at=0)
    plans = [planned([record(0), old], replace(RULES, topic_id=name)) for name in ("one", "another")]
    ids = [(made.callbacks[0].callback_id, made.expired[0].callback_id) for made in plans]
    assert len({*ids[0], *ids[1]}) == 4


def test_a_callback_comes_back_from_its_record_as_it_was() -> None:
    [callback] = planned([record(1), record(2, contact_id="ü")]).callbacks
    again = SourceRecord(
        "callbacks", 0, 0, b"k", CALLBACKS.encode(callback_value(callback)), threshold_headers(callback)
    )
    assert read_callback(CALLBACKS, again) == callback


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a", "b"]),
            st.sampled_from([0.1, 0.75, 0.9]),
            st.sampled_from(["c", "x" * 256, "\x02" * 200]),
            st.booleans(),
        ),
        max_size=120,
    ),
    st.integers(1, 80),
)
def test_every_score_that_calls_is_in_exactly_one_callback(
    rows: list[tuple[str | None, float, str, bool]], max_contacts: int
) -> None:
    rules = PlanningRules(0.75, max_contacts, 86_400_000, 900_000)
    records = [
        record(n, campaign_id=campaign, score=score, contact_id=contact, scored_at=0 if old else NOW_MS)
        for n, (campaign, score, contact, old) in enumerate(rows)
    ]
    made = planned(records, rules)
    callbacks = made.callbacks + made.expired
    found = Counter(source for callback in callbacks for source in callback.sources)
    due = {one.source for one, row in zip(records, rows, strict=True) if row[1] >= 0.75}
    assert found == Counter(due)
    assert all(0 < len(callback.sources) <= max_contacts for callback in callbacks)
    assert all(len(callback.body) < MAX_BODY_BYTES for callback in made.callbacks)
    assert planned(records, rules) == made, "the same scores make the same callbacks, byte for byte"
