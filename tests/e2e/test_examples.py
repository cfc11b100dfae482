"""The examples, run as separate programs that share only the schemas and the topics with the package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from scoring_harness import RETENTION_MS

from stream_scorer.local.simulator.launcher import worker_environment
from stream_scorer.settings import TopicsSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kafka_fixture import Broker

    from stream_scorer.local.simulator import Simulator

REPOSITORY = Path(__file__).parents[2]
CONTACTS = 40
LIMIT_S = 90


@pytest.fixture
def topics(broker: Broker) -> TopicsSettings:
    """Topics of the test's own."""
    prefix = f"examples-{uuid.uuid4().hex}"
    names = TopicsSettings(
        features=f"{prefix}-in",
        scores=f"{prefix}-scores",
        review=f"{prefix}-review",
        rejected=f"{prefix}-rejected",
        audit=f"{prefix}-audit",
        features_retry=f"{prefix}-retry",
    )
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    kept = {"retention.ms": str(RETENTION_MS)}
    wanted = [NewTopic(name, 2, 1) for name in names.scoring]
    wanted += [NewTopic(name, 1, 1, config=kept) for name in names.contact_retries(3)]
    for made in admin.create_topics(wanted).values():
        made.result(30)
    return names


def example(name: str, *arguments: str) -> str:
    """Return the output of an example that exited with 0."""
    command = [sys.executable, str(REPOSITORY / "examples" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def worker(broker: Broker, simulator: Simulator, topics: TopicsSettings) -> Iterator[None]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("STREAM_SCORER_", "GENESYS_"))
    }
    environment |= worker_environment(simulator.base_url, simulator.config)
    environment |= {f"STREAM_SCORER_TOPICS__{key.upper()}": value for key, value in topics.model_dump().items()}
    environment |= {
        "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "STREAM_SCORER_KAFKA__GROUP_ID": topics.features,
        "STREAM_SCORER_ADMIN__PORT": "0",
    }
    command = [sys.executable, "-m", "stream_scorer", "run"]
    running = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    try:
        yield
        running.send_signal(signal.SIGTERM)
        _, said = running.communicate(timeout=LIMIT_S)
        assert running.returncode == 0, said
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()


@pytest.mark.kafka
def test_producer_and_reader(broker: Broker, simulator: Simulator, topics: TopicsSettings) -> None:
    simulator.configure(narrow_share=0.0, inconsistent_share=0.0)
    kafka = ("--bootstrap-servers", broker.bootstrap_servers)
    produced = example("produce_contacts.py", *kafka, "--topic", topics.features, "--contacts", str(CONTACTS))
    assert produced == f"{CONTACTS} contacts are on {topics.features}\n"
    with worker(broker, simulator, topics):
        lines = example(
            "read_scores.py", *kafka, "--topic", topics.scores, "--group", topics.scores, "--limit", str(CONTACTS)
        )
    scores = [json.loads(line) for line in lines.splitlines()]
    assert sorted(score["contact_id"] for score in scores) == [f"contact-{number:06}" for number in range(CONTACTS)]
    assert all(0 <= score["confidence_lower"] <= score["score"] <= score["confidence_upper"] <= 1 for score in scores)
    imputed = {score["contact_id"] for score in scores if score["imputed_features"] == ["last_contact_days"]}
    assert imputed == {f"contact-{number:06}" for number in range(0, CONTACTS, 4)}
    for partition in (0, 1):  # outputs of a partition are in the order of its inputs
        sources = [score["source"].split("/") for score in scores]
        offsets = [int(offset) for _, number, offset in sources if int(number) == partition]
        assert offsets == sorted(offsets)
        assert offsets == list(range(len(offsets)))
