"""Contacts that retention deleted before they were read: the repair of the page, and a permanent finding."""

from __future__ import annotations

import re
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from callbacks_harness import PARTITIONS
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]
from scoring_harness import contact, contacts

from stream_scorer.core.exactly_once.commit_metadata import parse_metadata
from stream_scorer.core.reconciliation.score_report import FindingKind
from stream_scorer.reconciliation import reconcile, reconcile_callbacks
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

pytestmark = pytest.mark.kafka

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def repair(stage: WorkerHarness, oldest: int) -> None:
    """Run the lines of the page with the names of this harness."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Offsets gone\n", 1)[1].split("\n## ", 1)[0]
    [block] = re.findall(r"^ *```python\n(.*?)^ *```", section, re.DOTALL | re.MULTILINE)
    lines = textwrap.dedent(block)
    names = '"stream-scorer", "contact-features", 2, 147'
    assert names in lines
    lines = lines.replace(names, f'"{stage.group_id}", "{stage.topics["features"]}", 0, {oldest}')
    exec(lines.replace("kafka-1:9092", stage.bootstrap_servers), {})  # noqa: S102 - our own page


def test_lost_contacts_stay_a_finding_after_the_repair(make_stage: Callable[..., WorkerHarness]) -> None:
    stage = make_stage(partitions=1)
    features = stage.topics["features"]
    stage.produce([contact(f"before{number}", 0) for number in range(6)])
    worker = stage.start_ready("--from", "earliest")
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    stage.produce([contact(f"lost{number}", 0) for number in range(4)])
    admin = AdminClient(stage._client)
    [deleted] = admin.delete_records([TopicPartition(features, 0, 9)]).values()
    deleted.result(30)
    settings = load_settings(environ=stage.settings())
    report = reconcile(settings)
    assert report.counts == {FindingKind.LOST: 1}
    assert (report.findings[0].source, report.totals.lost) == (f"{features}/0/6", 3)
    repair(stage, 9)
    stage.produce([contact(f"after{number}", 0) for number in range(2)])
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    commit = stage.commits()[0]
    metadata = parse_metadata(commit.metadata)
    assert (commit.offset, metadata.start, metadata.others) == (12, 0, (("lost", "6-9"),))
    repaired = reconcile(settings)
    assert repaired.findings == report.findings
    assert (repaired.totals.inputs, repaired.totals.missing, repaired.totals.lost) == (3, 0, 3)


def test_topics_emptied_by_retention_stop_no_worker(
    make_stage: Callable[..., WorkerHarness], make_campaign: Callable[..., CallbacksHarness]
) -> None:
    """A transaction marker follows its records: a commit before it was below the first offset of an empty log.

    After a week without a score the next campaign worker ended with `Offsets gone`, and `reconcile` found lost offsets.
    """
    stage, campaign = make_stage(partitions=PARTITIONS), make_campaign({"STREAM_SCORER_CALLBACKS__TARGET": "log"})
    campaign.topics["scores"], campaign.group_id = stage.topics["scores"], stage.group_id
    campaign.environment["STREAM_SCORER_CALLBACKS__THRESHOLD"] = "0"
    producer = Producer({"bootstrap.servers": stage.bootstrap_servers, "transactional.id": stage.group_id})
    producer.init_transactions(30)
    producer.begin_transaction()
    for one in contacts(40, PARTITIONS):
        producer.produce(stage.topics["features"], one.value, one.key, one.partition)
    producer.commit_transaction(30)
    worker, caller = stage.start_ready(), campaign.start()
    stage.wait_done(needs=worker)
    campaign.wait_receipts(len(campaign.read("scores")), needs=caller)
    time.sleep(3.0)  # the commits of quiet partitions are moved behind the markers after 2 s
    assert worker.stop() == 0
    assert caller.stop() == 0
    for kind, topic in (*stage.topics.items(), *campaign.topics.items()):
        if kind != "callbacks_retry":
            empty(stage, topic)

    settings = load_settings(
        environ={
            **stage.settings(),
            **{f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in campaign.topics.items()},
            "STREAM_SCORER_CALLBACKS__THRESHOLD": "0",
        }
    )
    report, callbacks = reconcile(settings), reconcile_callbacks(settings)
    assert report.counts == {}
    assert callbacks is not None
    assert callbacks.violations == {}
    worker, caller = stage.start_ready(), campaign.start()
    stage.produce(contacts(4, PARTITIONS, prefix="late"))
    stage.wait_done(needs=worker)

    def is_called() -> bool:
        report = reconcile_callbacks(settings)
        return report is not None and report.counts.delivered >= 1

    campaign.wait(is_called, "a late contact to be called", needs=caller)
    assert worker.stop() == 0
    assert caller.stop() == 0


def empty(stage: WorkerHarness, topic: str) -> None:
    """Delete all records of a topic, as retention does."""
    admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers})
    for deleted in admin.delete_records([TopicPartition(topic, number, -1) for number in range(PARTITIONS)]).values():
        deleted.result(30)
