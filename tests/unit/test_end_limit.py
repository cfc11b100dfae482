"""Time limit of every shutdown of a service, independent of its cause."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any
from unittest.mock import MagicMock

import pytest
from confluent_kafka import TopicPartition
from delivery_harness import DeliveryHarness, SimulatedReceivers, delivered
from test_publisher import Harness as ScoringHarness

from stream_scorer.core.records import Partition
from stream_scorer.errors import ProducerFenced
from stream_scorer.kafka.consumer.group_consumer import GroupConsumer
from stream_scorer.kafka.producer.records import Failed
from stream_scorer.scoring.worker import Worker

# A service with a fatal error whose shutdown hangs; the limits are short.
HANGING = """
import threading, time
from stream_scorer.cli import lifecycle as stopping
stopping.CLOSING_S = 0.2
stopping_event = threading.Event()
with stopping.EndLimit(0.1) as limit:
    limit.watch(stopping_event)
    try:
        raise ValueError
    finally:
        {begins}
        {hangs}
"""
FOREVER = "time.sleep(60)"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("begins", ["stopping_event.set()", "limit.begin()"])
def test_a_hanging_shutdown_ends_at_its_limit_without_a_signal(begins: str) -> None:
    ended = run(HANGING.format(begins=begins, hangs=FOREVER))
    assert (ended.returncode, ended.stderr) == (
        1,
        "stream-scorer: closing took too long; what is not committed is read again\n",
    )


def test_a_shutdown_in_time_keeps_its_error() -> None:
    ended = run(HANGING.format(begins="stopping_event.set()", hangs="pass") + "\ntime.sleep(1)")
    assert ended.stderr.endswith("\nValueError\n")


@pytest.mark.parametrize(("name", "before", "stopped"), [("SIGTERM", "", 1), ("SIGHUP", "", 1), ("SIGHUP", "nohup", 0)])
def test_a_signal_stops_the_service_once(name: str, before: str, stopped: int) -> None:
    """Under ``nohup`` a hang-up stays ignored. A second one never ends the process: a terminal often sends two."""
    ended = run(f"""
import os, signal, time
from stream_scorer.cli.lifecycle import EndLimit, install_signal_handlers
if {before!r}:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
stops = []
with EndLimit(30) as limit:
    install_signal_handlers(lambda: stops.append(1))
    os.kill(os.getpid(), signal.{name})
    os.kill(os.getpid(), signal.SIGHUP)
    until = time.monotonic() + 20
    while len(stops) < {stopped} and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    print(len(stops))
""")
    assert (ended.returncode, ended.stdout) == (0, f"{stopped}\n")


@pytest.mark.parametrize("signals", ["SIGTERM", "SIGHUP SIGHUP"])
def test_a_signal_that_interrupts_the_holder_of_the_event_lock_stops_the_service(signals: str) -> None:
    """The handler waited for that lock, which its own thread held: the service never stopped."""
    ended = run(f"""
import os, signal, threading
from stream_scorer.cli.lifecycle import EndLimit, install_signal_handlers
stopping = threading.Event()
with EndLimit(30) as limit:
    install_signal_handlers(stopping.set)
    with stopping._cond:  # as in `wait` and in `set`
        for name in {signals!r}.split():
            os.kill(os.getpid(), getattr(signal, name))
        for _ in range(1000):
            pass  # the handler runs here at the latest
    print(stopping.wait(20))
""")
    assert (ended.returncode, ended.stdout) == (0, "True\n")


def test_an_error_of_the_deliverer_starts_the_shutdown_of_the_service() -> None:
    world = SimulatedReceivers(lambda _world, _callback: delivered())
    harness = DeliveryHarness(world)
    ends: list[str] = []
    harness._stopping.set = lambda: ends.append("stopping")
    harness.source.close = lambda: ends.append("closed")  # type: ignore[method-assign]

    def fail() -> None:
        raise ProducerFenced("another worker")

    with pytest.raises(ProducerFenced):
        harness.run(lambda: False, fail)
    assert ends == ["stopping", "closed"]
    assert ("draining", {"loop": "deliverer", "detail": "another worker"}) in world.lines


def test_a_permanently_fenced_worker_opens_no_new_session() -> None:
    """Each would fence the other worker once more."""
    harness = ScoringHarness()
    harness.finish(10)
    harness.sink.answers = [Failed("fenced", fenced=True)] * 3
    assert not harness.publish()
    assert not harness.publish()
    with pytest.raises(ProducerFenced):
        harness.publish()
    opened = harness.sink.opened
    harness.publisher.on_rebalance()  # as a revocation does, which closing brings
    assert not harness.publish()
    assert harness.publisher.is_stale
    assert harness.sink.opened == opened


def test_a_revocation_with_a_failed_last_commit_still_releases_its_partitions() -> None:
    """Otherwise leaving the group would wait for them."""
    source = GroupConsumer(
        {"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0}, ["t"], wait=lambda _: True
    )
    owner, consumer = MagicMock(), MagicMock()
    owner.on_revoking.side_effect = ProducerFenced("another worker")
    source._listener = owner
    revoked: list[Any] = [TopicPartition("t", 3)]
    with pytest.raises(ProducerFenced):
        source._on_revoke(consumer, revoked)
    owner.on_revoked.assert_called_once_with([Partition("t", 3)])
    consumer.incremental_unassign.assert_called_once_with(revoked)
    source.close()


def test_an_error_of_the_scoring_worker_starts_its_shutdown() -> None:
    anything: Any = MagicMock()
    observe, stopping = MagicMock(), threading.Event()
    publisher, source, clock = MagicMock(), MagicMock(), MagicMock()
    publisher.open.return_value = True
    clock.monotonic.return_value = 0.0
    source.read.side_effect = ProducerFenced("another worker")
    source.close.side_effect = lambda: observe.order("closed", stopping=stopping.is_set())
    ledger, dispatcher, flow = MagicMock(), MagicMock(in_flight=0, fatal_error=None), MagicMock()
    ledger.has_committable.return_value = ledger.has_requested_outcome_blocked.return_value = False
    flow.room.return_value = 1
    worker = Worker(
        **dict.fromkeys(("pending_schemas", "retry_partitions", "retries", "intake", "quota", "trace"), anything),
        breaker=MagicMock(open_state=None),
        observe=observe,
        dispatcher=dispatcher,
        flow=flow,
        ledger=ledger,
        publisher=publisher,
        source=source,
        clock=clock,
        stopping=stopping,
        session_timeout_s=3.0,
        revoke_wait_s=5.0,
        shutdown_timeout_s=5.0,
    )
    with pytest.raises(ProducerFenced):
        worker.run()
    observe.draining.assert_called_once_with("another worker")
    observe.order.assert_called_once_with("closed", stopping=True)
    publisher.close.assert_called_once_with()
