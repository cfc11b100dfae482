"""docs/upgrade.md, executed literally: from the code before the last changes of 0.1.0 to the present one, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from scoring_harness import FEATURES, contacts, wait_until
from worker_harness import QUICK_PROPERTIES, ROOT, WorkerProcess

from stream_scorer.core.avro.codec import Codec
from stream_scorer.kafka.registry.serde import SingleObjectSerde
from stream_scorer.local.kafka.process import free_port
from stream_scorer.schema_files import SchemaFile, released_schemas

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kafka_fixture import Broker

    from stream_scorer.local.receiver import Receiver
    from stream_scorer.local.simulator import Simulator

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

# The code before retry topics, topic identity and roles in transactional ids.
FORMER = "7fa39dc"
KINDS = ("features", "scores", "review", "rejected", "audit")
CALLBACK_KINDS = ("callbacks", "callbacks_retry", "callbacks_rejected", "receipts")
PARTITIONS = 4
THRESHOLD = 0.75
OLD_FEATURES = Codec.single_object(released_schemas(SchemaFile.CONTACT_FEATURES)["v0.1.0"])
SCORES = SingleObjectSerde().reader(SchemaFile.CONTACT_SCORE)


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the former code, from this repository's history."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", FORMER], capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip("needs the history of this repository")
    folder = tmp_path_factory.mktemp("former")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


class Site:
    """An installation: topics, groups and workers, each with the code that it is started with."""

    def __init__(self, servers: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.servers, self.folder = servers, folder
        name = uuid.uuid4().hex[:10]
        self.topics = {kind: f"{kind}-{name}" for kind in (*KINDS, *CALLBACK_KINDS)}
        self.workers: list[WorkerProcess] = []
        self.put = 0
        self.settings = {
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": servers,
            "STREAM_SCORER_KAFKA__GROUP_ID": f"group-{name}",
            "STREAM_SCORER_KAFKA__PROPERTIES": json.dumps(QUICK_PROPERTIES),
            "STREAM_SCORER_GENESYS__REQUESTS_PER_MINUTE": "100000",
            "STREAM_SCORER_SCORING__MAX_CONTACTS": "50",
            **{f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in self.topics.items()},
            **environment,
        }
        self.new_settings = {"STREAM_SCORER_TOPICS__FEATURES_RETRY": f"features-retry-{name}"}

    def _environment(self, code: Path) -> dict[str, str]:
        return {
            **self.settings,
            **(self.new_settings if code == ROOT else {}),
            "PYTHONPATH": str(code),
            "PYTHONSAFEPATH": "1",
        }

    def command(self, code: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))}
        line = [sys.executable, "-m", "stream_scorer", *arguments]
        environment = {**kept, **self._environment(code)}
        return subprocess.run(line, env=environment, cwd=self.folder, capture_output=True, text=True, check=False)

    def done(self, *arguments: str) -> str:
        """Run a command of the present version that has to succeed."""
        ended = self.command(ROOT, *arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def start(self, code: Path, name: str, command: str = "run") -> WorkerProcess:
        port = free_port()
        key = "STREAM_SCORER_ADMIN__PORT" if command == "run" else "STREAM_SCORER_CALLBACKS__ADMIN_PORT"
        named = {"STREAM_SCORER_KAFKA__INSTANCE_ID": name, key: str(port)}
        log = self.folder / f"{len(self.workers)}-{name}.log"
        worker = WorkerProcess({**self._environment(code), **named}, [], log, port, command)
        self.workers.append(worker)
        wait_until(lambda: worker.ready() or not worker.running, lambda: f"{name} to be ready\n{worker.log()}")
        assert worker.running, worker.log()
        return worker

    def feed(self, number: int, writer: Any = OLD_FEATURES) -> None:
        """Produce contacts as a producer of the former version does, or of another one."""
        producer = Producer({"bootstrap.servers": self.servers, "linger.ms": 5})
        for one in contacts(number, PARTITIONS, prefix=f"F{self.put}"):
            producer.produce(self.topics["features"], writer.encode(FEATURES.decode(one.value)), one.key)
        assert producer.flush(60) == 0
        self.put += number

    def read(self, kind: str) -> list[Any]:
        """Return all committed records of a topic."""
        config = {
            "bootstrap.servers": self.servers,
            "group.id": f"reader-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
        found, ended = [], set()
        with Consumer(config) as reader:
            reader.assign([TopicPartition(self.topics[kind], number, 0) for number in range(PARTITIONS)])
            while len(ended) < PARTITIONS:
                for message in reader.consume(1000, 0.2):
                    if message.error() is None:
                        found.append(message)
                    else:
                        ended.add(message.partition())
        return found

    def outcomes(self) -> Counter[str]:
        """Return the number of outcomes of each input by its location."""
        outputs = [message for kind in ("scores", "review", "rejected") for message in self.read(kind)]
        return Counter((dict(one.headers() or [])["stream-scorer-source"] or b"").decode() for one in outputs)

    def wait_done(self) -> None:
        """Wait until every input has an outcome."""
        wait_until(lambda: len(self.outcomes()) == self.put, lambda: f"{self.put} outcomes\n{self.last_words()}")
        assert set(self.outcomes().values()) == {1}

    def called(self) -> int:
        """Return how many scores are due for delivery."""
        return sum(SCORES.decode(one.value())["score"] >= THRESHOLD for one in self.read("scores"))

    def last_words(self) -> str:
        return "\n".join("\n".join(worker.log().splitlines()[-12:]) for worker in self.workers)


@pytest.fixture
def site(broker: Broker, tmp_path: Path, simulator: Simulator, receiver: Receiver) -> Iterator[Site]:
    simulator.configure(quota=1_000_000, latency_ms=60)
    made = Site(broker.bootstrap_servers, tmp_path, {**simulator.environment(), **receiver.environment()})
    yield made
    for worker in made.workers:
        if worker.running:
            worker.kill()


def test_the_upgrade_page_is_executed(site: Site, former: Path, simulator: Simulator, receiver: Receiver) -> None:
    ended = site.command(former, "topics", "create")
    assert ended.returncode == 0, ended.stderr
    one, two, caller = site.start(former, "one"), site.start(former, "two"), site.start(former, "caller", "callbacks")
    site.feed(1_000)

    # Topics.
    site.done("topics", "create")
    site.done("topics", "create", "--update-retention")
    assert "model simulator-model: confirmed" in site.done("config", "check", "--connect")
    # Workers: those of the campaign side all at once, the scoring workers one by one.
    assert caller.stop() == 0, caller.log()
    assert one.stop() == 0, one.log()
    caller, one = site.start(ROOT, "caller", "callbacks"), site.start(ROOT, "one")
    site.feed(1_000)  # both versions are in the group
    site.wait_done()
    assert two.stop() == 0, two.log()
    two = site.start(ROOT, "two")
    site.feed(1_000)
    site.wait_done()
    assert "3,000 inputs = " in site.done("reconcile")

    # The producers last, and the first attributes.
    site.feed(1_000, FEATURES)
    site.wait_done()

    # Back: the producers, the scoring workers, and, when all new scores are called, the campaign side. What the former
    # workers take over begins, for `reconcile`, at that moment.
    assert one.stop() == 0, one.log()
    assert two.stop() == 0, two.log()
    one = site.start(former, "one")
    wait_until(lambda: receiver.stats().contacts == site.called(), lambda: f"all calls\n{site.last_words()}")
    assert caller.stop() == 0, caller.log()
    caller = site.start(former, "caller", "callbacks")
    site.feed(1_000)
    site.wait_done()
    site.done("reconcile")
    # And forward again.
    assert caller.stop() == 0, caller.log()
    assert one.stop() == 0, one.log()
    caller, one, two = site.start(ROOT, "caller", "callbacks"), site.start(ROOT, "one"), site.start(ROOT, "two")
    site.feed(1_000, FEATURES)
    site.wait_done()
    wait_until(lambda: receiver.stats().contacts == site.called(), lambda: f"all calls\n{site.last_words()}")
    for worker in (one, two, caller):
        assert worker.stop() == 0, worker.log()
    site.done("reconcile")
    assert set(simulator.scored().values()) == {1}, "nothing was bought twice"
    assert (len(simulator.scored()), receiver.stats().repeats) == (site.put, 0)
    assert all(not worker.errors() for worker in site.workers)
