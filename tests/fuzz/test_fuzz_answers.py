"""The API's and the login service's answers, whatever bytes they are, through a real socket and the real client.

`ScoringClient.ask` always returns one of its answers, in one line and without a secret; and `react` accounts for every
contact that was asked about exactly once, whatever the answer and whatever the request has been through before.
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
from support_fuzz_http import SECRET, TOKEN, Scene, answers

from stream_scorer.core.auditing import build_events
from stream_scorer.core.avro import Codec
from stream_scorer.core.batcher import BatchKey
from stream_scorer.core.events import (
    Answer,
    Answered,
    Contact,
    Exchange,
    Refused,
    Rejected,
    Scored,
    Trouble,
    Unavailable,
)
from stream_scorer.core.hash_chain import AuditChain
from stream_scorer.core.request import Request
from stream_scorer.core.response_policy import Context, Decision, decide
from stream_scorer.genesys.wire import answer_limit
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.encoding import Encoder, OutputTopics
from stream_scorer.scoring.ports import Untraced

if TYPE_CHECKING:
    from stream_scorer.genesys.client import ScoringClient

NOW = 1_000.0
AUDIT = Codec.single_object(load_schema(SchemaFile.BATCH_AUDIT))
SIZES = dict.fromkeys(("scores", "review", "rejected", "audit"), 1_000_000)
TOPICS = OutputTopics("scores", "review", "rejected", "audit", SIZES, "retry")
ENCODER = Encoder(TOPICS, "group", Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE)), Untraced())


def contacts(number: int, first: int = 0) -> tuple[Contact, ...]:
    return tuple(contact(f"c{n}", n) for n in range(first, first + number))


def ask(client: ScoringClient, number: int = 12) -> Answer:
    return client.ask([one.body for one in contacts(number)], None)


def check_answer(answer: Any, *hidden: str) -> None:
    assert isinstance(answer, get_args(Answer)), answer
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
def test_any_answer_of_the_api(scene: Scene, said: bytes) -> None:
    scene.said, scene.granted = said, None
    client = scene.client()
    try:
        answer = ask(client)
    finally:
        client.close()
    check_answer(answer, TOKEN)
    request = Request("batch", BatchKey(None, False), contacts(12), attempts=1, round_attempts=1)
    check_reaction(request, answer, Context(NOW, 1, 0.5, None, ids()))


@fuzz(120)
@given(granted=answers())
def test_any_answer_of_the_login_service(scene: Scene, granted: bytes) -> None:
    scene.said, scene.granted = b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"results":[]}', granted
    client = scene.client()
    try:
        check_answer(ask(client))
    finally:
        client.close()


# --- what follows from it


@st.composite
def asked(draw: st.DrawFn) -> Request:
    """A request in any state that it can be in."""
    sizes = draw(st.tuples(st.integers(1, 12), st.integers(0, 5), st.integers(0, 5)))
    starts = (0, sizes[0], sizes[0] + sizes[1])
    now, other, later = (contacts(size, start) for size, start in zip(sizes, starts, strict=True))
    times = st.none() | st.floats(0, NOW)
    return Request(
        *("batch", BatchKey(draw(st.none() | st.just("7")), draw(st.booleans())), now),
        attempts=draw(st.integers(1, 9)),
        asked_since=draw(times),
        round_since=draw(times),
        round_attempts=draw(st.integers(1, 5)),
        lone_failures=draw(st.integers(0, 3)),
        retried_unanswered=draw(st.booleans()),
        bisecting=draw(st.booleans()),
        failing=draw(st.booleans()),
        deferred_half=other,
        deferred=later,
    )


def check_reaction(request: Request, answer: Answer, at: Context) -> Decision:
    decision = decide(request, answer, policy(), at)
    held = [c for one in decision.requests + decision.witnesses for c in one.all_contacts]
    held += [suspect.contact for suspect in decision.suspects]
    done = [outcome.record for outcome in decision.outcomes]
    accounted = sorted(record.offset for record in [*done, *(one.record for one in held)])
    assert accounted == sorted(one.record.offset for one in request.all_contacts)
    assert all(one.contacts for one in decision.requests + decision.witnesses)
    assert all(math.isfinite(one.not_before) for one in decision.requests)
    assert math.isfinite(decision.trip_until)
    check_written(decision)
    return decision


def check_written(decision: Decision) -> None:
    made = build_events(decision.outcomes, model_id="m", model_version=None, new_batch_id=ids(), now_ms=1)
    for value in AuditChain("chain", AUDIT).plan(made.events).values:
        assert AUDIT.decode(value)["contacts"]
    for outcome in decision.outcomes:
        assert isinstance(outcome, Scored | Rejected)
        assert ENCODER.encode(outcome, "batch").value is not None


@fuzz(120)
@given(asked(), answers(), st.none() | st.floats(0, NOW), st.integers(0, 4), st.floats(0, 1, exclude_max=True))
def test_every_contact_is_accounted_for(  # noqa: PLR0917 - hypothesis gives them by place
    scene: Scene, request: Request, said: bytes, last_2xx_at: float | None, witnesses: int, jitter: float
) -> None:
    scene.said, scene.granted = said, None
    client = scene.client()
    try:
        answer = ask(client)
    finally:
        client.close()
    check_reaction(request, answer, Context(NOW, 1, jitter, last_2xx_at, ids(), witnesses))


# --- large answers: they are read in proportion to what was asked about (tests/e2e/test_genesys_bounds.py)

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
def test_a_large_answer_takes_memory_in_proportion(scene: Scene, what: str, status: int) -> None:
    body = LARGE[what]
    scene.granted = None
    scene.said = b"HTTP/1.1 %d Whatever\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body
    client = scene.client()
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
def test_what_nobody_asked_for_is_not_read(scene: Scene, what: str, status: int) -> None:
    """The same answers to a request for a dozen contacts: they take no more than what a dozen may take."""
    body = LARGE[what]
    scene.granted = None
    scene.said = b"HTTP/1.1 %d Whatever\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body
    client = scene.client()
    try:
        with peak_memory() as peak:
            answer = ask(client)
    finally:
        client.close()
    check_answer(answer)
    assert isinstance(answer, Unavailable if status == 200 else Refused)
    assert isinstance(answer, Refused) or (answer.trouble, answer.exchange.status) == (Trouble.MALFORMED, 200)
    assert peak[0] < MEGABYTE + 55 * answer_limit(12), f"{peak[0] / MEGABYTE:.1f} MB"
