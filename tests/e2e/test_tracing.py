"""Traces of one contact through real services, read with a real OTLP receiver."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from scoring_harness import contacts
from support_dashboards import assert_exported, missing_series
from support_otlp import OtlpReceiver
from worker_harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from callbacks_harness import CallbacksHarness
    from support_otlp import ReceivedSpan
    from worker_harness import Answer, WorkerHarness, WorkerProcess

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka

CONTACTS = 60
# Feature values of contacts, one of them of the wrong type.
HUSH = ["hush-segment", "hush-wrong", "918273.645"]
LIKE_THIS = '"avg_handle_time":918273.645,"segment_id":"hush-segment"'


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


def one(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    [found] = [span for span in spans if span.name == name]
    return found


def produce_contacts(stage: WorkerHarness, asked: dict[str, str], tmp_path: Path) -> str:
    """Put contacts on the features topic as an operator does, and return what was said."""
    file = tmp_path / "contacts.jsonl"
    file.write_text(
        "".join(
            f'{{"contactId":"contact-{n}","features":{{"previous_calls":{calls},{LIKE_THIS}}}}}\n'
            for n, calls in enumerate([*range(CONTACTS), '"hush-wrong"'])
        )
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_", "GENESYS_"))}
    produced = subprocess.run(
        [sys.executable, "-m", "stream_scorer", "produce", str(file)],
        env={**environment, **stage.settings(), **asked, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert produced.returncode == 0, produced.stderr
    return produced.stdout + produced.stderr


def assert_no_leak_in_topics(stage: WorkerHarness, campaign: CallbacksHarness) -> None:
    """No output has them in headers or value, except the unchanged value of a rejected record."""
    hushed = [*(word.encode() for word in HUSH), struct.pack("<d", 918273.645)]
    topics = {**stage.topics, **campaign.topics, "callbacks_retry": campaign.tier(1)}
    del topics["features"]
    for kind, topic in topics.items():
        for record in campaign.read(topic):
            found = {word for word in hushed if word in (record.value or b"")}
            assert found == (set(hushed) - {b"918273.645"} if kind == "rejected" else set()), topic
            assert [word for word in hushed if any(word in (value or b"") for value in record.headers.values())] == []


def assert_no_leak(words: list[str], otlp: OtlpReceiver, scorer: WorkerProcess, called: WorkerProcess) -> None:
    """Assert that traces, metrics and log lines at the default level have none of them."""
    logs = scorer.log() + called.log()
    assert '"level":"info"' in logs.replace(" ", "")
    assert [word for word in words if word.encode() in otlp.bytes] == []
    assert [word for word in [*words, "previous_calls", "avg_handle_time", "previousCalls"] if word in logs] == []


def complete_metrics(*services: WorkerProcess) -> list[Answer] | None:
    """Their metrics once complete: a commit is visible to others before its worker has counted it."""
    answers = [answer for service in services if (answer := service.admin("/metrics")) is not None]
    return None if missing_series([answer.text for answer in answers]) else answers


def test_a_contact_is_seen_from_its_producer_to_its_callback(
    otlp: OtlpReceiver,
    make_stage: Callable[..., WorkerHarness],
    make_campaign: Callable[..., CallbacksHarness],
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    asked = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    stage = make_stage(partitions=2)
    campaign = make_campaign({**receiver.environment(), **asked})
    campaign.topics["scores"] = stage.topics["scores"]
    campaign.group_id = stage.group_id
    stage.simulator.add_fault(status=503, times=1, min_contacts=1)
    produced = produce_contacts(stage, asked, tmp_path)
    stage.changes |= asked
    scorer = stage.start()
    stage.wait_done(needs=scorer)
    called = campaign.start(name="campaign")
    campaign.wait(lambda: [span for span in otlp.spans if span.name == "callback"], "a callback span", needs=called)
    campaign.wait(lambda: otlp.spans and campaign.verify_receipts(), "receipts", needs=called)

    # Here, since both services run together: the dashboard and the alerts use only metrics that are exported.
    metrics = campaign.wait(
        partial(complete_metrics, scorer, called), "all metrics of dashboard and rules", needs=called
    )
    assert_exported(*metrics)
    assert [word for word in HUSH if word in f"{metrics}{produced}"] == []
    assert (scorer.stop(), called.stop()) == (0, 0), scorer.log() + called.log()

    features, scores, callbacks = stage.topics["features"], stage.topics["scores"], campaign.topics["callbacks"]
    callback = next(span for span in otlp.spans if span.name == "callback")
    own = otlp.of_trace(callback.trace)
    produce, process, send = (
        one(own, f"{verb} {topic}") for verb, topic in (("produce", features), ("process", features), ("send", scores))
    )
    assert len(own) == 4
    assert (produce.parent, process.parent, send.parent, callback.parent) == ("", produce.span, process.span, send.span)
    assert [produce.service, process.service, callback.service] == [
        "stream-scorer-produce",
        "stream-scorer",
        "stream-scorer-callbacks",
    ]

    by_span = {span.span: span for span in otlp.spans}
    batches = [by_span[link] for link in process.links]
    [batch] = [span for span in batches if span.name == f"process {features}"]
    assert process.span in batch.links
    attempts = [span for span in otlp.of_trace(batch.trace) if span.name == "POST"]
    assert all(span.parent == batch.span for span in attempts)
    assert batch.attributes["messaging.batch.message_count"] == len(batch.links)
    retried = [span for span in otlp.spans if span.attributes.get("http.request.resend_count") == 1]
    assert [span.attributes["http.response.status_code"] for span in retried] == [200]
    assert [span.failed for span in otlp.spans if span.attributes.get("http.response.status_code") == 503] == [True]

    [delivery] = [by_span[link] for link in callback.links]
    assert delivery.name == f"process {callbacks}"
    delivered = otlp.of_trace(delivery.trace)
    planned, request = one(delivered, f"send {callbacks}"), one(delivered, "POST")
    assert (delivery.parent, request.parent) == (planned.span, delivery.span)
    assert send.span in planned.links
    assert request.attributes["http.response.status_code"] == 200
    assert {span.name for span in otlp.spans} >= {f"poll {features}", f"commit {features}"}

    assert {
        ("stream-scorer", "stream_scorer.contacts"),
        ("stream-scorer", "http.client.request.duration"),
        ("stream-scorer-callbacks", "stream_scorer.callbacks.finished"),
    } <= otlp.metrics
    [failed] = scorer.said("scoring request failed")
    assert failed["trace_id"] in {span.trace for span in otlp.spans}
    assert all(failed[name] for name in ("batch_id", "correlation_id"))

    secret = stage.simulator.environment()["STREAM_SCORER_GENESYS__CLIENT_SECRET"]
    assert_no_leak([secret, receiver.config.secret, "Bearer", "contact-", *HUSH], otlp, scorer, called)
    assert_no_leak_in_topics(stage, campaign)


def test_an_unreachable_collector_does_not_affect_the_worker(make_stage: Callable[..., WorkerHarness]) -> None:
    stage = make_stage(partitions=1)
    asked = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }
    stage.produce(contacts(200, 1))
    stage.changes |= asked
    worker = stage.start()
    stage.wait_done(needs=worker)
    # One more worker than partitions: a spare, which is ready and reports that it has no partitions.
    spare = stage.start(name="spare")
    stage.wait(
        lambda: worker.said("no partitions assigned") or spare.said("no partitions assigned"), "a spare", needs=spare
    )
    stage.wait(lambda: worker.ready() and spare.ready(), "both to be ready", needs=spare)
    scrapes = [str(one.admin("/metrics")) for one in (worker, spare)]
    owned = [re.findall(r"stream_scorer_partitions_owned{[^}]*} ([0-9.]+)", text) for text in scrapes]
    assert sorted(owned) == [["0.0"], ["1.0"]]
    assert (spare.stop(), worker.stop()) == (0, 0), worker.log()
    assert worker.log().count("127.0.0.1:1") <= 4  # a line a minute of traces and one of metrics, and one at the end
