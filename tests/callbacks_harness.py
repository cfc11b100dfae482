"""Harness of the campaign worker: topics and a group of its own, scores to produce, callbacks and receipts to read.

As in `scoring_harness`, values are encoded with plain fastavro and topics read with plain confluent_kafka.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kafka_fixture import make_topics
from scoring_harness import PATIENCE_S, Avro
from worker_harness import QUICK_PROPERTIES, WorkerProcess, wait_with_worker

from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from kafka_fixture import Broker

SCORE = Avro("contact-score.avsc")
CALLBACK = Avro("campaign-callback.avsc")
RECEIPT = Avro("callback-receipt.avsc")
THRESHOLD = 0.75
PARTITIONS = 2
QUICK = {
    "STREAM_SCORER_KAFKA__PROPERTIES": json.dumps(QUICK_PROPERTIES),
    "STREAM_SCORER_SCORING__COMMIT_INTERVAL_MS": "50",
    "STREAM_SCORER_CALLBACKS__LINGER_MS": "50",
    "STREAM_SCORER_CALLBACKS__PROBE_INTERVAL_S": "0.3",
    "STREAM_SCORER_CALLBACKS__RETRY_DELAYS_S": "[0.5, 1, 2, 4]",
}


def score(contact_id: str, value: float = 0.9, **changes: Any) -> dict[str, Any]:
    """A good ``ContactScore``, scored just now."""
    now_ms = int(time.time() * 1000)
    return {
        "event_id": f"event-{contact_id}",
        "contact_id": contact_id,
        "campaign_id": "spring",
        "model_id": "m",
        "model_version": None,
        "score": value,
        "confidence_lower": 0.4,
        "confidence_upper": 0.95,
        "latency_ms": 12.5,
        "occurred_at": now_ms - 1000,
        "scored_at": now_ms,
        "imputed_features": [],
        "batch_id": "batch",
        "review_reasons": [],
        "attributes": {},
        **changes,
    }


@dataclass(frozen=True, slots=True)
class Read:
    """A record as read with ``read_committed``."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes | None]


class CallbacksHarness:
    """Topics, and workers that read and write them."""

    def __init__(self, bootstrap_servers: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.folder = folder
        self.environment = dict(environment)
        name = uuid.uuid4().hex[:10]
        self.group_id = f"group-{name}"
        kinds = ("scores", "callbacks", "callbacks_retry", "callbacks_rejected", "receipts")
        self.topics = {kind: f"{kind}-{name}" for kind in kinds}
        self.workers: list[WorkerProcess] = []
        self._client: dict[str, Any] = {"bootstrap.servers": bootstrap_servers, "log_level": 0}
        admin = AdminClient(self._client)
        make_topics(admin, [NewTopic(topic, PARTITIONS, 1) for topic in self._all_topics()])
        self._producer = Producer({**self._client, "linger.ms": 5})

    def _all_topics(self) -> list[str]:
        retries = [f"{self.topics['callbacks_retry']}-{tier}" for tier in range(1, 5)]
        return [topic for kind, topic in self.topics.items() if kind != "callbacks_retry"] + retries

    def make_topic(self, kind: str) -> str:
        """Create one more topic of this harness; return its name."""
        topic = f"{kind}-{self.group_id}"
        admin = AdminClient(self._client)
        admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
        return topic

    def tier(self, number: int) -> str:
        return f"{self.topics['callbacks_retry']}-{number}"

    # --- in

    def put(self, scores: Iterable[Mapping[str, Any]]) -> int:
        """Produce scores to their topic; return the number."""
        values = [(str(one["contact_id"]).encode(), SCORE.encode(one)) for one in scores]
        return self.put_values("scores", values)

    def put_values(
        self,
        kind: str,
        values: Iterable[tuple[bytes | None, bytes | None]],
        headers: Mapping[str, bytes | None] | None = None,
    ) -> int:
        given: Any = list((headers or {}).items())
        topic, number = self.topics.get(kind, kind), 0
        for key, value in values:
            self._producer.produce(topic, value, key, headers=given)
            number += 1
            if number % 1000 == 0:
                self._producer.poll(0)
        assert self._producer.flush(PATIENCE_S) == 0
        return number

    def commit_by_hand(self, group_id: str, kind: str, offset: int) -> None:
        """Set the commits of a group without members, as an operator does with Kafka's tools."""
        with Consumer({**self._client, "group.id": group_id}) as consumer:
            places = [TopicPartition(self.topics[kind], number, offset) for number in range(PARTITIONS)]
            consumer.commit(offsets=places, asynchronous=False)

    def settings(self) -> dict[str, str]:
        """Return the environment of every worker of this harness."""
        return {
            **QUICK,
            **self.environment,
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "STREAM_SCORER_KAFKA__GROUP_ID": self.group_id,
            **{f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in self.topics.items()},
        }

    def start(self, *arguments: str, name: str | None = None, **changes: str | None) -> WorkerProcess:
        """Start a campaign worker; ``changes`` as in `WorkerHarness.start`."""
        port = free_port()
        settings: dict[str, str | None] = {
            **self.settings(),
            "STREAM_SCORER_CALLBACKS__ADMIN_PORT": str(port),
            **({"STREAM_SCORER_KAFKA__INSTANCE_ID": name} if name is not None else {}),
            **{f"STREAM_SCORER_{key.upper()}": value for key, value in changes.items()},
        }
        given = {key: value for key, value in settings.items() if value is not None}
        log_file = self.folder / f"callbacks-{len(self.workers)}.log"
        self.workers.append(WorkerProcess(given, arguments, log_file, port, command="callbacks"))
        return self.workers[-1]

    def kill_all(self) -> None:
        for worker in self.workers:
            if worker.running:
                worker.kill()

    # --- out

    def reader(self) -> Consumer:
        """A consumer that joins no group and stores no offset; a context manager."""
        config = {
            **self._client,
            "group.id": f"reader-{uuid.uuid4().hex}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            # For a topic whose first records are deleted; OFFSET_BEGINNING would delay a new client by 0.5 s.
            "auto.offset.reset": "earliest",
        }
        return Consumer(config)

    def read(self, kind: str) -> list[Read]:
        """Return all records of a topic, read with ``read_committed``."""
        topic = self.topics.get(kind, kind)
        found: list[Read] = []
        ended: set[int] = set()
        with self.reader() as reader:
            reader.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
            deadline = time.monotonic() + PATIENCE_S
            while len(ended) < PARTITIONS:
                assert time.monotonic() < deadline, f"cannot read {topic}"
                # `consume` would wait its whole time-out for more records, and most tests read repeatedly.
                message = reader.poll(0.2)
                if message is None:
                    continue
                if message.error() is not None:
                    ended.add(message.partition())
                    continue
                headers: dict[str, Any] = dict(message.headers() or [])
                found.append(Read(message.partition(), message.offset(), message.key(), message.value(), headers))
        return found

    def receipts(self) -> list[dict[str, Any]]:
        """Return every receipt."""
        return [RECEIPT.decode(one.value) for one in self.read("receipts")]

    def callbacks(self) -> list[dict[str, Any]]:
        """Return every planned callback."""
        return [CALLBACK.decode(one.value) for one in self.read("callbacks")]

    def wait(
        self,
        condition: Callable[[], Any],
        what: str,
        *,
        needs: WorkerProcess | None = None,
        limit_s: float = PATIENCE_S,
    ) -> Any:
        """See `wait_with_worker`."""
        return wait_with_worker(condition, what, self.last_words, needs, limit_s)

    def wait_receipts(self, contacts: int, *, needs: WorkerProcess | None = None, limit_s: float = PATIENCE_S) -> None:
        """Wait until so many contacts have a receipt."""

        def there() -> bool:
            return sum(len(receipt["contact_ids"]) for receipt in self.receipts()) >= contacts

        self.wait(there, f"receipts about {contacts} contacts", needs=needs, limit_s=limit_s)

    def last_words(self) -> str:
        """Return the end of every worker's log."""
        return "\n".join("\n".join(worker.log().splitlines()[-20:]) for worker in self.workers)

    def verify_receipts(self) -> Counter[str]:
        """Assert one receipt for each score at or over the threshold and none for others; count the outcomes."""
        scores = self.read("scores")
        wanted = set()
        for one in scores:
            try:
                fields = SCORE.decode(one.value)
            except AssertionError:
                continue  # not a ContactScore
            if fields["score"] >= THRESHOLD and not fields["review_reasons"]:
                wanted.add(f"{self.topics['scores']}/{one.partition}/{one.offset}")
        receipts = self.receipts()
        found = Counter(source for receipt in receipts for source in receipt["sources"])
        assert not wanted - found.keys(), f"without a receipt: {sorted(wanted - found.keys())[:5]}"
        assert not found.keys() - wanted, f"with a receipt that is not due: {sorted(found.keys() - wanted)[:5]}"
        doubled = [source for source, times in found.items() if times > 1]
        assert not doubled, f"with several receipts: {doubled[:5]}"
        planned = Counter(source for callback in self.callbacks() for source in callback["sources"])
        assert max(planned.values(), default=1) == 1, "a score was planned twice"
        outcomes: Counter[str] = Counter()
        for receipt in receipts:
            outcomes[receipt["outcome"]] += len(receipt["contact_ids"])
        return outcomes


@pytest.fixture
def make_campaign(broker: Broker, tmp_path: Path) -> Iterator[Callable[..., CallbacksHarness]]:
    """Create harnesses on the shared broker; the environment selects the target."""
    made: list[CallbacksHarness] = []

    def make(environment: Mapping[str, str]) -> CallbacksHarness:
        made.append(CallbacksHarness(broker.bootstrap_servers, tmp_path, environment))
        return made[-1]

    yield make
    for stage in made:
        stage.kill_all()
