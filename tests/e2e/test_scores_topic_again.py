"""A recreated scores topic: the same locations have other scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from callbacks_harness import PARTITIONS, score
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewTopic
from scoring_harness import wait_until

from stream_scorer.errors import CheckFailed
from stream_scorer.reconciliation import reconcile_callbacks
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness

    from stream_scorer.local.receiver import Receiver
    from stream_scorer.settings import Settings

pytestmark = pytest.mark.kafka


def settings_of(stage: CallbacksHarness) -> Settings:
    return load_settings(
        environ={
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": stage.bootstrap_servers,
            "STREAM_SCORER_KAFKA__GROUP_ID": stage.group_id,
            **{f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in stage.topics.items()},
        }
    )


def replace_topic(stage: CallbacksHarness, topic: str) -> None:
    """Delete a topic and create it again."""
    admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers})
    admin.delete_topics([topic], operation_timeout=30)[topic].result(30)

    def is_created() -> bool:
        [future] = admin.create_topics([NewTopic(topic, PARTITIONS, 1)], operation_timeout=30).values()
        return future.exception(30) is None  # the topic exists until the deletion has reached the broker

    wait_until(is_created, f"topic {topic} to be created again")


def test_new_scores_in_the_places_of_former_ones_are_called(
    make_campaign: Callable[..., CallbacksHarness], receiver: Receiver
) -> None:
    """Formerly their callbacks had the ids of former ones, which receivers drop and `reconcile` confused."""
    stage = make_campaign(receiver.environment())
    receiver.add_fault(campaign_id="later", status=503, times=None)
    # The same contact: the same partition and offset in both topics.
    stage.put([score("a", event_id="before"), score("b", event_id="before", campaign_id="later")])
    worker = stage.start(callbacks__max_contacts="1")
    stage.wait_receipts(1, needs=worker)
    stage.wait(lambda: stage.read(stage.tier(1)), "the other callback to wait", needs=worker)
    replace_topic(stage, stage.topics["scores"])
    assert worker.exit_code() == 1, worker.log()
    receiver.clear_faults()

    stage.put([score("a", event_id="after"), score("b", event_id="after", campaign_id="later")])
    worker = stage.start("--new-topic", "--from", "earliest", callbacks__max_contacts="1")
    stage.wait_receipts(4, needs=worker)
    assert worker.stop() == 0
    receipts = stage.receipts()
    assert len({receipt["callback_id"] for receipt in receipts}) == 4
    assert len({source for receipt in receipts for source in receipt["sources"]}) == 2
    assert receiver.stats().callbacks == 4
    report = reconcile_callbacks(settings_of(stage))
    assert report is not None
    assert report.is_balanced, report.findings
    assert (report.before, report.counts.delivered) == (2, 2)


def test_commits_of_a_former_scores_topic_are_no_evidence(
    make_campaign: Callable[..., CallbacksHarness], receiver: Receiver
) -> None:
    stage = make_campaign(receiver.environment())
    stage.put(score(f"c{n}") for n in range(4))
    worker = stage.start()
    stage.wait_receipts(4, needs=worker)
    assert worker.stop() == 0
    with Consumer({"bootstrap.servers": stage.bootstrap_servers, "group.id": f"{stage.group_id}-callbacks"}) as group:
        places = [
            TopicPartition(stage.topics["scores"], number, 2, "start=0;topic=former") for number in range(PARTITIONS)
        ]
        group.commit(offsets=places, asynchronous=False)
    with pytest.raises(CheckFailed, match=r"was deleted and created again.*\(id former\)"):
        reconcile_callbacks(settings_of(stage))


def test_commits_on_a_former_callbacks_topic_do_not_apply_to_the_present_one(
    make_campaign: Callable[..., CallbacksHarness], receiver: Receiver
) -> None:
    """Pending callbacks of a recreated topic are read from its first record; formerly they counted as missing."""
    stage = make_campaign(receiver.environment())
    receiver.add_fault(status=503, times=None)
    stage.put([score("a"), score("b")])
    worker = stage.start(callbacks__retry_delays_s="[60, 60, 60, 60]")
    stage.wait(lambda: stage.read(stage.tier(1)), "the callback to wait", needs=worker)
    assert worker.stop() == 0
    with Consumer(
        {"bootstrap.servers": stage.bootstrap_servers, "group.id": f"{stage.group_id}-callbacks-delivery"}
    ) as group:
        places = [TopicPartition(stage.tier(1), number, 1, "start=0;topic=former") for number in range(PARTITIONS)]
        group.commit(offsets=places, asynchronous=False)
    report = reconcile_callbacks(settings_of(stage))
    assert report is not None
    assert report.is_balanced, report.findings
    assert report.counts.waiting == 2
