"""Records of the campaign topics of any bytes: planner and deliverer always know what to do, and can write it down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from support_fuzz import DOUBLES, HEADERS, KEYS, LONGS, MEGABYTE, TEXTS, codecs, framed, fuzz, lies, mutilated

from stream_scorer.callbacks.intake import CallbackIntake
from stream_scorer.callbacks.output_records import CallbackEncoder, CallbackTopics
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.callbacks.retry_policy import (
    Completed,
    DeferredDelivery,
    Delivery,
    DeliveryRules,
    RetryNow,
    after_attempt,
    defer_failing,
    defer_rate_limited,
    give_up,
)
from stream_scorer.core.callbacks.selection import (
    BelowThreshold,
    Invalid,
    PlanningRules,
    Selected,
    examine,
    plan_callbacks,
)
from stream_scorer.core.callbacks.types import DeliveryAnswer, DeliveryKind, RefusedContact
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.retry_topics import NotDue
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.targets.payload import MAX_BODY_BYTES, PayloadTarget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.kafka.producer.records import OutRecord

NOW_MS = 1_800_000_000_000
RETRY_TOPICS = ("retry-1", "retry-2")
LIMITS = dict.fromkeys(("callbacks", "rejected", "receipts", *RETRY_TOPICS), 1_000_000)
SCORES = codecs(SchemaFile.CONTACT_SCORE, MEGABYTE)
CALLBACKS = codecs(SchemaFile.CAMPAIGN_CALLBACK, MEGABYTE)
PLANNING = PlanningRules(threshold=0.5, max_contacts=3, max_age_ms=86_400_000, max_record_bytes=1_000_000)
DELIVERY = DeliveryRules((60.0, 600.0))
ENCODER = CallbackEncoder(
    CallbackTopics("callbacks", RETRY_TOPICS, "rejected", "receipts", LIMITS),
    Codec.single_object(load_schema(SchemaFile.CAMPAIGN_CALLBACK)),
    Codec.single_object(load_schema(SchemaFile.CALLBACK_RECEIPT)),
)
INTS = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, -1, -(2**31), 2**31 - 1])
TIMES = LONGS | st.integers(NOW_MS - 10**9, NOW_MS + 10**9)
SCORE = st.fixed_dictionaries(
    {
        **dict.fromkeys(("event_id", "contact_id", "model_id", "batch_id"), TEXTS),
        **dict.fromkeys(("campaign_id", "model_version"), st.none() | TEXTS),
        **dict.fromkeys(("score", "confidence_lower", "confidence_upper", "latency_ms"), DOUBLES),
        **dict.fromkeys(("occurred_at", "scored_at"), TIMES),
        "imputed_features": st.lists(TEXTS, max_size=2),
        "review_reasons": st.just([]) | st.lists(TEXTS, max_size=2),
        "attributes": st.dictionaries(TEXTS, TEXTS, max_size=3),
    }
)
CALLBACK = st.fixed_dictionaries(
    {
        **dict.fromkeys(("callback_id", "target"), TEXTS),
        "campaign_id": st.none() | TEXTS,
        "body": st.binary(max_size=40),
        **dict.fromkeys(("sources", "event_ids", "contact_ids"), st.lists(TEXTS, max_size=3)),
        "planned_at": TIMES,
        "attempts": INTS,
        "not_before": TIMES,
    }
)
ANSWERS = st.builds(
    DeliveryAnswer,
    st.sampled_from(DeliveryKind),
    st.just("HTTP 503"),
    st.none() | st.integers(100, 9_999),
    st.floats(0, 1e6),
    st.none() | st.floats(0, 86_400),
    st.just(())
    | st.lists(
        st.builds(
            RefusedContact,
            st.integers(0, 4),
            st.sampled_from(["refused", "no_address"]),
            st.just("HTTP 400"),
            st.none() | st.integers(100, 9_999),
        ),
        max_size=3,
    ).map(tuple),
)


class Webhook(PayloadTarget):
    """The bodies of the real webhook, without its network."""

    name = "webhook https://example.com"


@st.composite
def values(draw: st.DrawFn, which: Sequence[Codec], good: st.SearchStrategy[dict[str, Any]]) -> tuple[Codec, bytes]:
    codec = draw(st.sampled_from(which))
    whole = good.map(codec.encode)
    return codec, draw(whole | whole | mutilated(whole) | framed(codec, lies()) | st.binary(max_size=40))


def record(value: bytes | None, key: bytes | None, headers: Any, topic: str, at_ms: int = NOW_MS) -> SourceRecord:
    return SourceRecord(topic, 0, 7, key, value, headers, True, at_ms)


def check_records(records: Sequence[OutRecord]) -> None:
    for one in records:
        ours = [name for name, _ in one.headers if name.startswith("stream-scorer-")]
        assert len(ours) == len(set(ours)), "a header of ours twice"
        for name, value in one.headers:
            assert name.encode().decode() == name
            if name == "stream-scorer-error-detail":
                assert value is not None
                assert value.decode().isprintable()


@fuzz(150)
@given(st.lists(values(SCORES, SCORE), min_size=1, max_size=6), KEYS, HEADERS)
def test_any_record_of_the_scores_is_planned_skipped_or_unusable(
    given_values: list[tuple[Codec, bytes]], key: bytes | None, headers: Any
) -> None:
    examined = [
        examine(record(value, key, headers, "scores"), codec=codec, writer=Webhook(), rules=PLANNING, now_ms=NOW_MS)
        for codec, value in given_values
    ]
    assert all(isinstance(one, Selected | BelowThreshold | Invalid) for one in examined)
    made = plan_callbacks(examined, writer=Webhook(), rules=PLANNING, now_ms=NOW_MS)
    called = sum(len(one.contact_ids) for one in made.callbacks + made.expired)
    assert called == sum(isinstance(one, Selected) for one in examined)
    assert len(made.unusable) == sum(isinstance(one, Invalid) for one in examined)
    planned = [ENCODER.planned(one, []) for one in made.callbacks]
    assert all(ENCODER.fits(one) for one in planned)
    assert all(len(one.body) < MAX_BODY_BYTES for one in made.callbacks)
    check_records(planned + [ENCODER.expired(one, []) for one in made.expired])
    check_records([ENCODER.invalid(one) for one in made.unusable])


@fuzz(250)
@given(
    values(CALLBACKS, CALLBACK), KEYS, HEADERS, st.sampled_from(["callbacks", *RETRY_TOPICS]), TIMES, ANSWERS, st.data()
)
def test_any_record_of_the_callbacks_comes_to_an_end(  # noqa: PLR0917 - hypothesis gives them by place
    value: tuple[Codec, bytes],
    key: bytes | None,
    headers: Any,
    topic: str,
    at_ms: int,
    answer: Any,
    data: st.DataObject,
) -> None:
    intake = CallbackIntake(value[0], {name: number for number, name in enumerate(RETRY_TOPICS, 1)}, DELIVERY, 0)
    found = intake.examine(record(value[1], key, headers, topic, at_ms), NOW_MS)
    assert isinstance(found, Delivery | NotDue | DeferredDelivery | Completed | Invalid)
    if isinstance(found, NotDue):
        assert NOW_MS < found.until_ms <= NOW_MS + 600_000
    for _ in range(30):
        if not isinstance(found, Delivery):
            break
        follows = after_attempt(found, answer, DELIVERY, now=10.0, now_ms=NOW_MS, jitter=0.5)
        if isinstance(follows, Completed):
            check_records(ENCODER.completed(follows))
        if isinstance(follows, DeferredDelivery):
            check_records([ENCODER.deferred(follows), *ENCODER.completed(give_up(follows, "no room", NOW_MS))])
        waiting = [
            defer_failing(found, DELIVERY, NOW_MS),
            defer_rate_limited(found, DELIVERY, NOW_MS, data.draw(st.floats(0, 1e5))),
        ]
        check_records([ENCODER.deferred(one) for one in waiting])
        found = follows.delivery if isinstance(follows, RetryNow) else follows
    assert not isinstance(found, Delivery), "it is tried again and again"
    if isinstance(found, DeferredDelivery):
        check_records([ENCODER.deferred(found)])
    if isinstance(found, Invalid):
        check_records([ENCODER.invalid(found)])
    assert isinstance(found, Completed | DeferredDelivery | Invalid | NotDue)
