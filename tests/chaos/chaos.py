"""Kill storm: workers get SIGKILL at random times under load, while a third worker joins and leaves.

``python tests/chaos/chaos.py [--kills N] [--contacts N] [--seed N]`` runs it on a Kafka and a simulator of its own and
prints what it measured; the tests beside it run the same storm. The order of events is drawn from the seed. Each event
has a position in the progress of the group, so that every kill happens under load, plus a random delay, so that it
happens anywhere in the loop.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

from output_verifier import verify_outputs
from scoring_harness import contacts
from worker_harness import WorkerHarness

from stream_scorer.local.kafka.broker import EmbeddedKafka
from stream_scorer.local.kafka.config import KafkaConfig
from stream_scorer.local.simulator import Simulator

if TYPE_CHECKING:
    from scoring_harness import Progress
    from worker_harness import WorkerProcess

PARTITIONS = 4
MAX_UNCOMMITTED = 2000
# Small requests and a slow API keep many requests in flight at any time: the most that a kill can cost.
SETTINGS = {
    "STREAM_SCORER_SCORING__MAX_CONTACTS": "100",
    "STREAM_SCORER_SCORING__MAX_IN_FLIGHT": "8",
    "STREAM_SCORER_SCORING__MAX_UNCOMMITTED": str(MAX_UNCOMMITTED),
    "STREAM_SCORER_SCORING__LINGER_MS": "20",
    "STREAM_SCORER_SCORING__COMMIT_INTERVAL_MS": "50",
}
LATENCY_MS = 700
_LONGEST_DELAY_S = 1.5
_LEFT = 5_000
_GUESTS_EVERY = 5  # kills between two changes of the third worker


@dataclass(frozen=True, slots=True)
class Report:
    """Measurements of a storm."""

    contacts: int
    kills: int
    paid_twice: int
    chains: int
    seconds: float

    @property
    def bound(self) -> int:
        """Return the maximum cost of the kills: ``max_uncommitted`` each."""
        return self.kills * MAX_UNCOMMITTED

    def __str__(self) -> str:
        each = self.paid_twice / self.kills if self.kills else 0.0
        return (
            f"{self.contacts} contacts, {self.kills} SIGKILLs in {self.seconds:.0f} s: none lost, none visible twice, "
            f"{self.chains} audit chains whole; {self.paid_twice} contacts paid twice, {each:.0f} a kill "
            f"(allowed: {MAX_UNCOMMITTED} a kill)"
        )


class Storm:
    """Two workers that are killed and started again under their names, and a guest."""

    def __init__(self, stage: WorkerHarness, *, number: int, kills: int, seed: int) -> None:
        self._stage = stage
        self._number = number
        self._random = random.Random(seed)  # noqa: S311 - no secret, and every run draws the same
        # Late enough to be under load, early enough that work is left after the random delay.
        last = min(int(number * 0.9), number - _LEFT)
        self._marks = sorted(self._random.sample(range(number // 20, last), kills))
        self._workers: dict[str, WorkerProcess] = {}
        self._guest: WorkerProcess | None = None

    def run(self) -> Report:
        stage = self._stage
        stage.changes |= SETTINGS
        stage.simulator.configure(latency_ms=LATENCY_MS, latency_jitter_ms=LATENCY_MS)
        stage.produce(contacts(self._number, stage.partitions))
        began = time.monotonic()
        for name in ("one", "two"):
            self._workers[name] = stage.start("--from", "earliest", name=name)
        progress = stage.watch()
        try:
            for kill, mark in enumerate(self._marks, 1):
                stage.wait(partial(_reached, progress, mark), f"{mark} commits before kill {kill}", limit_s=180)
                self._kill_one(progress)
                assert progress.done() < self._number, (
                    f"kill {kill} came when nothing flowed any more: slow the API down"
                )
                if kill % _GUESTS_EVERY == 0:
                    self._guest_comes_or_goes()
        finally:
            progress.close()
        stage.wait_done(limit_s=240)
        seconds = time.monotonic() - began
        for worker in (*self._workers.values(), self._guest):
            if worker is not None:
                stage.wait(partial(worker.said, "started"), "every worker to have started", needs=worker)
                assert worker.stop() == 0, worker.log()
        verdict = verify_outputs(stage)
        assert len(verdict.outputs) == self._number
        assert verdict.count("rejected") == 0
        paid_twice = verdict.paid_twice(stage.simulator.scored())
        return Report(self._number, len(self._marks), paid_twice, verdict.chains, seconds)

    def _kill_one(self, progress: Progress) -> None:
        name = self._random.choice(sorted(self._workers))
        worker = self._workers[name]
        # A kill during the startup costs nothing and shows little: the worker must have had work.
        self._stage.wait(partial(worker.said, "partition assigned"), f"worker {name} to have work", needs=worker)
        # On a slow machine the others may have finished nearly all work during this startup.
        if self._number - progress.done() < _LEFT:
            self._stage.produce(contacts(_LEFT, self._stage.partitions, prefix=f"more-{self._number}"))
            self._number += _LEFT
        time.sleep(self._random.uniform(0, _LONGEST_DELAY_S))  # the random time is intended
        worker.kill()
        self._workers[name] = self._stage.start(name=name)

    def _guest_comes_or_goes(self) -> None:
        if self._guest is None:
            self._guest = self._stage.start(name="guest")
        else:
            guest, self._guest = self._guest, None
            self._stage.wait(lambda: guest.said("partition assigned"), "the guest to have work", needs=guest)
            assert guest.stop() == 0, guest.log()


def _reached(progress: Progress, mark: int) -> bool:
    return progress.done() >= mark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--contacts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stream-scorer-chaos-") as name:
        folder = Path(name)
        config = KafkaConfig(data_dir=folder / "kafka", port=0, properties={"group.min.session.timeout.ms": "1000"})
        with EmbeddedKafka(config) as kafka, Simulator() as simulator:
            simulator.configure(quota=1_000_000)
            stage = WorkerHarness(kafka.bootstrap_servers, simulator, folder, partitions=PARTITIONS)
            try:
                report = Storm(stage, number=given.contacts, kills=given.kills, seed=given.seed).run()
            finally:
                stage.kill_all()
            print(report)  # noqa: T201 - what the command is for
            if report.paid_twice > report.bound:
                sys.exit(1)


if __name__ == "__main__":
    main()
