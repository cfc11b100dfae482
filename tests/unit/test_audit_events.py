from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream_scorer.core.audit.events import AuditChain, build_events, verify_chain
from stream_scorer.core.audit.hash_chain import ENTRY_FIELDS, scored_entry
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.types import Contact, Outcome, Reason, Rejected, RequestAudit, Scored
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

CODEC = Codec.single_object(load_schema(SchemaFile.BATCH_AUDIT))
CHAIN = "chain-1"
TEXTS = st.text(max_size=80)
NUMBERS = st.floats()
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
SCORED = st.builds(
    Scored,
    contact=st.builds(
        Contact,
        record=st.builds(
            SourceRecord,
            topic=TEXTS,
            partition=st.integers(0, 2**31 - 1),
            offset=st.integers(0, 2**63 - 1),
            key=st.none(),
            value=st.none(),
            headers=st.just([]),
            origin=st.just("") | TEXTS,
        ),
        event_id=TEXTS,
        contact_id=TEXTS | st.just("x" * 2100),
        campaign_id=st.none(),
        occurred_at_ms=st.just(900),
        model_version=st.none(),
        version_from_event=st.just(False),
        imputed_features=NAMES,
        body=st.binary(max_size=80),
    ),
    request=st.just(RequestAudit("batch-a", "model-1", None, 2, 1_000, 1_200, None, 1, 200, None)),
    score=NUMBERS,
    confidence_lower=NUMBERS,
    confidence_upper=NUMBERS,
    review_reasons=NAMES,
)


def request(batch_id: str, contacts: int = 2) -> RequestAudit:
    return RequestAudit(batch_id, "model-1", "v2", contacts, 1_000, 1_200, 187.5, 2, 200, "corr-1")


def record(offset: int) -> SourceRecord:
    return SourceRecord("contact-features", 3, offset, None, b"", [])


def scored(offset: int, facts: RequestAudit, review: tuple[str, ...] = (), imputed: tuple[str, ...] = ()) -> Scored:
    contact = Contact(record(offset), f"e-{offset}", f"c-{offset}", None, 900, "v2", False, imputed, b"{}")
    return Scored(contact, facts, 0.5, 0.4, 0.6, review)


def rejected(offset: int, facts: RequestAudit | None = None, contact_id: str = "c") -> Rejected:
    reasons = (Reason.MISSING_FEATURE, Reason.WRONG_TYPE)
    return Rejected(record(offset), reasons, "why", contact_id, 1_300, facts)


def build(outcomes: Sequence[Outcome]) -> tuple[list[dict[str, Any]], list[str]]:
    fresh = iter(f"own-{number}" for number in range(100))
    events, batch_ids = build_events(
        outcomes, model_id="model-1", model_version=None, new_batch_id=lambda: next(fresh), now_ms=5_000
    )
    return events, batch_ids


def chain() -> AuditChain:
    return AuditChain(CHAIN, CODEC)


def published(*rounds: Sequence[Outcome]) -> list[bytes]:
    """Return the values of a chain with one committed transaction for each round."""
    own = chain()
    values: list[bytes] = []
    for outcomes in rounds:
        plan = own.plan(build(outcomes)[0])
        own.confirm(plan)
        values += plan.values
    return values


class TestEvents:
    def test_contacts_are_grouped_by_their_request_in_order_of_appearance(self) -> None:
        a, b = request("batch-a"), request("batch-b")
        outcomes: list[Outcome] = [scored(0, b), rejected(1), scored(2, a), rejected(3, b), rejected(4), scored(5, b)]
        events, batch_ids = build(outcomes)
        assert batch_ids == ["batch-b", "own-0", "batch-a", "batch-b", "own-0", "batch-b"]
        assert [event["batch_id"] for event in events] == ["batch-b", "own-0", "batch-a"]
        written = [CODEC.decode(value) for value in published(outcomes)]
        assert [event["batch_id"] for event in written] == ["batch-b", "own-0", "batch-a"]
        sources = [[contact["source"].rpartition("/")[2] for contact in event["contacts"]] for event in written]
        assert sources == [["0", "3", "5"], ["1", "4"], ["2"]]

    def test_an_event_has_the_facts_of_its_request(self) -> None:
        facts = request("batch-a", contacts=7)
        [event], _ = build([scored(0, facts), scored(1, facts, ("narrow_interval",), ("age",)), rejected(2, facts)])
        assert {name: value for name, value in event.items() if name != "contacts"} == {
            "batch_id": "batch-a",
            "model_id": "model-1",
            "model_version": "v2",
            "request_contacts": 7,
            "started_at": 1_000,
            "finished_at": 1_200,
            "latency_ms": 187.5,
            "attempts": 2,
            "api_status": 200,
            "correlation_id": "corr-1",
            "counts": {"received": 3, "scored": 1, "review": 1, "rejected": 1},
        }

    def test_entries_survive_encoding(self) -> None:
        facts = request("batch-a")
        outcomes: list[Outcome] = [
            scored(0, facts),
            scored(1, facts, ("narrow_interval",), ("age", "job")),
            rejected(2, facts),
        ]
        event = CODEC.decode(published(outcomes)[0])
        assert event["contacts"] == [
            {
                "source": "contact-features/3/0",
                "contact_id": "c-0",
                "outcome": "SCORED",
                "score": 0.5,
                "confidence_lower": 0.4,
                "confidence_upper": 0.6,
                "imputed_features": [],
                "reasons": [],
                "event_id": "e-0",
                "features_hash": hashlib.sha256(b"{}").digest(),
                "reused_from": None,
                "billed": True,
            },
            {
                "source": "contact-features/3/1",
                "contact_id": "c-1",
                "outcome": "REVIEW",
                "score": 0.5,
                "confidence_lower": 0.4,
                "confidence_upper": 0.6,
                "imputed_features": ["age", "job"],
                "reasons": ["narrow_interval"],
                "event_id": "e-1",
                "features_hash": hashlib.sha256(b"{}").digest(),
                "reused_from": None,
                "billed": True,
            },
            {
                "source": "contact-features/3/2",
                "contact_id": "c",
                "outcome": "REJECTED",
                "score": None,
                "confidence_lower": None,
                "confidence_upper": None,
                "imputed_features": [],
                "reasons": ["missing_feature", "wrong_type"],
                "event_id": "",
                "features_hash": None,
                "reused_from": None,
                "billed": True,
            },
        ]

    @settings(max_examples=200, deadline=None)
    @given(outcomes=st.lists(SCORED, min_size=1, max_size=4))
    @example(outcomes=[])
    def test_the_fast_path_writes_what_the_codec_writes(self, outcomes: list[Scored]) -> None:
        events, _ = build([*outcomes, rejected(9, request("batch-a"))])
        [value] = chain().plan(events).values
        [event] = events
        entry_fields = CODEC.schema["fields"][-1]["type"]["items"]["fields"]
        assert [(field["name"], field["type"]) for field in entry_fields] == ENTRY_FIELDS  # required by the fast path
        as_fields = [scored_entry(one) for one in outcomes] + event["contacts"][len(outcomes) :]
        linked = {**event, "contacts": as_fields, "chain_id": CHAIN, "sequence": 0, "previous_hash": b"", "hash": b""}
        linked["hash"] = hashlib.sha256(CODEC.encode_body(linked)).digest()
        assert value == CODEC.encode(linked)

    @pytest.mark.parametrize(
        ("status", "billed"), [(200, True), (204, True), (400, False), (500, False), (None, False)]
    )
    def test_a_rejected_contact_is_billed_if_the_api_answered_with_success(
        self, status: int | None, billed: bool
    ) -> None:
        facts = replace(request("batch-a"), api_status=status)
        refused = rejected(0, facts)._replace(event_id="é" * 200, features_hash=b"h" * 32)
        [event], _ = build([refused])
        [entry] = event["contacts"]
        assert (entry["billed"], entry["features_hash"], entry["event_id"]) == (billed, b"h" * 32, "é" * 128)

    def test_a_contact_that_was_never_sent_is_not_billed(self) -> None:
        [event], _ = build([rejected(0)])
        assert [entry["billed"] for entry in event["contacts"]] == [False]

    def test_without_a_request_there_is_one_event_a_transaction(self) -> None:
        [event], _ = build([rejected(0), rejected(1)])
        assert event["api_status"] is None
        assert event["latency_ms"] is None
        assert event["correlation_id"] is None
        assert (event["request_contacts"], event["attempts"]) == (0, 0)
        assert (event["started_at"], event["finished_at"]) == (5_000, 5_000)

    def test_no_batch_id_is_used_up_for_nothing(self) -> None:
        assert build([]) == ([], [])
        assert build([scored(0, request("batch-a"))])[1] == ["batch-a"]

    @pytest.mark.parametrize(
        ("contact_id", "entry"),
        [
            ("", ""),
            ("x" * 256, "x" * 256),
            ("x" * 100_000, "x" * 256),
            ("é" * 128, "é" * 128),
            ("a" + "é" * 128, "a" + "é" * 127),
        ],
    )
    def test_an_id_that_is_too_long_is_cut_to_whole_characters(self, contact_id: str, entry: str) -> None:
        [event], _ = build([rejected(0, contact_id=contact_id)])
        assert event["contacts"][0]["contact_id"] == entry


class TestChain:
    def test_hash_is_sha_256_of_the_body_with_the_hash_empty(self) -> None:
        """Computed here with fastavro only, as an independent reader does."""
        values = published([scored(0, request("a")), rejected(1)], [scored(2, request("b"))])
        schema = fastavro.parse_schema(load_schema(SchemaFile.BATCH_AUDIT))
        previous = b""
        for sequence, value in enumerate(values):
            event: Any = fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None)
            body = io.BytesIO()
            fastavro.schemaless_writer(body, schema, {**event, "hash": b""})
            assert event["hash"] == hashlib.sha256(body.getvalue()).digest()
            assert (event["chain_id"], event["sequence"], event["previous_hash"]) == (CHAIN, sequence, previous)
            previous = event["hash"]
        assert len(values) == 3

    def test_only_a_confirmed_plan_is_linked_to(self) -> None:
        own = chain()
        aborted = own.plan(build([scored(0, request("a"))])[0])
        again = own.plan(build([scored(0, request("a"))])[0])
        assert again == aborted
        own.confirm(again)
        following = own.plan(build([scored(1, request("b"))])[0])
        assert verify_chain([*again.values, *following.values], CODEC) == []

    def test_a_stale_plan_is_not_confirmed(self) -> None:
        own = chain()
        first, second = (own.plan(build([scored(offset, request("a"))])[0]) for offset in (0, 1))
        own.confirm(first)
        with pytest.raises(ValueError, match="starts at 0, but the chain ends at 1"):
            own.confirm(second)

    def test_an_empty_transaction_changes_nothing(self) -> None:
        own = chain()
        own.confirm(own.plan([]))
        assert CODEC.decode(own.plan(build([rejected(0)])[0]).values[0])["sequence"] == 0

    def test_key_is_the_chain_id(self) -> None:
        assert chain().key == CHAIN.encode()

    @pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 200, 1000])
    def test_lengths_of_every_size_are_spliced_right(self, count: int) -> None:
        own = AuditChain("c" * count, CODEC)
        plan = own.plan(build([rejected(offset, request("b" * count)) for offset in range(count)])[0])
        assert verify_chain(plan.values, CODEC) == []

    def test_a_large_event_is_split_and_nothing_is_lost(self) -> None:
        names = tuple(f"feature_{index:02}_{'x' * 40}" for index in range(50))
        facts = request("batch-a", contacts=1000)
        outcomes: list[Outcome] = [scored(offset, facts, imputed=names) for offset in range(1000)]
        outcomes += [rejected(offset, facts) for offset in range(1000, 1010)]
        own = chain()
        plan = own.plan(build(outcomes)[0])
        assert len(plan.values) > 2
        assert max(map(len, plan.values)) <= 900_000
        events = [CODEC.decode(value) for value in plan.values]
        assert {event["batch_id"] for event in events} == {"batch-a"}
        assert {event["request_contacts"] for event in events} == {1000}
        entries = [entry for event in events for entry in event["contacts"]]
        assert [entry["source"].rpartition("/")[2] for entry in entries] == [str(offset) for offset in range(1010)]
        for event in events:
            outcome = [entry["outcome"] for entry in event["contacts"]]
            assert event["counts"] == {
                "received": len(outcome),
                "scored": outcome.count("SCORED"),
                "review": 0,
                "rejected": outcome.count("REJECTED"),
            }
        assert verify_chain(plan.values, CODEC) == []


class TestVerifying:
    VALUES = published(*([scored(offset, request(f"batch-{offset}"))] for offset in range(5)))

    def test_a_whole_chain_has_no_findings(self) -> None:
        assert verify_chain(self.VALUES, CODEC) == []
        assert verify_chain([], CODEC) == []

    def test_chains_may_be_mixed(self) -> None:
        other = AuditChain("chain-2", CODEC).plan(build([rejected(9), scored(10, request("z"))])[0]).values
        mixed = [self.VALUES[0], other[0], *self.VALUES[1:3], other[1], *self.VALUES[3:]]
        assert verify_chain(mixed, CODEC) == []

    @pytest.mark.parametrize("missing", range(4))
    def test_a_gap(self, missing: int) -> None:
        values = [value for index, value in enumerate(self.VALUES) if index != missing]
        [finding] = verify_chain(values, CODEC)
        assert finding == f"chain chain-1, sequence {missing + 1}: {missing} was expected here"

    def test_an_event_twice(self) -> None:
        assert verify_chain([*self.VALUES[:2], self.VALUES[1], *self.VALUES[2:]], CODEC) == [
            "chain chain-1, sequence 1: 2 was expected here"
        ]

    def test_a_changed_score(self) -> None:
        event = CODEC.decode(self.VALUES[2])
        event["contacts"][0]["score"] = 0.99
        values = [*self.VALUES[:2], CODEC.encode(event), *self.VALUES[3:]]
        assert verify_chain(values, CODEC) == [
            "chain chain-1, sequence 2: the content does not have the hash that stands in it"
        ]

    def test_a_changed_event_with_a_hash_that_fits_breaks_the_link(self) -> None:
        event = CODEC.decode(self.VALUES[2])
        event["contacts"][0]["score"] = 0.99
        event["hash"] = hashlib.sha256(CODEC.encode_body({**event, "hash": b""})).digest()
        values = [*self.VALUES[:2], CODEC.encode(event), *self.VALUES[3:]]
        assert verify_chain(values, CODEC) == [
            "chain chain-1, sequence 3: previous_hash is not the hash of the event before"
        ]

    def test_every_damaged_byte_is_found(self) -> None:
        value = self.VALUES[1]
        for index in range(len(value)):
            damaged = bytearray(value)
            damaged[index] ^= 0x04
            assert verify_chain([self.VALUES[0], bytes(damaged), self.VALUES[2]], CODEC), f"byte {index}"

    def test_what_is_no_event_is_a_finding(self) -> None:
        [finding] = verify_chain([*self.VALUES, b"nonsense which is long"], CODEC)
        assert finding.startswith("event 5: the value is text, not Avro")
        [finding] = verify_chain([*self.VALUES, b"\x80\x81 nonsense"], CODEC)
        assert finding.startswith("event 5: the value does not begin like")
