"""One contact's way through real services, as a real OTLP receiver finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support_arena import contacts
from support_dashboards import not_told
from support_otlp import OtlpReceiver
from support_worker import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support_campaign import CampaignStage
    from support_otlp import ReceivedSpan
    from support_worker import Stage

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka

CONTACTS = 60


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


def one(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    [found] = [span for span in spans if span.name == name]
    return found


def test_a_contact_is_seen_from_its_producer_to_its_callback(
    otlp: OtlpReceiver,
    make_stage: Callable[..., Stage],
    make_campaign: Callable[..., CampaignStage],
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    asked = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.endpoint,
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    stage = make_stage(partitions=2)
    campaign = make_campaign({**receiver.environment(), **asked})
    campaign.topics["scores"] = stage.topics["scores"]
    campaign.group_id = stage.group_id
    stage.simulator.add_fault(status=503, times=1)
    file = tmp_path / "contacts.jsonl"
    file.write_text(
        "".join(f'{{"contactId":"contact-{n}","features":{{"previous_calls":{n}}}}}\n' for n in range(CONTACTS))
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
    stage.changes |= asked
    scorer = stage.start()
    stage.wait_done(needs=scorer)
    called = campaign.start(name="campaign")
    campaign.wait(lambda: [span for span in otlp.spans if span.name == "callback"], "a callback span", needs=called)
    campaign.wait(lambda: otlp.spans and campaign.judge(), "receipts", needs=called)
    # Here, since both services are at work together: what dashboard and alerts ask for is what they tell.
    scraped = [answer.text for answer in (scorer.admin("/metrics"), called.admin("/metrics")) if answer is not None]
    assert len(scraped) == 2
    assert not_told(scraped) == []
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

    # What nobody may find in a trace.
    for secret in (
        stage.simulator.environment()["STREAM_SCORER_GENESYS__CLIENT_SECRET"],
        receiver.config.secret,
        "Bearer",
        "contact-",
    ):
        assert secret.encode() not in otlp.bytes


def test_a_collector_that_is_away_disturbs_nobody(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(partitions=1)
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    stage.produce(contacts(200, 1))
    stage.changes |= asked
    worker = stage.start()
    stage.wait_done(needs=worker)
    assert worker.stop() == 0, worker.log()
    assert worker.log().count("127.0.0.1:1") <= 2
