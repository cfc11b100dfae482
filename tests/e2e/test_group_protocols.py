"""KIP-848 and static membership: workers join, leave, hang and are killed under load; one outcome for every contact."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from output_verifier import verify_outputs
from scoring_harness import contacts
from worker_harness import QUICK_PROPERTIES

from stream_scorer.reconciliation import reconcile
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_harness import WorkerHarness, WorkerProcess

    from stream_scorer.local.kafka.broker import EmbeddedKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(280)]

PARTITIONS = 6
SESSION_S = 6.0
# Under the newer protocol the brokers decide; by default a dead worker is removed after 45 s.
BROKER = {
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": str(round(SESSION_S * 1000)),
    "group.consumer.min.heartbeat.interval.ms": "300",
    "group.consumer.heartbeat.interval.ms": "500",
}
DECIDED_BY_BROKERS = ("session.timeout.ms", "heartbeat.interval.ms")


class Crowd:
    """Workers of one group; with static membership, each is the member of its name."""

    def __init__(self, stage: WorkerHarness, protocol: str, *, is_static: bool, is_default: bool) -> None:
        self.stage = stage
        # The classic protocol's default session is 10 s, that of the tests 3 s.
        self.session_s = 10.0 if is_default else SESSION_S
        self._is_default = is_default
        self._protocol = protocol
        self._is_static = is_static
        self._fed = 0

    def start(self, name: str) -> WorkerProcess:
        """Start a worker and wait for partitions of its own."""
        worker = self.launch(name)
        self.stage.wait(lambda: worker.said("partition assigned"), f"partitions for {name}", needs=worker)
        return worker

    def launch(self, name: str) -> WorkerProcess:
        decided = () if self._protocol == "classic" else DECIDED_BY_BROKERS
        quick = {} if self._is_default else QUICK_PROPERTIES
        properties: dict[str, Any] = {key: value for key, value in quick.items() if key not in decided}
        properties["group.protocol"] = self._protocol
        if self._is_static:
            properties["group.instance.id"] = name
        more = {} if self._is_default else {"scoring__max_contacts": "50"}
        return self.stage.start(name=name, kafka__properties=json.dumps(properties), **more)

    def feed(self) -> None:
        self.stage.produce(contacts(1500, PARTITIONS, prefix=f"F{self._fed}"))
        self._fed += 1


@pytest.fixture
def make_crowd(
    private_kafka: Callable[..., EmbeddedKafka], make_stage: Callable[..., WorkerHarness]
) -> Callable[[str, bool, bool], Crowd]:
    def make(protocol: str, is_static: bool, is_default: bool) -> Crowd:
        servers = private_kafka(properties=BROKER).start().bootstrap_servers
        stage = make_stage(bootstrap_servers=servers, partitions=PARTITIONS)
        stage.simulator.configure(latency_ms=100)
        return Crowd(stage, protocol, is_static=is_static, is_default=is_default)

    return make


@pytest.mark.parametrize(
    ("protocol", "is_static", "is_default"),
    [("classic", True, False), ("consumer", False, False), ("consumer", True, False), ("classic", True, True)],
)
def test_workers_join_and_leave(
    make_crowd: Callable[[str, bool, bool], Crowd], protocol: str, is_static: bool, is_default: bool
) -> None:
    """``is_default``: with the client's and the service's own settings, as in script 26."""
    crowd = make_crowd(protocol, is_static, is_default)
    stage = crowd.stage
    crowd.feed()
    first = crowd.start("first")
    second = crowd.start("second")
    crowd.feed()
    # Killed and restarted: as a static member with its former partitions. Under the newer protocol its id is
    # free when its session has ended.
    second.kill()
    killed_at = time.monotonic()
    crowd.feed()
    second = crowd.launch("second")
    if is_static and protocol == "consumer":
        stage.wait(lambda: not second.running or second.said("partition assigned"), "its end, or partitions")
        if not second.running:
            assert "is free when its session has ended" in second.errors()[-1]
            time.sleep(max(0.0, killed_at + 2 * SESSION_S - time.monotonic()))
            second = crowd.launch("second")
    stage.wait(lambda: second.said("partition assigned"), "partitions for the next one", needs=second)
    warnings = [line["event"] for line in first.log_lines() if line["level"] == "warning"]
    assert not any(text.startswith(("CONFWARN", "GETPID")) for text in warnings), "a healthy worker on a new cluster"
    # Hung for longer than its session.
    crowd.feed()
    first.pause()
    time.sleep(1.5 * crowd.session_s)
    crowd.feed()
    first.resume()
    stage.wait_done(needs=second)
    # A clean exit.
    crowd.feed()
    assert second.stop() == 0, second.log()
    third = crowd.start("third")
    stage.wait_done(needs=third)
    report = reconcile(load_settings(environ=stage.settings()))
    assert report.is_balanced, report.findings
    assert (first.stop(), third.stop()) == (0, 0), stage.last_words()
    assert len(verify_outputs(stage).outputs) == stage.produced
    assert [worker.errors() for worker in (first, second, third)] == [[], [], []]
