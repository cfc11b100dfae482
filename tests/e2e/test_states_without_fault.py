"""``reconcile`` on a real broker in more than 20 valid states: no findings in any of them.

One installation with a scoring and a campaign worker goes through all of them, one after the other.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]
from confluent_kafka.cimpl import NewPartitions, NewTopic
from scoring_harness import contact, contacts, wait_until

from stream_scorer.core.reconciliation.score_report import Judgement
from stream_scorer.reconciliation import reconcile, reconcile_callbacks
from stream_scorer.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness, WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

HOLDS, NOT_JUDGED = Judgement.HOLDS, Judgement.NOT_JUDGED
FIRST = 2


# Its name, and the results for contacts and for callbacks; None: not checked.
State = tuple[str, Judgement | None, Judgement | None]


class Installation:
    """Both workers on one set of topics; ``states`` moves it from one valid state to the next."""

    def __init__(self, stage: WorkerHarness, campaign: CallbacksHarness) -> None:
        self.stage, self.campaign = stage, campaign
        campaign.topics["scores"], campaign.group_id = stage.topics["scores"], stage.group_id
        self.environ = {
            **stage.settings(),
            **{f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in campaign.topics.items()},
            "STREAM_SCORER_CALLBACKS__THRESHOLD": "0.5",
        }
        campaign.environment |= {
            "STREAM_SCORER_CALLBACKS__TARGET": "log",
            "STREAM_SCORER_CALLBACKS__THRESHOLD": "0.5",
        }
        stage.changes |= {"STREAM_SCORER_SCORING__RETRY_DELAYS_S": "[600, 600]"}
        self._fed = 0
        self._admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers})
        self.worker = stage.start_ready("--from", "earliest", name="one")
        self.caller = self._start_caller()

    @property
    def settings(self) -> Settings:
        return load_settings(environ=self.environ)

    def topic(self, kind: str) -> str:
        return self.campaign.topics.get(kind) or self.stage.topics[kind]

    def feed(self, number: int) -> None:
        """Good contacts, and a bad one in every thirty."""
        self._fed += 1
        prefix, partitions = f"F{self._fed}", self.stage.partitions
        self.stage.produce(contacts(number, partitions, prefix))
        bad = (contact(f"{prefix}-bad-{n}", n % partitions, features={"age": 1}) for n in range(number // 30))
        self.stage.produce(bad)

    def settle(self) -> None:
        """Wait until everything is scored and all due callbacks are delivered."""
        self.stage.wait_done(needs=self.worker, may_wait=True)
        self.campaign.wait(self._is_called, "the campaign worker to have done all", needs=self.caller)

    def _is_called(self) -> bool:
        groups = {"scores": "callbacks", "callbacks": "callbacks-delivery"}
        return all(self._lag(f"{self.stage.group_id}-{group}", kind) <= 0 for kind, group in groups.items())

    def _lag(self, group_id: str, kind: str) -> int:
        """Return how many offsets a group has not committed; it also commits the markers at the end."""
        topic = self.topic(kind)
        with Consumer({"bootstrap.servers": self.stage.bootstrap_servers, "group.id": group_id}) as reader:
            numbers = reader.list_topics(topic, 10).topics[topic].partitions
            places = reader.committed([TopicPartition(topic, number) for number in numbers], 10)
            ends = [reader.get_watermark_offsets(place, 10, cached=False)[1] for place in places]
        return sum(end - max(place.offset, 0) for place, end in zip(places, ends, strict=True))

    def stop(self) -> None:
        assert self.worker.stop() == 0
        assert self.caller.stop() == 0

    def start(self) -> None:
        self.worker, self.caller = self.stage.start_ready(name="one"), self._start_caller()

    def _start_caller(self) -> WorkerProcess:
        caller = self.campaign.start("--from", "earliest", name="one")
        assigned = lambda: caller.owned(self.topic("callbacks"))  # noqa: E731
        self.campaign.wait(assigned, "the campaign worker to have partitions", needs=caller)
        return caller

    def delete(self, kind: str, share: float = 0.5) -> None:
        """Delete the first half of the records of each partition, or all of them, as retention does."""
        topic = self.topic(kind)
        wanted = []
        with self.stage.reader() as reader:
            for number in reader.list_topics(topic, 10).topics[topic].partitions:
                low, high = reader.get_watermark_offsets(TopicPartition(topic, number), 10, cached=False)
                wanted.append(TopicPartition(topic, number, low + round((high - low) * share)))
        for deleted in self._admin.delete_records(wanted).values():
            deleted.result(30)

    def write(self, kind: str, *, commit: bool | None = None) -> None:
        """Write a record of another program; ``commit``: how its transaction ends."""
        config: dict[str, Any] = {"bootstrap.servers": self.stage.bootstrap_servers}
        producer = Producer(config if commit is None else config | {"transactional.id": f"theirs-{time.time_ns()}"})
        if commit is not None:
            producer.init_transactions(30)
            producer.begin_transaction()
        producer.produce(self.topic(kind), b"theirs", b"theirs", 0)
        assert producer.flush(30) == 0
        if commit is not None:
            (producer.commit_transaction if commit else producer.abort_transaction)(30)

    def add_partition(self) -> None:
        topic, number = self.topic("features"), self.stage.partitions + 1
        for made in self._admin.create_partitions([NewPartitions(topic, number)]).values():
            made.result(30)
        self.stage.partitions = number
        known = lambda: len(self._admin.list_topics(topic, 10).topics[topic].partitions) == number  # noqa: E731
        wait_until(known, "the new partition")

    def compact(self, kind: str) -> None:
        """Compact a topic, and wait until the broker has removed records."""
        for name, value in {
            "segment.ms": "1000",
            "min.cleanable.dirty.ratio": "0.001",
            "max.compaction.lag.ms": "1000",
            "cleanup.policy": "compact",
        }.items():
            self.stage.set_config(kind, name, value)
        before = len(self.campaign.read(kind))
        time.sleep(1.5)
        self.feed(30)  # the active segment is rolled, and is never compacted itself
        self.settle()
        wait_until(lambda: len(self.campaign.read(kind)) < before, "the broker to compact", 150)

    def replace_features(self) -> None:
        topic = self.topic("features")
        self.stop()
        self._admin.delete_topics([topic], operation_timeout=30)[topic].result(30)

        def is_created() -> bool:
            [future] = self._admin.create_topics([NewTopic(topic, self.stage.partitions, 1)]).values()
            return future.exception(30) is None  # the topic exists until the deletion has reached the broker

        wait_until(is_created, f"topic {topic} to be created again")
        wait_until(lambda: self.stage.commits() == {}, "the commits of the former topic to be dropped")

    def states(self) -> Iterator[State]:
        """Go through all of them."""
        yield from self._at_work()
        yield from self._after_changes()
        yield from self._after_retention()
        yield from self._with_a_new_topic()

    def _at_work(self) -> Iterator[State]:
        yield "nothing fed yet", HOLDS, HOLDS
        self.feed(3_000)
        for number in range(3):
            yield f"workers at work, look {number}", HOLDS, HOLDS
        self.settle()
        yield "all is done", HOLDS, HOLDS
        self.stage.simulator.add_fault(contact_id="poison", status=400, times=None)
        self.stage.produce([contact("poison", 0), *contacts(60, self.stage.partitions, "P")])
        self.settle()
        yield "a contact waits in a retry topic", HOLDS, HOLDS
        self.feed(2_000)
        self.worker.kill()
        yield "the scoring worker is killed", HOLDS, HOLDS
        self.caller.kill()
        yield "both are killed", HOLDS, HOLDS
        self.start()
        yield "their successors are at work", HOLDS, HOLDS
        self.settle()
        yield "their successors are done", HOLDS, HOLDS

    def _after_changes(self) -> Iterator[State]:
        self.write("features", commit=False)
        self.write("scores", commit=False)
        yield "a transaction was aborted", HOLDS, HOLDS
        self.feed(60)  # behind the marker of the aborted inputs, which no commit covers
        self.write("scores")
        self.write("review", commit=True)
        self.settle()
        yield "another program's records on outputs", HOLDS, HOLDS
        self.add_partition()
        self.feed(300)
        self.settle()
        yield "a partition more", HOLDS, HOLDS
        self.environ["STREAM_SCORER_CALLBACKS__THRESHOLD"] = "0.9"
        yield "the threshold was raised", HOLDS, HOLDS
        self.environ["STREAM_SCORER_CALLBACKS__THRESHOLD"] = "0.3"
        yield "the threshold was lowered", HOLDS, NOT_JUDGED
        self.environ["STREAM_SCORER_CALLBACKS__THRESHOLD"] = "0.5"

    def _after_retention(self) -> Iterator[State]:
        for kind in ("callbacks", "callbacks_rejected"):
            self.delete(kind)
            yield f"retention has deleted half of {kind}", HOLDS, None
        for kind in ("review", "rejected", "receipts", "audit", "scores"):
            self.delete(kind)
            yield f"retention has deleted half of {kind}", NOT_JUDGED, None
        self.delete("features")
        yield "retention has deleted half of the inputs", None, None
        self.feed(300)
        self.settle()
        yield "more was scored since", None, None
        for kind in ("scores", "review", "rejected", "audit", "receipts"):
            self.delete(kind, 1.0)
        yield "retention has deleted all outputs", NOT_JUDGED, None
        self.stop()
        self.start()
        yield "workers were started beside empty topics", NOT_JUDGED, None

    def _with_a_new_topic(self) -> Iterator[State]:
        self.replace_features()
        self.stage.produce(contacts(300, self.stage.partitions, "F1"))  # known contacts in the places of former ones
        self.worker = self.stage.start_ready("--new-topic", "--from", "earliest", name="one")
        self.caller = self._start_caller()
        yield "a new topic, workers at work", None, None
        self.settle()
        yield "a new topic, all is done", None, None
        self.feed(30)
        self.stage.produce(contacts(300, self.stage.partitions, "F1"))  # so that there is something to compact
        self.settle()
        self.compact("scores")
        yield "the scores topic was compacted", NOT_JUDGED, None


def test_no_findings_in_valid_states(
    make_stage: Callable[..., WorkerHarness], make_campaign: Callable[..., CallbacksHarness]
) -> None:
    site = Installation(make_stage(partitions=FIRST), make_campaign({}))
    names = []
    for name, contacts_judged, callbacks_judged in site.states():
        report, callbacks = reconcile(site.settings), reconcile_callbacks(site.settings)
        assert report.counts == {}, f"{name}: {report.findings[:3]}"
        assert callbacks is not None, name
        assert callbacks.violations == {}, f"{name}: {callbacks.findings[:3]}"
        assert contacts_judged in (None, report.judgement), f"{name}: {report.verdict}"
        assert callbacks_judged in (None, callbacks.judgement), f"{name}: {callbacks.verdict}"
        names.append(name)
    assert len(names) >= 20
