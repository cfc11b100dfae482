"""The embedded Kafka: detection, stop, restart, and transactions."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # imported there without `as`
from typer.testing import CliRunner

from stream_scorer.cli.kafka import app
from stream_scorer.errors import LocalError
from stream_scorer.local.kafka.process import LOOPBACK, ended_within, free_port, is_alive
from stream_scorer.local.kafka.readiness import Running

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stream_scorer.local.kafka.broker import EmbeddedKafka


pytestmark = pytest.mark.kafka


def new_topic(bootstrap_servers: str) -> str:
    name = f"probe-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(name, num_partitions=1)])[name].result(timeout=30)
    return name


def new_producer(bootstrap_servers: str, transactional_id: str) -> Producer:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": transactional_id})
    producer.init_transactions(30)
    return producer


def read_all(bootstrap_servers: str, topic: str, isolation_level: str) -> list[bytes | None]:
    """Read partition 0 from its start to its end with this isolation level."""
    config: dict[str, Any] = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": f"reader-{uuid.uuid4().hex[:8]}",
        "isolation.level": isolation_level,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    consumer = Consumer(config)
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes | None] = []
    try:
        while (message := consumer.poll(30)) is not None:
            if message.error() is not None:  # the end of the partition
                return values
            values.append(message.value())
    finally:
        consumer.close()
    pytest.fail(f"the end of {topic} was not reached")


def committed(bootstrap_servers: str, group: str, topic: str) -> tuple[int, str | None]:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
    answer = admin.list_consumer_group_offsets([asked])[group].result(timeout=30)
    partition = answer.topic_partitions[0]
    return partition.offset, partition.metadata


def commit_offset(producer: Producer, bootstrap_servers: str, group: str, position: TopicPartition) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group})
    try:
        producer.send_offsets_to_transaction([position], consumer.consumer_group_metadata(), 30)
    finally:
        consumer.close()


# --- lives of a broker ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_records_and_commits_survive_stop_and_kill(private_kafka: Callable[..., EmbeddedKafka]) -> None:
    kafka = private_kafka()
    first = kafka.start()
    servers = first.bootstrap_servers
    topic = new_topic(servers)
    producer = new_producer(servers, "writer")
    producer.begin_transaction()
    producer.produce(topic, b"kept", partition=0)
    commit_offset(producer, servers, "readers", TopicPartition(topic, 0, 1, "start=0"))
    producer.commit_transaction(30)

    assert kafka.stop() is True
    assert kafka.stop() is False
    assert not is_alive(first.pid, kafka.config.process_mark)
    second = kafka.start()
    assert second.pid != first.pid
    assert second.port == first.port  # so that clients find it again
    assert read_all(servers, topic, "read_committed") == [b"kept"]
    assert committed(servers, "readers", topic) == (1, "start=0")

    producer = new_producer(servers, "writer")
    producer.begin_transaction()
    producer.produce(topic, b"never committed", partition=0)
    producer.flush(30)
    kafka.kill()
    assert kafka.status() is None
    kafka.start()
    new_producer(servers, "writer")  # aborts the open transaction of the killed one
    assert read_all(servers, topic, "read_committed") == [b"kept"]
    assert committed(servers, "readers", topic) == (1, "start=0")


@pytest.mark.slow
def test_a_folder_with_any_name(private_kafka: Callable[..., EmbeddedKafka], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas end a path for Kafka, colons and semicolons for Java; umlauts are invalid in the locale C."""
    monkeypatch.setenv("LC_ALL", "C")
    kafka = private_kafka("dätä, v1;#%20:(ß)")
    started = kafka.start()
    assert kafka.status() == started
    assert {path.name for path in kafka.config.data_dir.iterdir() if path.is_dir()} == {"data"}
    assert [path.name for path in kafka.config.data_dir.parent.iterdir()] == [kafka.config.data_dir.name]
    assert kafka.stop() is True


@pytest.mark.slow
def test_a_paused_kafka_does_not_respond_resumes_and_can_be_stopped(
    private_kafka: Callable[..., EmbeddedKafka],
) -> None:
    kafka = private_kafka()
    servers = kafka.start().bootstrap_servers
    kafka.pause()
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=0.5)
    kafka.resume()
    assert AdminClient({"bootstrap.servers": servers}).list_topics(timeout=30).brokers
    kafka.pause()
    assert kafka.stop() is True


@pytest.mark.slow
def test_starts_find_the_running_one_also_all_at_once(
    tmp_path: Path, private_kafka: Callable[..., EmbeddedKafka]
) -> None:
    state = private_kafka().config.state_file
    state.parent.mkdir()
    state.write_text(json.dumps({"pid": os.getpid(), "port": 1}))  # a stale one, whose PID is used again

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _each: private_kafka().start(), range(3)))

    assert len(set(found)) == 1
    running = private_kafka().status()
    assert running == found[0]
    assert private_kafka(port=None).start() == running
    with pytest.raises(LocalError, match=rf"runs on port {running.port} already, not on 9: stop it first"):
        private_kafka(port=9).start()
    with pytest.raises(LocalError) as taken:
        private_kafka("other", port=running.port).start()
    assert (
        str(taken.value) == f"port {running.port} is taken by another program: stop that, or choose another with --port"
    )
    assert not (tmp_path / "other" / "data").exists()


@pytest.mark.slow
def test_the_context_ends_what_it_started_and_only_that(private_kafka: Callable[..., EmbeddedKafka]) -> None:
    outer = private_kafka()
    with pytest.raises(KeyboardInterrupt), outer:  # noqa: PT012  # the order is what is tested
        with private_kafka() as found:
            assert found.status() == outer.status()
        assert outer.status() is not None
        raise KeyboardInterrupt
    assert outer.status() is None


# --- a start that fails -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kafka_that_exits_at_startup_is_reported_with_its_reason_in_one_line(
    private_kafka: Callable[..., EmbeddedKafka],
) -> None:
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        kafka = private_kafka(controller_port=other.getsockname()[1])
        with pytest.raises(
            LocalError, match=r"Kafka ended at its start: .*Address already in use.*kafka\.log"
        ) as error:
            kafka.start()
    assert "\n" not in str(error.value)
    assert kafka.status() is None


def test_a_start_that_takes_too_long_is_ended(private_kafka: Callable[..., EmbeddedKafka]) -> None:
    kafka = private_kafka(start_timeout_s=0.1)
    with pytest.raises(LocalError, match=r"does not answer on 127\.0\.0\.1:\d+ after 0\.1 s"):
        kafka.start()
    assert kafka.status() is None


def test_a_setting_kafka_refuses_is_one_line(private_kafka: Callable[..., EmbeddedKafka]) -> None:
    kafka = private_kafka(properties={"num.io.threads": "many"})
    with pytest.raises(
        LocalError, match=r"could not prepare .*Invalid value many for configuration num\.io\.threads"
    ) as error:
        kafka.start()
    assert "\n" not in str(error.value)


# --- the commands -----------------------------------------------------------------------------------------------------


def test_start_status_stop_as_commands(private_kafka: Callable[..., EmbeddedKafka]) -> None:
    kafka, port = private_kafka(), free_port()
    folder = ["--data-dir", str(kafka.config.data_dir)]
    program = [sys.executable, "-c", "from stream_scorer.cli.kafka import app; app()"]

    started = subprocess.run(
        [*program, "start", *folder, "--port", str(port)], capture_output=True, text=True, check=True
    )
    running = kafka.status()
    assert running is not None  # it outlives the command
    assert os.getsid(running.pid) == running.pid  # and the Ctrl-C of the terminal
    assert started.stdout.splitlines()[0] == (
        f"Apache Kafka is running: bootstrap servers 127.0.0.1:{port}, process {running.pid}"
    )
    assert f"stream-scorer kafka stop --data-dir {kafka.config.data_dir}" in started.stdout
    assert "starting Apache Kafka" in started.stderr
    again = CliRunner().invoke(app, ["start", *folder])
    assert again.output.startswith(f"Apache Kafka was running already: bootstrap servers 127.0.0.1:{port},")
    status = CliRunner().invoke(app, ["status", *folder])
    assert (status.exit_code, f"process {running.pid}" in status.output) == (0, True)
    assert CliRunner().invoke(app, ["stop", *folder]).output == "Apache Kafka is stopped\n"
    assert CliRunner().invoke(app, ["status", *folder]).exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_ends_with_its_command(
    private_kafka: Callable[..., EmbeddedKafka], number: signal.Signals
) -> None:
    kafka = private_kafka()
    command = ["start", "--foreground", "--port", str(free_port()), "--data-dir", str(kafka.config.data_dir)]
    program = [sys.executable, "-u", "-c", "from stream_scorer.cli.kafka import app; app()", *command]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as command_process:
        assert command_process.stdout is not None
        assert command_process.stdout.readline().startswith("Apache Kafka is running")
        assert command_process.stdout.readline() == "stop it with Ctrl-C\n"
        running = kafka.status()
        assert isinstance(running, Running)
        command_process.send_signal(number)
        assert command_process.stdout.read() == "Apache Kafka is stopped\n"
    assert command_process.returncode == 0
    assert ended_within(running.pid, kafka.config.process_mark, limit_s=0)
