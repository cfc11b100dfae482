"""Conflicts at the start of the embedded Kafka: taken ports, and a process without arguments.

A small program replaces Java: it listens on the ports of its `server.properties`, or exits as Kafka does when one of
them is taken.
"""

from __future__ import annotations

import re
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.errors import LocalError
from stream_scorer.local.kafka import broker
from stream_scorer.local.kafka import cluster as kafka_cluster
from stream_scorer.local.kafka import layout as kafka_layout
from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.cluster import EmbeddedCluster
from stream_scorer.local.kafka.config import KafkaConfig
from stream_scorer.local.kafka.layout import read_layout
from stream_scorer.local.kafka.node import Listener
from stream_scorer.local.kafka.process import LOOPBACK, PortTakenError, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

BROKER = """
import os, pathlib, re, socket, sys, time
text = open(sys.argv[-1]).read()
listening = []
for port in re.findall(r"^listeners=(.*)$", text, re.M)[0].split(","):
    try:
        listening.append(socket.create_server(("127.0.0.1", int(port.rsplit(":", 1)[1]))))
    except OSError:
        sys.exit("Caused by: java.net.BindException: Address already in use")
pathlib.Path(sys.argv[1], str(os.getpid())).touch()
time.sleep(60)
"""
ATTEMPTS = 30


def _formatted(config: KafkaConfig, _command: list[str], **_ports: int) -> None:
    config.records_dir.mkdir()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> Iterator[list[EmbeddedKafka | EmbeddedCluster]]:
    """Replace Java and the jars; the processes of the list are stopped at the end."""
    serving: Path = tmp_path_factory.mktemp("serving")
    command = [sys.executable, "-c", BROKER, str(serving)]
    for module in (broker, kafka_cluster):
        monkeypatch.setattr(module, "java_command", lambda config, _: [*command, config.process_mark])
    monkeypatch.setattr(broker, "format_records", _formatted)
    monkeypatch.setattr(broker, "probe_client", lambda running: running)
    monkeypatch.setattr(broker, "is_ready", lambda running, _: (serving / str(running.pid)).exists())
    started: list[EmbeddedKafka | EmbeddedCluster] = []
    yield started
    for one in started:
        one.stop()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of another program."""
    with socket.create_server((LOOPBACK, free_port())) as other:
        yield other.getsockname()[1]


def drawing(first: list[int]) -> Callable[..., int]:
    """Choose these ports first, as if they were free."""
    left = list(first)

    def draw(avoid: Collection[int] = ()) -> int:
        return left.pop(0) if left else free_port(avoid)

    return draw


def test_a_started_kafka_is_found_immediately(tmp_path: Path, made: list[Any]) -> None:
    """A new process has no arguments yet: if it counted as exited, a second one would start on its data."""
    for number in range(ATTEMPTS):
        one = EmbeddedKafka(KafkaConfig(data_dir=tmp_path / str(number), port=0))
        made.append(one)
        one.launch()
        assert one.status() is not None


def test_one_node_retries_with_other_ports(
    tmp_path: Path, made: list[Any], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "free_port", drawing([free_port(), taken]))
    one = EmbeddedKafka(KafkaConfig(data_dir=tmp_path, port=0))
    made.append(one)
    one.start()
    text = one.config.properties_file.read_text(encoding="utf-8")
    assert one.status() is not None
    assert f":{taken}" not in text


def test_a_configured_port_is_not_changed(tmp_path: Path, made: list[Any], taken: int) -> None:
    one = EmbeddedKafka(KafkaConfig(data_dir=tmp_path, port=taken))
    made.append(one)
    with pytest.raises(PortTakenError, match=f"port {taken} is taken by another program"):
        one.start()
    listener = Listener("OTHER", taken)
    another = EmbeddedKafka(KafkaConfig(data_dir=tmp_path, port=0, controller_port=free_port(), listeners=(listener,)))
    with pytest.raises(LocalError, match=r"ended at its start: java\.net.BindException: Address already in use"):
        another.start()
    assert another.status() is None


@pytest.mark.parametrize("place", range(6), ids=lambda place: f"{('client', 'controller')[place // 3]}-{place % 3 + 1}")
def test_a_cluster_chooses_all_of_its_ports_again(
    tmp_path: Path, made: list[Any], taken: int, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    drawn = [free_port() for _ in range(6)]
    drawn[place] = taken
    monkeypatch.setattr(kafka_layout, "free_port", drawing(drawn))
    cluster = EmbeddedCluster(KafkaConfig(data_dir=tmp_path, port=0, start_timeout_s=10), 3)
    made.append(cluster)
    running = cluster.start()
    assert len(running.nodes) == 3
    layout = read_layout(tmp_path)
    assert layout is not None
    assert taken not in (*layout.ports, *(voter.controller_port for voter in layout.voters))
    ports = [re.findall(r"127\.0\.0\.1:(\d+)", file.read_text()) for file in tmp_path.glob("node-*/server.properties")]
    assert len(ports) == 3
    assert str(taken) not in {port for some in ports for port in some}


def test_it_gives_up_if_every_chosen_port_is_taken(
    tmp_path: Path, made: list[Any], taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_layout, "free_port", drawing([taken, *(free_port() for _ in range(5))] * 3))
    cluster = EmbeddedCluster(KafkaConfig(data_dir=tmp_path, port=0), 3)
    made.append(cluster)
    with pytest.raises(PortTakenError, match=f"{taken}|Address already in use"):
        cluster.start()
    assert cluster.status() is None


def test_an_existing_data_folder_keeps_its_ports(tmp_path: Path, made: list[Any]) -> None:
    cluster = EmbeddedCluster(KafkaConfig(data_dir=tmp_path, port=0), 3)
    made.append(cluster)
    cluster.start()
    known = read_layout(tmp_path)
    assert known is not None
    cluster.stop()
    with (
        socket.create_server((LOOPBACK, known.voters[1].controller_port)),
        pytest.raises(PortTakenError, match="Address already in use"),
    ):
        cluster.start()
    assert read_layout(tmp_path) == known
    assert (tmp_path / "node-1" / "data").is_dir()
    assert len(cluster.start().nodes) == 3


def test_ports_of_other_listeners_are_not_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    avoided: set[int] = set()

    def draw(avoid: Collection[int] = ()) -> int:
        avoided.update(avoid)
        return free_port(avoid)

    monkeypatch.setattr(kafka_layout, "free_port", draw)
    listeners = {2: (Listener("LINE", 21_001, advertised_port=21_002),)}
    EmbeddedCluster(KafkaConfig(data_dir=tmp_path, port=0), 3, listeners=listeners)._layout()
    assert avoided >= {21_001, 21_002}


def test_a_folder_that_is_a_file_is_not_to_be_removed(tmp_path: Path) -> None:
    place = tmp_path / "not\ra folder"
    place.write_text("of the user")
    with pytest.raises(LocalError, match=r"cannot read .*: Not a directory; choose another --data-dir") as refused:
        read_layout(place)
    assert str(refused.value).isprintable()
