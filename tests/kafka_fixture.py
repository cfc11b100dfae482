"""A real Kafka for tests: one shared by all, also across xdist workers, and private ones for tests that break it.

A pytest plugin; `tests/conftest.py` names it in `pytest_plugins`. The controlling process owns the shared broker's
folder: the first test that asks for the broker starts it (the folder's lock orders the workers), the controller stops
it when all of them are done, so no worker can stop it under another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.config import KafkaConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

BOOTSTRAP_VARIABLE = "TEST_KAFKA_BOOTSTRAP"

_FOLDER = pytest.StashKey[Path]()

# Shorter than Kafka's default minimum, so that tests do not wait 6 s until the group removes a dead worker.
_QUICK = {"group.min.session.timeout.ms": "1000"}


@dataclass(frozen=True, slots=True)
class Broker:
    """The shared broker. Take topics and group ids of your own: others use it at the same time."""

    bootstrap_servers: str


def make_topics(admin: AdminClient, wanted: list[NewTopic]) -> None:
    """Create topics, and wait until the broker knows them: a busy one has confirmed them before."""
    for made in admin.create_topics(wanted, operation_timeout=30).values():
        made.result(30)
    give_up_at = time.monotonic() + 60
    for topic in wanted:
        while not is_known(admin, topic.topic):
            assert time.monotonic() < give_up_at, f"the broker does not know {topic.topic}"
            time.sleep(0.05)


def is_known(admin: AdminClient, topic: str) -> bool:
    """Return whether the broker has a leader for every partition of a topic."""
    found = admin.list_topics(topic, timeout=30).topics[topic]
    return found.error is None and all(one.leader != -1 for one in found.partitions.values())


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_FOLDER] = Path(tempfile.mkdtemp(prefix="stream-scorer-test-kafka-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["kafka_folder"] = str(node.config.stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_FOLDER, None)
    if folder is not None:
        EmbeddedKafka(shared_config(folder)).stop()
        shutil.rmtree(folder, ignore_errors=True)


def shared_config(folder: Path) -> KafkaConfig:
    # It holds thousands of topics. On two busy cores its heartbeats may take longer than 9 s, and the controller would
    # fence it: every client then gets NOT_COORDINATOR or unknown partitions.
    properties = {**_QUICK, "broker.session.timeout.ms": "60000"}
    return KafkaConfig(data_dir=folder / "shared", port=0, properties=properties, heap_mb=1024)


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Broker:
    """The Kafka that all tests share; a running one where TEST_KAFKA_BOOTSTRAP names it."""
    given = os.environ.get(BOOTSTRAP_VARIABLE)
    if given:
        return Broker(given)
    workerinput = getattr(pytestconfig, "workerinput", None)
    folder = Path(workerinput["kafka_folder"]) if workerinput else pytestconfig.stash[_FOLDER]
    return Broker(EmbeddedKafka(shared_config(folder)).start().bootstrap_servers)


@pytest.fixture
def private_kafka(tmp_path: Path) -> Iterator[Callable[..., EmbeddedKafka]]:
    """Make Kafkas of the test's own, not started yet, on free ports; all are stopped at its end.

    Called with `KafkaConfig` fields to change, e.g. `private_kafka(port=19500)`; `name` gives another data folder.
    """
    made: list[EmbeddedKafka] = []

    def make(name: str = "kafka", **fields: Any) -> EmbeddedKafka:
        settings = {"data_dir": tmp_path / name, "port": 0, "properties": _QUICK, **fields}
        made.append(EmbeddedKafka(KafkaConfig(**settings)))
        return made[-1]

    yield make
    for kafka in made:
        kafka.stop()
