"""An operator's desk for tests: a decisions topic beside a stage, commands in processes, decisions read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from scoring_harness import MEGABYTE, PATIENCE_S, Avro, wait_until
from worker_harness import ROOT

from stream_scorer.cli import main
from stream_scorer.kafka.consumer.log_reader import LogReader
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from scoring_harness import ScoringHarness

DECISION = Avro("decision.avsc")


class Row(NamedTuple):
    """A record as a reader sees it."""

    place: str
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes | None]


@contextlib.contextmanager
def environment_of_process(variables: Mapping[str, str]) -> Iterator[None]:
    """Replace the variables of this process: only those that differ.

    `patch.dict` writes all of them, twice a call, and the C library lets no thread of a Kafka client read meanwhile.
    """
    before = dict(os.environ)
    try:
        _set_variables(variables)
        yield
    finally:
        _set_variables(before)


def _set_variables(variables: Mapping[str, str]) -> None:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    for name, text in variables.items():
        if os.environ.get(name) != text:
            os.environ[name] = text


def call_command(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in this process: a process of its own takes more than a second to start."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    settings = {name: text for name, text in environment.items() if name != "PYTHONPATH"}
    with (
        environment_of_process(settings),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        code = main(arguments)
    out, errors = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(list(arguments), code, out, errors)


class DeskHarness:
    """Commands of the desk on a stage."""

    def __init__(self, stage: ScoringHarness, partitions: int = 4) -> None:
        self.stage = stage
        self.topic = f"decisions-{stage.group_id}"
        self.partitions = partitions
        admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers, "log_level": 0})
        config = {"retention.ms": str(400 * 86_400_000)}
        for made in admin.create_topics([NewTopic(self.topic, partitions, 1, config=config)]).values():
            made.result(30)
        wait_until(lambda: self._has_leaders(admin), "the topic of decisions")

    def _has_leaders(self, admin: AdminClient) -> bool:
        """A command in this process may be faster than the brokers' metadata."""
        found = admin.list_topics(self.topic, timeout=30).topics[self.topic]
        return found.error is None and all(one.leader >= 0 for one in found.partitions.values())

    def environment(self, **changes: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_", "OTEL_"))}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            **self.stage.settings(),
            "STREAM_SCORER_TOPICS__DECISIONS": self.topic,
            **{f"STREAM_SCORER_{key.upper()}": value for key, value in changes.items()},
        }

    def start(self, *arguments: str, **changes: str) -> subprocess.Popen[str]:
        """Starts a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "stream_scorer", *arguments],
            env=self.environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(
        self, *arguments: str, environment: Mapping[str, str] | None = None, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; see `call_command`."""
        return call_command(arguments, {**self.environment(**changes), **(environment or {})})

    def row(self, *arguments: str, **changes: str) -> dict[str, Any]:
        """The one row that a command prints; it must succeed."""
        done = self.call(*arguments, **changes)
        assert done.returncode == 0, done.stderr
        [line] = done.stdout.splitlines()
        row: dict[str, Any] = json.loads(line)
        return row

    def rows(self, topic: str, partitions: int = 4) -> list[Row]:
        """All committed records of a topic, each partition's in order."""
        found = []
        with self.stage.reader() as reader:
            for number in range(partitions):
                reader.assign([TopicPartition(topic, number, 0)])
                while True:
                    message = reader.poll(PATIENCE_S)
                    assert message is not None, f"no end of {topic}/{number}"
                    if (error := message.error()) is not None:
                        assert error.code() == KafkaError._PARTITION_EOF, str(error)
                        break
                    headers: Any = dict(message.headers() or [])
                    found.append(Row(f"{topic}/{number}/{message.offset()}", message.key(), message.value(), headers))
        return found

    def decisions(self) -> list[dict[str, Any]]:
        """All decisions about records, as an independent reader finds them: the key is the decided place."""
        found = [(row.key, DECISION.decode(row.value)) for row in self.rows(self.topic, self.partitions)]
        assert all(key == decision["place"].encode() for key, decision in found)
        return [decision for _, decision in found if decision["action"] != "JOB"]

    def wait_for_markers(self, *topics: str) -> None:
        """Wait until all transactions are visible: a commit returns before its markers are written."""
        log = LogReader(load_settings(environ=self.environment()), "reader", timeout_s=PATIENCE_S)
        for topic in (self.topic, *topics):
            log.wait_for_last_stable_offset(topic, log.extents(topic, self.partitions))

    def decide(self, decisions: Iterable[dict[str, Any]]) -> None:
        """Produce decisions that no job has made."""
        producer = Producer({"bootstrap.servers": self.stage.bootstrap_servers, "linger.ms": 0})
        for one in decisions:
            producer.produce(self.topic, DECISION.encode(one), one["place"].encode())
        assert producer.flush(PATIENCE_S) == 0

    def reject(self, values: Iterable[tuple[str, bytes | None]], reason: str = "wrong_type", **headers: str) -> int:
        """Puts records on the rejected topic as a worker does; each is said to come from its own offset."""
        producer = Producer(
            {"bootstrap.servers": self.stage.bootstrap_servers, "linger.ms": 5, "message.max.bytes": 2 * MEGABYTE}
        )
        number = 0
        for number, (key, value) in enumerate(values, 1):
            given = {
                "stream-scorer-source": f"{self.stage.topics['features']}/{number % 4}/{number}",
                "stream-scorer-error-reason": reason,
                "own": "kept",
                **headers,
            }
            coded: Any = [(name, text.encode()) for name, text in given.items()]
            producer.produce(self.stage.topics["rejected"], value, key.encode(), headers=coded)
            producer.poll(0)
        assert producer.flush(PATIENCE_S) == 0
        return number


def each_once(rows: Sequence[Row], header: str) -> None:
    """Asserts that no two records have one value of a header."""
    values = [row.headers.get(header) for row in rows]
    assert None not in values
    assert len(set(values)) == len(values)
