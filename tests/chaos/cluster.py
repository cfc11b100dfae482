"""One run on the `ChaosEnvironment`: three scoring workers, a callback worker, a feeder, its own topics and groups."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from callback_rules import broken_callbacks
from callbacks_harness import QUICK as QUICK_CALLBACKS
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from expected_state import ExpectedState, Memory, read_rows, read_state
from feeder import Feeder
from scenes import SETTINGS, ChaosHarness
from scoring_harness import wait_until
from worker_harness import QUICK_SETTINGS, WorkerProcess

from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from environment import ChaosEnvironment

NAMES: Final = ("one", "two", "three")
WINDOW: Final = 600
IN_FLIGHT: Final = 4
LATENCY: Final = {"latency_ms": 150, "latency_jitter_ms": 150}
_PER_SECOND: Final = 100
_TIERS: Final = 4
_SAMPLE_S: Final = 2.0
_SETTLE_S: Final = 240.0
_CONTROLS_A_MINUTE: Final = 20
_NO_BROKER: Final = "stream-scorer: no answer from Kafka"
# Longer than a period of random failures: a good contact succeeds in one of its rounds.
_RETRY_DELAYS_S: Final = "[1, 5]"


class ChaosCluster(ChaosHarness):
    """One run on the `ChaosEnvironment`: topics, groups and workers of its own."""

    def __init__(self, machines: ChaosEnvironment, folder: Path, seed: int) -> None:
        machines.simulator.reset()
        machines.receiver.reset()
        machines.simulator.configure(quota=1_000_000, **LATENCY)
        super().__init__(machines.cluster.bootstrap_servers, machines.simulator, folder, replication=3)
        self.machines = machines
        self.risk = 0
        self._began = time.monotonic()
        self.named: dict[str, WorkerProcess] = {}
        self.memory: dict[str, list[float]] = {}
        proxied = ",".join(f"127.0.0.1:{line.port}" for line in machines.brokers.values())
        api = f"http://127.0.0.1:{machines.api.port}"
        self.changes |= {
            **SETTINGS,
            "STREAM_SCORER_SCORING__MAX_UNCOMMITTED": str(WINDOW),
            "STREAM_SCORER_SCORING__MAX_IN_FLIGHT": str(IN_FLIGHT),
            "STREAM_SCORER_SCORING__RETRY_DELAYS_S": _RETRY_DELAYS_S,
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": proxied,
            "STREAM_SCORER_GENESYS__BASE_URL": api,
            "STREAM_SCORER_GENESYS__LOGIN_URL": api,
        }
        self._proxied = proxied
        self.campaign_topics = self._make_campaign_topics()
        self.feeder = Feeder(
            self.bootstrap_servers,
            self.topics["features"],
            partitions=self.partitions,
            per_second=_PER_SECOND,
            seed=seed,
        )
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)

    def begin(self) -> None:
        """Start everything; on return, contacts are committed."""
        for name in NAMES:
            self.start_named(name)
        self.start_named("callbacks")
        self.wait(self._callbacks_started, "the campaign worker to have started")
        self.feeder.__enter__()
        self._sampler.start()
        self.flow(500, limit_s=_SETTLE_S)  # three brokers and four workers start at once

    def start_named(self, name: str, **changes: str) -> None:
        """Start the worker of this name, which does not run."""
        if name == "callbacks":
            self.named[name] = self._start_callbacks()
        else:
            self.named[name] = self.start("--from", "earliest", name=name, **changes)

    def restart_ended(self) -> None:
        """Start again the workers that ended because no broker was reachable, as Kubernetes or compose would.

        Only those that had not started yet: a worker that has started waits for the brokers.
        """
        for name, worker in list(self.named.items()):
            if ended_without_broker(worker):
                self.start_named(name)

    def await_started(self, name: str) -> WorkerProcess:
        """Wait until a worker has started. Before that it does not handle signals."""

        def started() -> bool:
            self.restart_ended()
            worker = self.named[name]
            assert worker.running, f"worker {name} ended before it had started\n{worker.log()[-3000:]}"
            return bool(worker.said("started"))

        self.wait(started, f"worker {name} to have started")
        return self.named[name]

    def stop_named(self, name: str) -> None:
        """Send SIGTERM and assert a clean exit."""
        worker = self.await_started(name)
        assert worker.stop() == 0, f"worker {name}\n{worker.log()[-3000:]}"

    def await_every_partition(self, limit_s: float) -> None:
        """Wait for a new commit on every partition: a worker that hangs does not commit its partitions."""
        wait_until(self.progress.by_partition, "the commits")
        before = self.progress.by_partition()

        def gone_on() -> bool:
            self.restart_ended()
            now = self.progress.by_partition()
            return bool(now) and all(now[number] > offset for number, offset in before.items())

        self.wait(gone_on, f"every partition to go on from {before}", limit_s=limit_s)

    def paid_again(self) -> int:
        """Return how many contacts the API has scored more than once: every contact is produced once."""
        return sum(times - 1 for times in self.simulator.scored(minimum=2).values())

    def end(self) -> ExpectedState:
        """Stop the feeder, wait until all is committed, stop every worker cleanly, and read all topics."""
        self.machines.heal()
        self.simulator.clear_faults()
        self.machines.receiver.clear_faults()
        self.feeder.stop()
        self.wait_done(limit_s=_SETTLE_S)
        self.wait(self._all_called, "every score that is due to have its receipt", limit_s=_SETTLE_S)
        self._ended.set()
        self.progress.close()
        for name in self.named:
            self.stop_named(name)
        state = read_state(self, self.campaign_topics)
        state.good = self.feeder.good
        state.account = self.simulator.scored()
        state.may_be_paid_again = self.risk + self._controls()
        state.recoveries = self.recoveries
        state.memory = [Memory(process, tuple(samples)) for process, samples in self.memory.items()]
        return state

    def _controls(self) -> int:
        """Return how many controls the workers may have sent: so many a minute for each process."""
        minutes = (time.monotonic() - self._began) / 60
        return round(_CONTROLS_A_MINUTE * (len(NAMES) * minutes + len(self.workers)))

    def _make_campaign_topics(self) -> dict[str, str]:
        name = self.group_id.removeprefix("group-")
        kinds = ("callbacks", "callbacks_retry", "callbacks_rejected", "receipts")
        topics = {kind: f"{kind.replace('_', '-')}-{name}" for kind in kinds}
        made = [topic for kind, topic in topics.items() if kind != "callbacks_retry"]
        made += [f"{topics['callbacks_retry']}-{tier}" for tier in range(1, _TIERS + 1)]
        admin = AdminClient(self._client)
        for future in admin.create_topics([NewTopic(topic, 4, 3) for topic in made], operation_timeout=30).values():
            future.result(30)
        return topics

    def _start_callbacks(self) -> WorkerProcess:
        port = free_port()
        topics = {**self.campaign_topics, "scores": self.topics["scores"]}
        settings = {
            **QUICK_CALLBACKS,
            "STREAM_SCORER_KAFKA__PROPERTIES": QUICK_SETTINGS["STREAM_SCORER_KAFKA__PROPERTIES"],
            **self.machines.receiver.environment(),
            "STREAM_SCORER_CALLBACKS__URL": f"http://127.0.0.1:{self.machines.receiver_line.port}/callbacks",
            "STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS": self._proxied,
            "STREAM_SCORER_KAFKA__GROUP_ID": self.group_id,
            "STREAM_SCORER_KAFKA__INSTANCE_ID": "callbacks",
            **{f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in topics.items()},
            "STREAM_SCORER_CALLBACKS__ADMIN_PORT": str(port),
        }
        log_file = self.folder / f"callbacks-{len(self.workers)}.log"
        self.workers.append(WorkerProcess(settings, ("--from", "earliest"), log_file, port, command="callbacks"))
        return self.workers[-1]

    def _callbacks_started(self) -> bool:
        """Restart it if it exited: a broker without the metadata of the new topics reports them missing."""
        if not self.named["callbacks"].running:
            self.start_named("callbacks")
        return bool(self.named["callbacks"].said("started"))

    def _all_called(self) -> bool:
        topics = {"scores": self.topics["scores"], **self.campaign_topics}
        rows = read_rows(self, {kind: topics[kind] for kind in ("scores", "callbacks", "receipts")})
        return not any(kind == "no receipt" for kind, _, _ in broken_callbacks(ExpectedState(rows, {})))

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            for name, worker in list(self.named.items()):
                size = resident_mib(worker)
                if size is not None:
                    self.memory.setdefault(f"{name}, process {worker.pid}", []).append(size)


def ended_without_broker(worker: WorkerProcess) -> bool:
    """Return whether a worker ended with exit 1 at its start, because no broker answered."""
    if worker.running or worker.exit_code() != 1 or worker.said("started"):
        return False
    return any(line.startswith(_NO_BROKER) for line in worker.errors())


def resident_mib(worker: WorkerProcess) -> float | None:
    """Return the resident memory of a worker; None if it has exited or the system does not report it."""
    try:
        status = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(lines[0].split()[1]) / 1024 if lines else None
