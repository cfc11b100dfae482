"""``stream-scorer produce`` on a real broker: each row of the file is on the topic once and readable by consumers."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, TopicMetadata
from confluent_kafka.cimpl import NewTopic

from stream_scorer.cli import main
from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.scoring.contact_decoder import ContactDecoder
from stream_scorer.core.scoring.types import ContactEvent
from stream_scorer.kafka.producer.bulk_producer import BulkProducer
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from kafka_fixture import Broker

CODEC = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
BANK = Path(__file__).parents[3] / "shared" / "data" / "bank-marketing-contacts.csv"
PARTITIONS = 3
NO_TOPIC = TopicMetadata()


@pytest.fixture(autouse=True)
def _only_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("STREAM_SCORER_", "GENESYS_")):
            monkeypatch.delenv(name)


@pytest.fixture
def topic(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> str:
    """A features topic of the test's own, and the settings that name it."""
    name = f"features-{uuid.uuid4().hex}"
    make_topic(broker, name)
    monkeypatch.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    monkeypatch.setenv("STREAM_SCORER_TOPICS__FEATURES", name)
    return name


def make_topic(broker: Broker, name: str, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    [made] = admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config)]).values()
    made.result(30)
    # The metadata of a broker follow those of the controller after a short time.
    deadline = time.monotonic() + 30
    while len(admin.list_topics(timeout=10).topics.get(name, NO_TOPIC).partitions) < PARTITIONS:
        assert time.monotonic() < deadline, f"{name} does not appear"


def records(broker: Broker, topic: str) -> list[list[tuple[bytes, ContactEvent]]]:
    """Return key and contact of every record by partition."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": uuid.uuid4().hex})
    try:
        found: list[list[tuple[bytes, ContactEvent]]] = []
        for number in range(PARTITIONS):
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
            consumer.assign([TopicPartition(topic, number, 0)])
            found.append([])
            while len(found[-1]) < end:
                message = consumer.poll(10)
                assert message is not None, f"only {len(found[-1])} of {end} records of partition {number} came"
                assert message.error() is None
                key = message.key()
                assert isinstance(key, bytes)
                found[-1].append((key, ContactDecoder(CODEC).decode(message.value())))
        return found
    finally:
        consumer.close()


def wait_for_records(broker: Broker, topic: str, number: int) -> None:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": uuid.uuid4().hex})
    try:
        deadline = time.monotonic() + 60
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        ends: dict[TopicPartition, int] = {}
        while sum(ends.values()) < number:
            assert time.monotonic() < deadline, f"{number} records do not come"
            with contextlib.suppress(KafkaException):  # of a new topic, a broker may not lead all partitions yet
                ends = {place: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}
    finally:
        consumer.close()


def contacts(broker: Broker, topic: str) -> dict[str, ContactEvent]:
    return {event.contact_id: event for partition in records(broker, topic) for _, event in partition}


@pytest.mark.kafka
class TestProduce:
    def test_csv(self, broker: Broker, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "contacts.csv"
        path.write_text("contact_id,previous_calls,segment_id,campaign_id\nc-1,3,retired,spring\nc-é,,,\n")
        assert main(["produce", str(path)]) == 0
        captured = capsys.readouterr()
        assert captured.out == f"2 contacts are on {topic}; 0 bad rows, 0 not delivered\n"
        assert captured.err == ""
        found = contacts(broker, topic)
        assert found["c-1"].features == {"previous_calls": 3, "segment_id": "retired"}
        assert found["c-1"].campaign_id == "spring"
        assert found["c-é"].features == {"previous_calls": None, "segment_id": None}
        keys = {key for partition in records(broker, topic) for key, _ in partition}
        assert keys == {b"c-1", "c-é".encode()}

    def test_bad_rows_are_named_and_the_rest_is_loaded(
        self, broker: Broker, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "contacts.jsonl"
        path.write_text(
            '{"contactId": "a", "features": {"x": [1]}}\n'
            '{"contactId": "b", "features": {}, "occurredAt": 1700000000077}\n'
            "nonsense [bold]\n"
            '{"contactId": "c", "features": {"any": "thing"}}\n'
        )
        assert main(["produce", str(path)]) == 1
        captured = capsys.readouterr()
        assert captured.out == f"2 contacts are on {topic}; 2 bad rows, 0 not delivered\n"
        first, second = captured.err.splitlines()
        assert first == f"{path}:1: feature 'x' must be a number, a string, true, false or null"
        assert second.startswith(f"{path}:3: is not JSON")
        found = contacts(broker, topic)
        assert {contact_id: event.features for contact_id, event in found.items()} == {"b": {}, "c": {"any": "thing"}}
        assert found["b"].occurred_at_ms == 1_700_000_000_077

    def test_a_second_load_has_the_same_event_ids_and_a_warning(
        self, broker: Broker, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "contacts.txt"
        path.write_text("contact_id\na\nb\n")
        warning = (
            f"warning: event ids of this file are on {topic} already, so it was loaded before: each contact that is"
        )
        for said in ("", f"{path}: {warning}"):
            assert main(["produce", str(path), "--format", "csv", "--rate", "1000"]) == 0
            err = capsys.readouterr().err
            assert err.startswith(said) if said else err == ""
            assert err.count("warning") == bool(said)
        ids = [event.event_id for partition in records(broker, topic) for _, event in partition]
        assert len(ids) == 4
        assert len(set(ids)) == 2

    def test_event_ids_from_the_file_are_searched_too(
        self,
        broker: Broker,
        topic: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        (tmp_path / "first.csv").write_text("contact_id,event_id\na,e-1\nb,e-2\n")
        assert main(["produce", str(tmp_path / "first.csv")]) == 0
        other = b"contact_id,event_id\nb,e-2\nc,e-3\nx,y,z\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(other)))
        capsys.readouterr()
        assert main(["produce", "-", "--from-line", "3"]) == 1
        assert capsys.readouterr().err.startswith("standard input:4: has 3 cells")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(other)))
        assert main(["produce", "-"]) == 1
        warning, bad = capsys.readouterr().err.splitlines()
        assert warning.startswith("standard input: warning: event ids of this file are on")
        assert bad.startswith("standard input:4: has 3 cells")
        partitions = records(broker, topic)
        assert sorted(event.event_id for partition in partitions for _, event in partition) == [
            *("e-1", "e-2", "e-2", "e-3", "e-3"),
        ]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_an_interrupted_file_continues_where_it_ended(
        self, broker: Broker, topic: str, tmp_path: Path, number: signal.Signals
    ) -> None:
        path = tmp_path / "contacts.csv"
        path.write_text("contact_id,segment_id\n" + "".join(f'{n},"two\nlines"\n' for n in range(1_500)))
        command = [sys.executable, "-m", "stream_scorer", "produce", str(path)]
        with subprocess.Popen([*command, "--rate", "300"], stdout=PIPE, stderr=PIPE, text=True) as loading:
            wait_for_records(broker, topic, 100)
            loading.send_signal(number)
            out, err = loading.communicate(timeout=60)
        assert loading.returncode == 130, err
        loaded = sum(map(len, records(broker, topic)))
        assert out == f"{loaded} contacts are on {topic}; 0 bad rows, 0 not delivered\n"
        assert 100 <= loaded < 1_500
        said, line = err.rstrip().rsplit(" ", 1)
        assert said == "interrupted: to load the rest, repeat the command with --from-line"
        rest = subprocess.run([*command, "--from-line", line], capture_output=True, text=True, check=False, timeout=60)
        assert (rest.returncode, rest.stderr) == (0, "")  # no warning either: only the rows before were loaded
        ids = sorted(int(event.contact_id) for partition in records(broker, topic) for _, event in partition)
        assert ids == list(range(1_500))

    @pytest.mark.skipif(not BANK.exists(), reason="the bank-marketing contacts are not beside the project")
    def test_real_contacts_arrive_complete_and_in_order(self, broker: Broker, topic: str) -> None:
        assert main(["produce", str(BANK)]) == 0
        partitions = records(broker, topic)
        ids = [[event.contact_id for _, event in partition] for partition in partitions]
        assert sorted(contact_id for partition in ids for contact_id in partition) == [
            f"BANK-{number:05}" for number in range(1, 20_001)
        ]
        assert all(partition == sorted(partition) for partition in ids)
        assert all(partition for partition in ids)

    def test_a_missing_topic(
        self, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("STREAM_SCORER_TOPICS__FEATURES", f"not-{topic}")
        path = tmp_path / "contacts.csv"
        path.write_text("contact_id\na\n")
        assert main(["produce", str(path)]) == 1
        assert f"topic not-{topic} is missing" in capsys.readouterr().err

    def test_a_record_rejected_by_the_broker_affects_no_other(
        self, broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = f"small-{uuid.uuid4().hex}"
        make_topic(broker, name, **{"max.message.bytes": "4000"})
        monkeypatch.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", broker.bootstrap_servers)
        # Batches of one: a broker refuses a batch as a whole.
        monkeypatch.setenv("STREAM_SCORER_KAFKA__PROPERTIES", '{"batch.num.messages": 1, "compression.type": "none"}')
        monkeypatch.setenv("STREAM_SCORER_TOPICS__FEATURES", name)
        path = tmp_path / "contacts.csv"
        path.write_text(f"contact_id,segment_id\na,x\nb,{'y' * 9000}\nc,z\n")
        assert main(["produce", str(path)]) == 1
        captured = capsys.readouterr()
        assert captured.out == f"2 contacts are on {name}; 0 bad rows, 1 not delivered\n"
        assert captured.err.startswith(f"{path}:3: not delivered: writing to {name}: ")
        assert set(contacts(broker, name)) == {"a", "c"}


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["produce", str(tmp_path / "none.csv")]) == 1
    assert capsys.readouterr().err == f"stream-scorer: {tmp_path / 'none.csv'}: No such file or directory\n"


def test_a_file_name_without_a_known_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["produce", str(tmp_path / "contacts.xlsx")]) == 2
    assert "--format csv" in capsys.readouterr().err


def test_an_unreachable_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    path = tmp_path / "contacts.csv"
    path.write_text("contact_id\na\n")
    assert main(["produce", str(path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "127.0.0.1:1" in line


def loader(**config: Any) -> BulkProducer:
    """A loader whose broker never responds."""
    nowhere = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0, "delivery.timeout.ms": 300, "linger.ms": 0}
    return BulkProducer({**nowhere, **config}, "features", CODEC)


EVENT = ContactEvent("e", "c", {}, 0, None, None)


class TestLoaderWithoutABroker:
    def test_it_stops_and_counts_every_contact(self) -> None:
        with loader() as own:
            for line in (2, 3, 4):
                own.send(EVENT, line)
            own.finish()
            assert own.stopped
            assert own.delivered == 0
            [undelivered] = own.undelivered
            assert (undelivered.line, undelivered.contacts) == (2, 3)
            assert undelivered.message.startswith("writing to features: ")

    def test_a_full_queue_waits_until_the_broker_time_limit(self) -> None:
        with loader(**{"queue.buffering.max.messages": 2}) as own:
            for line in (2, 3, 4):
                own.send(EVENT, line)
            own.finish()
            assert own.stopped
            # The third was not produced: the loop that reads the file stops here and reports the line.
            assert sum(undelivered.contacts for undelivered in own.undelivered) == 2

    def test_an_exception_does_not_wait_for_the_broker(self) -> None:
        own = loader(**{"delivery.timeout.ms": 600_000})
        started_s = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            self.interrupted(own)
        assert time.monotonic() - started_s < 10
        assert own.delivered == 0
        assert [undelivered.contacts for undelivered in own.undelivered] == [1]

    def test_an_interrupt_ends_soon_and_names_the_first_line(self) -> None:
        own = loader(**{"delivery.timeout.ms": 600_000, "message.timeout.ms": 600_000})
        with own:
            assert own.send(EVENT, 2)
            assert own.send(EVENT, 5)
            own.interrupt()
            assert not own.send(EVENT, 8)
            own.interrupt()  # without the wait of 10 s
            started_s = time.monotonic()
            own.finish()
            assert time.monotonic() - started_s < 5
        assert own.first_unconfirmed == 2
        assert not own.stopped
        [undelivered] = own.undelivered
        assert (undelivered.line, undelivered.message, undelivered.contacts) == (2, "interrupted", 2)

    def test_a_low_rate_does_not_delay_an_interrupt(self) -> None:
        nowhere = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
        with BulkProducer(nowhere, "features", CODEC, rate_per_s=0.001) as own:
            assert own.send(EVENT, 2)
            own.interrupt()
            assert not own.send(EVENT, 3)

    def test_an_unreachable_broker_leaves_the_first_line(self) -> None:
        with loader() as own:
            for line in (2, 3, 4):
                own.send(EVENT, line)
            own.finish()
        assert own.first_unconfirmed == 2

    @staticmethod
    def interrupted(own: BulkProducer) -> None:
        with own:
            own.send(EVENT, 2)
            raise KeyboardInterrupt


def test_the_rate_is_kept() -> None:
    nowhere = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    with BulkProducer(nowhere, "features", CODEC, rate_per_s=50) as own:
        started_s = time.monotonic()
        for line in range(11):
            own.send(EVENT, line)
        assert time.monotonic() - started_s >= 10 / 50 - 0.01
