"""The API's and the login service's answers, whatever bytes they are, through a real socket and the real client.

`ScoringClient.ask` always returns one of its answers, in one line and without a secret. Whatever the answer and the
state of the request, each way of deciding accounts for every contact of the request exactly once.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_core import contact, ids, policy
from support_fuzz import MEGABYTE, fuzz, is_one_line, peak_memory
from support_fuzz_http import SECRET, TOKEN, HttpHarness, answers

from stream_scorer.core.audit.events import build_events
from stream_scorer.core.audit.hash_chain import AuditChain
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.scoring.api_response import Answered, ApiResponse, Exchange, Refused, Unavailable
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request
from stream_scorer.core.scoring.response_policy import (
    Context,
    Decision,
    Results,
    after_results,
    at_once,
    classify,
    unanswered_twice,
    while_none_succeed,
    while_others_succeed,
)
from stream_scorer.genesys.wire import answer_limit
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.output_records import Encoder, OutputTopics
from stream_scorer.scoring.ports import Untraced

if TYPE_CHECKING:
    from stream_scorer.core.scoring.types import Contact, Scored
    from stream_scorer.genesys.client import ScoringClient

NOW = 1_000.0
AUDIT = Codec.single_object(load_schema(SchemaFile.BATCH_AUDIT))
SIZES = dict.fromkeys(("scores", "review", "rejected", "audit"), 1_000_000)
TOPICS = OutputTopics("scores", "review", "rejected", "audit", SIZES, "retry")
ENCODER = Encoder(TOPICS, "group", Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE)), Untraced())


def contacts(number: int, first: int = 0) -> tuple[Contact, ...]:
    return tuple(contact(f"c{n}", n) for n in range(first, first + number))


def ask(client: ScoringClient, number: int = 12) -> ApiResponse:
    return client.ask([one.body for one in contacts(number)], None)


def check_answer(answer: Any, *hidden: str) -> None:
    assert isinstance(answer, get_args(ApiResponse)), answer
    exchange: Exchange = answer.exchange
    assert exchange.latency_ms >= 0
    assert exchange.status is None or 100 <= exchange.status <= 9999
    if exchange.quota is not None:
        assert min(exchange.quota.count, exchange.quota.allowed, exchange.quota.reset_s) >= 0
    if isinstance(answer, Answered):
        assert isinstance(answer.results, list)
        return
    assert is_one_line(answer.message)
    assert 0 < len(answer.message) < 1_000
    shown = repr(replace(answer, exchange=exchange))
    assert all(secret not in shown for secret in (SECRET, *hidden))
    after_s = getattr(answer, "retry_after_s", None)
    assert after_s is None or (0 <= after_s <= 86_400 and math.isfinite(after_s))


@fuzz(150)
@given(said=answers())
def test_any_answer_of_the_api(harness: HttpHarness, said: bytes) -> None:
    harness.said, harness.granted = said, None
    client = harness.client()
    try:
        answer = ask(client)
    finally:
        client.close()
    check_answer(answer, TOKEN)
    check_decisions(Request("batch", BatchKey(None, False), contacts(12), attempts=1), answer, 0.5)


@fuzz(120)
@given(granted=answers())
def test_any_answer_of_the_login_service(harness: HttpHarness, granted: bytes) -> None:
    harness.said, harness.granted = b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"results":[]}', granted
    client = harness.client()
    try:
        check_answer(ask(client))
    finally:
        client.close()


# --- what follows from it


@st.composite
def asked(draw: st.DrawFn) -> Request:
    """A request in any state that it can be in."""
    sizes = draw(st.tuples(st.integers(1, 12), *[st.integers(0, 5)] * 3))
    starts = (0, sizes[0], sum(sizes[:2]), sum(sizes[:3]))
    now, sibling, postponed, named = (contacts(size, start) for size, start in zip(sizes, starts, strict=True))
    return Request(
        *("batch", BatchKey(draw(st.none() | st.just("7")), draw(st.booleans())), now),
        attempts=draw(st.integers(1, 9)),
        sent_at=draw(st.floats(0, NOW)),
        failures=draw(st.integers(0, 5)),
        lone_failures=draw(st.none() | st.integers(0, 3)) if len(now) == 1 else None,
        retried_unanswered=draw(st.booleans()),
        bisecting=draw(st.booleans()),
        was_named=draw(st.booleans()),
        cleared=draw(st.integers(0, 50)),
        found=draw(st.integers(0, 5)),
        sibling=sibling,
        postponed=postponed,
        named=named,
    )


def check_decisions(request: Request, answer: ApiResponse, jitter: float) -> None:
    at = Context(NOW, 1, jitter, ids())
    result = classify(request, answer, policy())
    if isinstance(result, Results):
        twice = unanswered_twice(request, result, answer.exchange, policy())
        decision = Decision(after_results(request, result, at) + twice.requests, twice.failed)
        check_accounted(request, decision, [one.contact for one in result.scored])
        check_written(result.scored)
        return
    failed = replace(request, failures=request.failures + 1)
    for decide in (at_once, while_others_succeed, while_none_succeed):
        decision = decide(failed, result, policy(), at)
        if decision is not None and decision.trip is None:  # else the caller keeps the request
            check_accounted(failed, decision, [])


def check_accounted(request: Request, decision: Decision, done: list[Contact]) -> None:
    held = [one for again in decision.requests for one in again.all_contacts]
    held += [failed.contact for failed in decision.failed]
    assert sorted(one.record.offset for one in [*done, *held]) == sorted(
        one.record.offset for one in request.all_contacts
    )
    assert all(again.contacts for again in decision.requests)
    assert all(math.isfinite(again.not_before) and math.isfinite(again.backoff_until) for again in decision.requests)


def check_written(scored: tuple[Scored, ...]) -> None:
    made = build_events(scored, model_id="m", model_version=None, new_batch_id=ids(), now_ms=1)
    for value in AuditChain("chain", AUDIT).plan(made.events).values:
        assert AUDIT.decode(value)["contacts"]
    for outcome in scored:
        assert ENCODER.encode(outcome, "batch").value is not None


@fuzz(120)
@given(asked(), answers(), st.floats(0, 1, exclude_max=True))
def test_every_contact_is_accounted_for(harness: HttpHarness, request: Request, said: bytes, jitter: float) -> None:
    harness.said, harness.granted = said, None
    client = harness.client()
    try:
        answer = ask(client)
    finally:
        client.close()
    check_decisions(request, answer, jitter)


# --- large answers: they are read in proportion to the request (tests/e2e/test_genesys_bounds.py)

MANY = MEGABYTE
LARGE = {
    "lists": b'{"results":[' + b"[]," * (MANY // 3) + b"0]}",
    "objects": b'{"results":[' + b'{"":0},' * (MANY // 7) + b"0]}",
    "one text": b'{"results":["' + b"a" * MANY + b'"]}',
    "one text, with a sign that is wide": b'{"results":["' + b"a" * MANY + '\U0001f600"]}'.encode(),
    "objects in each other": b'{"results":[' + (b'{"":' * 200 + b"0" + b"}" * 200 + b",") * (MANY // 1002) + b"0]}",
    "not quite JSON": b'{"results":[' + b"[]," * (MANY // 3) + b"NaN]}",
}


@pytest.mark.parametrize("what", LARGE)
@pytest.mark.parametrize("status", [200, 400])
def test_a_large_answer_takes_memory_in_proportion(harness: HttpHarness, what: str, status: int) -> None:
    body = LARGE[what]
    harness.granted = None
    harness.said = b"HTTP/1.1 %d Whatever\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body
    client = harness.client()
    try:
        with peak_memory() as peak:
            answer = ask(client, 1000)
    finally:
        client.close()
    check_answer(answer)
    assert type(answer) is {200: Answered, 400: Refused}[status]
    assert peak[0] < 55 * len(body), f"{peak[0] / len(body):.0f} bytes for each one sent"


@pytest.mark.parametrize("what", LARGE)
@pytest.mark.parametrize("status", [200, 400])
def test_unrequested_results_are_not_read(harness: HttpHarness, what: str, status: int) -> None:
    """The same answers to a request for a dozen contacts: they take no more than what a dozen may take."""
    body = LARGE[what]
    harness.granted = None
    harness.said = b"HTTP/1.1 %d Whatever\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body
    client = harness.client()
    try:
        with peak_memory() as peak:
            answer = ask(client)
    finally:
        client.close()
    check_answer(answer)
    assert isinstance(answer, Unavailable if status == 200 else Refused)
    assert isinstance(answer, Refused) or (answer.failure, answer.exchange.status) == (HttpFailure.MALFORMED, 200)
    assert peak[0] < MEGABYTE + 55 * answer_limit(12), f"{peak[0] / MEGABYTE:.1f} MB"
