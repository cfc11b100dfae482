"""Records of any bytes, keys and headers through decoding, checks, batches and the request's body.

Each becomes exactly a `Contact` or a `Rejected` with reasons of the contract (section 5), and never another exception;
and whatever it becomes can be written: as a part of a request, as a rejected record, as an entry of the audit.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_core import ids
from support_fuzz import (
    BIG_ATTRIBUTES,
    HEADERS,
    KEYS,
    MEGABYTE,
    TEXTS,
    codecs,
    contact_features,
    framed,
    fuzz,
    lies,
    mutilated,
    peak_memory,
    text,
    varint,
)

from stream_scorer.core.audit.events import build_events
from stream_scorer.core.audit.hash_chain import AuditChain
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.batcher import Batcher
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.types import Contact, Reason, Rejected
from stream_scorer.genesys.wire import body_overhead, build_body, encode_contact
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.intake import Intake
from stream_scorer.scoring.output_records import Encoder, OutputTopics
from stream_scorer.scoring.ports import Untraced

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NOW_MS = 1_800_000_000_000
MAX_REQUEST_BYTES = 2_000
MAX_VALUE_BYTES = 4 * MEGABYTE
LIMITS = {"scores": 1_000_000, "review": 1_000_000, "rejected": 20_000, "audit": 1_000_000}
REASONS = [reason.value for reason in Reason]
NO_API_NEEDED = set(REASONS[: REASONS.index(Reason.TOO_LARGE) + 1]) | {Reason.UNKNOWN_MODEL_VERSION.value}
MODEL = (
    Feature("calls", "integer", impute=0, maximum=1_000),
    Feature("time", "number", minimum=0.0),
    Feature("known", "boolean", impute=False),
    Feature("segment", "string", impute="default"),
    Feature("grade", "string", impute="a", choices=("a", "b")),
)
CODECS = codecs(SchemaFile.CONTACT_FEATURES, MAX_VALUE_BYTES)
AUDIT = Codec.single_object(load_schema(SchemaFile.BATCH_AUDIT))
NAMES = st.sampled_from([feature.name for feature in MODEL]) | TEXTS
GOOD = st.fixed_dictionaries(
    {
        "event_id": st.text(min_size=1, max_size=5),
        "contact_id": st.text("abcé\0\U0001f600", min_size=1, max_size=2),
        "features": st.fixed_dictionaries(
            {"time": st.floats(0, 1e308) | st.integers(0, 2**63 - 1)}, optional={"segment": TEXTS}
        ),
        "occurred_at": st.integers(NOW_MS - 80_000, NOW_MS + 2**50),
        "campaign_id": st.none() | TEXTS,
        "model_version": st.none() | st.sampled_from(["1", "2", "\0"]),
        "attributes": st.dictionaries(TEXTS, TEXTS, max_size=3) | BIG_ATTRIBUTES,
    }
)


def batcher() -> Batcher:
    return Batcher(max_contacts=5, max_body_bytes=MAX_REQUEST_BYTES, overhead_bytes=body_overhead, linger_s=1.0)


def intake(codec: Codec) -> Intake:
    checker = ContactChecker(FeatureList(MODEL, 6), max_event_age_s=86_400.0)
    return Intake(codec=codec, checker=checker, encode=encode_contact, fits=batcher().fits, model_version="1")


INTAKES = [(codec, intake(codec)) for codec in CODECS]
ENCODER = Encoder(
    OutputTopics("scores", "review", "rejected", "audit", LIMITS, "retry"),
    "group",
    Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE)),
    Untraced(),
)


def source(value: bytes | None, key: bytes | None = None, headers: Any = (), *, readable: bool = True) -> SourceRecord:
    return SourceRecord("contact-features", 0, 7, key, value, list(headers), readable)


def check(outcome: object, record: SourceRecord) -> None:
    """That it is one of the two, and can be written."""
    assert isinstance(outcome, Contact | Rejected), outcome
    assert outcome.record is record
    if isinstance(outcome, Contact):
        check_contact(outcome)
    else:
        check_rejected(outcome)


def check_contact(contact: Contact) -> None:
    said = json.loads(contact.body)
    assert list(said) == ["contactId", "features"]
    assert said["contactId"] == contact.contact_id
    assert list(said["features"]) == [feature.name for feature in MODEL]
    assert set(contact.imputed_features) <= set(said["features"])
    assert len(build_body([contact.body], contact.model_version)) <= MAX_REQUEST_BYTES


def check_rejected(rejected: Rejected) -> None:
    reasons = [REASONS.index(reason) for reason in rejected.reasons]
    assert reasons, "a rejection without a reason"
    assert reasons == sorted(set(reasons))
    assert set(rejected.reasons) <= NO_API_NEEDED
    assert 0 < len(rejected.detail) <= 1_000
    assert rejected.detail.isprintable(), "the detail is a header and a log line"
    out = ENCODER.encode(rejected, "batch-1")
    assert (out.key, out.value) in ((rejected.record.key, rejected.record.value), (rejected.record.key, None))
    assert not ENCODER.too_large(out)
    ours = {name: value for name, value in out.headers if name.startswith("stream-scorer-")}
    assert len(ours) == sum(name.startswith("stream-scorer-") for name, _ in out.headers), "a header of ours twice"
    assert ours["stream-scorer-error-reason"] == rejected.reasons[0].encode()
    assert (ours["stream-scorer-error-detail"] or b"").decode() == rejected.detail
    truncated = "stream-scorer-error-truncated" in ours
    passed = [header for header in rejected.record.headers if not header[0].startswith("stream-scorer-")]
    assert [header for header in out.headers if header[0] not in ours] in (passed, [] if truncated else passed)
    assert (out.value is None) == (truncated or rejected.record.value is None)
    for name, value in out.headers:
        assert name.encode().decode() == name
        assert value is None or isinstance(value, bytes)
    check_audit([rejected])


def check_audit(outcomes: Sequence[Any]) -> None:
    made = build_events(outcomes, model_id="m", model_version=None, new_batch_id=ids(), now_ms=NOW_MS)
    plan = AuditChain("chain", AUDIT).plan(made.events)
    written = [AUDIT.decode(record) for record in plan.values]
    assert sum(len(event["contacts"]) for event in written) == len(outcomes)


@st.composite
def values(draw: st.DrawFn) -> tuple[int, bytes]:
    """A value for the record, and which framing is read."""
    which = draw(st.integers(0, len(CODECS) - 1))
    codec = CODECS[which]
    whole = contact_features(NAMES).map(codec.encode)
    kinds = st.one_of(
        whole, mutilated(whole), mutilated(GOOD.map(codec.encode)), framed(codec, lies()), st.binary(max_size=60)
    )
    return which, draw(kinds)


@fuzz(400)
@given(values(), KEYS, HEADERS, st.booleans())
def test_any_record_is_a_contact_or_a_rejection(
    value: tuple[int, bytes], key: bytes | None, headers: Any, readable: bool
) -> None:
    which, data = value
    record = source(data, key, headers, readable=readable)
    check(INTAKES[which][1].examine(record, NOW_MS), record)


def test_no_value_is_a_rejection() -> None:
    record = source(None)
    check(INTAKES[0][1].examine(record, NOW_MS), record)


@fuzz(60)
@given(st.lists(GOOD, max_size=30), st.integers(0, len(CODECS) - 1))
def test_each_valid_contact_is_sent_once_in_a_request_within_the_limits(
    events: list[dict[str, Any]], which: int
) -> None:
    codec, examine = CODECS[which], INTAKES[which][1].examine
    outcomes = [examine(source(codec.encode(event)), NOW_MS) for event in events]
    contacts = [outcome for outcome in outcomes if isinstance(outcome, Contact)]
    waiting = batcher()
    for contact in contacts:
        waiting.add(contact, 0.0)
    sent: list[Contact] = []
    while batch := waiting.take_any():
        body = build_body([contact.body for contact in batch.contacts], batch.key.model_version)
        asked = json.loads(body)["contacts"]
        assert len(body) <= MAX_REQUEST_BYTES
        assert len(asked) <= 5
        assert [one["contactId"] for one in asked] == [contact.contact_id for contact in batch.contacts]
        assert len({one["contactId"] for one in asked}) == len(asked)
        sent += batch.contacts
    assert sorted(map(id, sent)) == sorted(map(id, contacts))
    assert waiting.waiting == 0


# --- large values: memory and time grow with the bytes that were sent, not with what they say of themselves

IDS = text(b"e") + text(b"c")
REST = varint(NOW_MS) + b"\0\0"
SIZE = MEGABYTE // 2


def entries(pairs: Iterable[bytes]) -> bytes:
    made = list(pairs)
    return IDS + varint(len(made)) + b"".join(made) + b"\0" + REST


LARGE: dict[str, bytes] = {
    "names without end": entries(text(b"%05x" % n) + varint(0) for n in range(SIZE // 7)),
    "one name again and again": entries([b"\0\0"] * (SIZE // 2)),
    "names with what must be escaped": entries(text(b"\x01%05x" % n) + varint(0) for n in range(SIZE // 8)),
    "one long name": entries([text(b"\x01" * SIZE) + varint(0)]),
    "a long text that JSON escapes": entries([text(b"segment") + varint(4) + text(b"\x01" * SIZE)]),
    "a long text of wide characters": entries(
        [text(b"segment") + varint(4) + text("\U0001f600".encode() * (SIZE // 4))]
    ),
    "long ids": text(b"e" * (SIZE // 2)) + text("é".encode() * (SIZE // 4)) + b"\0" + REST,
    "long campaign and version": IDS + b"\0" + varint(NOW_MS) + (b"\x02" + text(b"v" * (SIZE // 2))) * 2,
    "a count that lies": IDS + varint(2**62) + (text(b"k") + varint(0)) * (SIZE // 3),
    "blocks of nothing": IDS + (varint(-(2**62)) + varint(0)) * (SIZE // 10),
    "a length that lies": varint(2**40) + b"x" * SIZE,
}


@pytest.mark.parametrize("which", range(len(CODECS)))
@pytest.mark.parametrize("trick", LARGE)
def test_a_large_value_takes_memory_and_time_in_proportion(trick: str, which: int) -> None:
    codec, examine = CODECS[which], INTAKES[which][1].examine
    record = source(codec.header + LARGE[trick])
    began = time.process_time()
    outcome = examine(record, NOW_MS)
    assert time.process_time() - began < 2.0
    with peak_memory() as peak:
        assert examine(record, NOW_MS) == outcome
    assert peak[0] < 30 * len(LARGE[trick]) + MEGABYTE, f"{peak[0] / len(LARGE[trick]):.0f} bytes for each one sent"
    check(outcome, record)


@pytest.mark.parametrize("which", range(len(CODECS)))
def test_what_is_over_the_limit_is_not_read(which: int) -> None:
    record = source(CODECS[which].header + bytes(MAX_VALUE_BYTES))
    with peak_memory() as peak:
        outcome = INTAKES[which][1].examine(record, NOW_MS)
    assert isinstance(outcome, Rejected)
    assert peak[0] < 100_000
    check(outcome, record)
