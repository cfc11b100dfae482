"""Spans of the scoring worker, created by the real SDK and kept in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from stream_scorer.core.http_failure import HttpFailure
from stream_scorer.core.records import Partition, SourceRecord
from stream_scorer.core.scoring.api_response import Answered, Exchange, Unavailable
from stream_scorer.core.scoring.batcher import BatchKey
from stream_scorer.core.scoring.request import Request
from stream_scorer.core.scoring.types import Contact, Deferred, Rejected, RequestAudit, Scored
from stream_scorer.core.trace_context import TraceContext, context_of
from stream_scorer.telemetry.otel_env import ALL_TRACES, Sampling, TraceValues
from stream_scorer.telemetry.tracing.scoring import ScoringTracer
from stream_scorer.telemetry.tracing.spans import Spans, make_spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from stream_scorer.core.records import Headers
    from stream_scorer.core.scoring.api_response import ApiResponse

PRODUCED = TraceContext(0xABC, 0xDEF, 1, "v=1")


class Harness:
    def __init__(self, sampling: Sampling = ALL_TRACES) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer = ScoringTracer(
            Spans("stream-scorer", "one", [SimpleSpanProcessor(self.exporter)], sampling),
            topic="in",
            group="group",
            api_url="https://user:pw@api.example.com/score?secret=1",
            login_url="https://login.example.com:8443/oauth/token",
        )

    def read(self, offset: int, headers: Headers) -> SourceRecord:
        record = SourceRecord("in", 3, offset, b"k", b"v", headers)
        self.tracer.polling()
        self.tracer.polled([record])
        return record

    def ask(self, request: Request, answer: ApiResponse) -> str | None:
        """The last attempt of a request."""
        trace_id = self.tracer.response_received(request, answer)
        self.tracer.request_finished(request)
        return trace_id

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    return Harness()


def request_about(*records: SourceRecord) -> Request:
    contacts = tuple(Contact(one, "e", f"c{one.offset}", None, 1, None, False, (), b"{}") for one in records)
    return Request("batch-1", BatchKey(None, False), contacts, attempts=1, first_sent_ms=1_700_000_000_000)


def scored(record: SourceRecord) -> Scored:
    contact = Contact(record, "e", "c", None, 1, None, False, (), b"{}")
    return Scored(contact, RequestAudit("batch-1", "m", None, 1, 1, 2, 3.0, 1, 200, "corr"), 0.5, 0.3, 0.7, ())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


EXCHANGE = Exchange(1_700_000_000_100, 1_700_000_000_150, 50.0, 200, "corr-1")


def test_a_sampled_contact_has_its_own_trace_and_is_linked_with_the_batch(harness: Harness) -> None:
    record = harness.read(7, PRODUCED.headers)
    failed = Unavailable(replace(EXCHANGE, status=503), HttpFailure.SERVER_ERROR, "HTTP 503")
    harness.tracer.response_received(request_about(record), failed)
    harness.ask(request_about(record), Answered(EXCHANGE, []))
    headers = harness.tracer.sending(record, "out", [("stream-scorer-batch", b"b"), *PRODUCED.headers])
    harness.tracer.committing()
    harness.tracer.committed([scored(record)])

    [poll] = harness.named("poll in")
    batch, process = sorted(harness.named("process in"), key=lambda span: span.parent is not None)
    [send] = harness.named("send out")
    [commit] = harness.named("commit in")
    first, second = harness.named("POST")
    assert process.context.trace_id == send.context.trace_id == 0xABC
    assert process.parent is not None
    assert process.parent.span_id == 0xDEF
    assert send.parent is not None
    assert send.parent.span_id == process.context.span_id
    handed_on = context_of(headers)
    assert handed_on is not None
    assert (handed_on.trace_id, handed_on.span_id, handed_on.sampled) == (0xABC, send.context.span_id, True)
    assert handed_on.state == "v=1"
    assert [name for name, _ in headers].count("traceparent") == 1
    assert headers[0] == ("stream-scorer-batch", b"b")
    assert len({span.context.trace_id for span in (poll, batch, commit, process)}) == 4
    for other in (poll, batch, commit):
        assert [link.context.span_id for link in other.links] == [process.context.span_id]
    assert [link.context.span_id for link in process.links] == [batch.context.span_id]
    assert {first.context.trace_id, second.context.trace_id} == {batch.context.trace_id}
    assert first.parent is not None
    assert first.parent.span_id == batch.context.span_id
    assert "http.request.resend_count" not in attributes(first)
    assert attributes(second)["http.request.resend_count"] == 1
    assert attributes(first)["error.type"] == "503"
    assert first.status.status_code is StatusCode.ERROR
    assert second.status.status_code is StatusCode.UNSET
    assert (first.start_time, first.end_time) == (1_700_000_000_100_000_000, 1_700_000_000_150_000_000)


def test_attributes_have_conventional_names_and_no_personal_data(harness: Harness) -> None:
    record = harness.read(7, PRODUCED.headers)
    harness.ask(request_about(record), Answered(EXCHANGE, []))
    harness.tracer.sending(record, "out", [])
    harness.tracer.committed([scored(record)])
    batch, process = sorted(harness.named("process in"), key=lambda span: span.parent is not None)
    assert attributes(process) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "in",
        "messaging.consumer.group.name": "group",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 7,
        "stream_scorer.outcome": "scored",
    }
    assert process.kind is SpanKind.CONSUMER
    assert attributes(batch)["messaging.batch.message_count"] == 1
    assert attributes(batch)["stream_scorer.batch_id"] == "batch-1"
    [post] = harness.named("POST")
    assert attributes(post) == {
        "http.request.method": "POST",
        "server.address": "api.example.com",
        "server.port": 443,
        "url.full": "https://api.example.com/score",
        "stream_scorer.correlation_id": "corr-1",
        "http.response.status_code": 200,
    }
    assert post.kind is SpanKind.CLIENT


def test_no_link_is_lost(harness: Harness) -> None:
    records = [SourceRecord("in", 0, n, None, b"v", TraceContext(n + 1, 1, 1).headers) for n in range(1_000)]
    harness.tracer.polling()
    harness.tracer.polled(records)
    harness.ask(request_about(*records), Answered(EXCHANGE, []))
    [batch] = [span for span in harness.named("process in") if span.parent is None]
    assert {link.context.trace_id for link in batch.links} == set(range(1, 1_001))
    assert len(harness.named("poll in")[0].links) == 1_000


def test_an_unsampled_contact_has_no_span_and_keeps_its_headers(harness: Harness) -> None:
    unsampled = TraceContext(5, 6, 0)
    record = harness.read(1, unsampled.headers)
    harness.ask(request_about(record), Answered(EXCHANGE, []))
    headers = harness.tracer.sending(record, "out", unsampled.headers)
    harness.tracer.committing()
    harness.tracer.committed([scored(record)])
    assert headers == unsampled.headers
    assert harness.names == []


def test_the_sampler_decides_where_no_trace_came_along() -> None:
    harness = Harness(Sampling("parentbased_traceidratio", 0.0))
    record = harness.read(1, [])
    headers = harness.tracer.sending(record, "out", [])
    harness.tracer.committed([scored(record)])
    context = context_of(headers)
    assert context is not None
    assert not context.sampled
    assert harness.names == []

    traced = harness.read(2, PRODUCED.headers)
    harness.ask(request_about(traced), Answered(EXCHANGE, []))
    harness.tracer.sending(traced, "out", [])
    harness.tracer.committed([scored(traced)])
    assert sorted(harness.names) == ["POST", "commit in", "poll in", "process in", "process in", "send out"]


@pytest.mark.parametrize(
    "value", [b"nonsense", b"00-0-0-01", b"\xff" * 55, b"00-%032x-%016x-01" % (0, 1), b"00-%032x-%016x-01" % (1, 0)]
)
def test_an_invalid_header_starts_a_new_trace(harness: Harness, value: bytes) -> None:
    record = harness.read(1, [("traceparent", value)])
    headers = harness.tracer.sending(record, "out", [("traceparent", value)])
    harness.tracer.committed([scored(record)])
    [process] = harness.named("process in")
    context = context_of(headers)
    assert process.parent is None
    assert context is not None
    assert context.trace_id == process.context.trace_id


def test_a_token_turned_away_is_an_attempt_of_its_own(harness: Harness) -> None:
    record = harness.read(1, [])
    answer = Answered(replace(EXCHANGE, earlier=replace(EXCHANGE, status=401)), [])
    harness.ask(request_about(record), answer)
    first, second = harness.named("POST")
    assert attributes(first)["http.response.status_code"] == 401
    assert attributes(second)["http.request.resend_count"] == 1


def test_a_failure_of_the_login_service_has_its_server_address(harness: Harness) -> None:
    record = harness.read(1, [])
    answer = Unavailable(replace(EXCHANGE, status=None), HttpFailure.NO_TOKEN, "no token")
    harness.ask(request_about(record), answer)
    [post] = harness.named("POST")
    assert attributes(post)["server.address"] == "login.example.com"
    assert attributes(post)["server.port"] == 8443
    assert attributes(post)["error.type"] == "no_token"


def test_a_record_published_again_after_an_abort_has_two_spans(harness: Harness) -> None:
    record = harness.read(1, PRODUCED.headers)
    looked = harness.tracer.sending(record, "out", [])
    assert harness.tracer.sending(record, "out", []) == looked  # only encoded again
    first = context_of(looked)
    harness.tracer.committing()
    second = context_of(harness.tracer.sending(record, "out", []))
    harness.tracer.committed([scored(record)])
    aborted, sent = harness.named("send out")
    assert first is not None
    assert second is not None
    assert (aborted.context.span_id, sent.context.span_id) == (first.span_id, second.span_id)
    assert aborted.status.status_code is StatusCode.ERROR
    assert sent.status.status_code is StatusCode.UNSET


def test_a_commit_with_a_lost_response_has_its_span_once_it_is_resolved(harness: Harness) -> None:
    done, not_done = harness.read(1, []), harness.read(2, [])
    for record in (done, not_done):
        harness.tracer.sending(record, "out", [])
    harness.tracer.committing()
    harness.tracer.committed([scored(done)])
    assert len(harness.named("send out")) == 1
    assert list(harness.tracer._contacts) == [("in", 3, 2)]


def test_bursts_reach_the_exporter_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit ends thousands of spans at once: the SDK's default queue drops most of them."""
    exporter = InMemorySpanExporter()
    monkeypatch.setattr("opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter", lambda: exporter)
    tracer = ScoringTracer(
        make_spans(TraceValues(frozenset({"otlp"})), "s", "i"),
        topic="in",
        group="g",
        api_url="http://a",
        login_url="http://a",
    )
    records = [SourceRecord("in", 0, n, None, b"v", []) for n in range(8_000)]
    tracer.polled(records)
    for record in records:
        tracer.sending(record, "out", [])
    tracer.committed([scored(record) for record in records])
    tracer.close()
    assert len(exporter.get_finished_spans()) == 2 * len(records) + 2
    commit = next(span for span in exporter.get_finished_spans() if span.name == "commit in")
    assert len(commit.links) == len(records)


def test_a_rejection_has_its_reason(harness: Harness) -> None:
    record = harness.read(1, [])
    harness.tracer.sending(record, "rejected", [])
    harness.tracer.committed([Rejected(record, ("undecodable",), "it is no Avro", "", 1)])
    [process] = harness.named("process in")
    assert attributes(process)["stream_scorer.outcome"] == "rejected"
    assert attributes(process)["stream_scorer.reasons"] == ("undecodable",)


def test_a_deferral_ends_the_trace_of_its_contact(harness: Harness) -> None:
    record = harness.read(1, PRODUCED.headers)
    harness.tracer.sending(record, "retry-1", [])
    harness.tracer.committed([Deferred(record, "c", rounds=1, level=1, not_before_ms=0)])
    [process] = harness.named("process in")
    assert attributes(process)["stream_scorer.outcome"] == "deferred"
    assert not harness.tracer._contacts


def test_nothing_is_kept_of_what_goes_elsewhere(harness: Harness) -> None:
    kept, gone = harness.read(1, []), SourceRecord("in", 4, 1, None, b"v", [])
    harness.tracer.polled([gone])
    harness.tracer.response_received(request_about(kept, gone), Unavailable(EXCHANGE, HttpFailure.TIMEOUT, "t"))
    harness.tracer.revoked([Partition("in", 4)])
    harness.tracer.committed([scored(kept), scored(gone)])
    assert len(harness.tracer._contacts) == 0
    outcomes = {attributes(span).get("stream_scorer.outcome") for span in harness.named("process in")}
    assert outcomes == {"given up", "scored"}
    harness.tracer.close()
    assert any("stream_scorer.batch_id" in attributes(span) for span in harness.named("process in"))


def test_log_lines_have_the_trace_of_the_attempt(harness: Harness) -> None:
    record = harness.read(1, PRODUCED.headers)
    first = harness.tracer.response_received(request_about(record), Unavailable(EXCHANGE, HttpFailure.TIMEOUT, "t"))
    second = harness.ask(request_about(record), Answered(EXCHANGE, []))
    [batch] = [span for span in harness.named("process in") if span.parent is None]
    assert first == second == f"{batch.context.trace_id:032x}"
    assert {span.context.trace_id for span in harness.named("POST")} == {batch.context.trace_id}
    unsampled = harness.read(2, TraceContext(5, 6, 0).headers)
    assert harness.ask(request_about(unsampled), Answered(EXCHANGE, [])) is None
