"""Faults of processes: workers and brokers that are killed, stopped, or have a wrong clock or a full disk."""

from __future__ import annotations

import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from cluster import NAMES
from confluent_kafka.admin import AdminClient
from environment import FILLER

from stream_scorer.errors import LocalError

if TYPE_CHECKING:
    from random import Random

    from cluster import ChaosCluster
    from faults import Undo
    from worker_harness import WorkerProcess

    from stream_scorer.local.kafka.broker import EmbeddedKafka

# --- workers


def kill(world: ChaosCluster, draw: Random) -> Undo:
    name = draw.choice(NAMES)
    world.named[name].kill()
    return partial(world.start_named, name)


def kill_callbacks(world: ChaosCluster, _: Random) -> Undo:
    world.named["callbacks"].kill()
    return partial(world.start_named, "callbacks")


def pause(world: ChaosCluster, draw: Random) -> Undo:
    worker = world.named[draw.choice(NAMES)]
    worker.pause()
    return worker.resume


def end_during_rebalance(world: ChaosCluster, draw: Random) -> Undo:
    """A member joins, and during the rebalance another member gets SIGTERM."""
    name = draw.choice(NAMES)
    guest = world.start(name="guest")
    world.wait(lambda: guest.said("started"), "the guest to join", needs=guest)
    world.await_started(name).send(signal.SIGTERM)

    def undo() -> None:
        assert world.named[name].exit_code() == 0, world.named[name].log()
        world.start_named(name)
        world.await_started(name)
        assert guest.stop() == 0, guest.log()

    return undo


def wrong_clock(hours: int, world: ChaosCluster, draw: Random) -> Undo:
    """A worker is started with a wrong system clock."""
    name, library = draw.choice(NAMES), world.machines.wrong_clock
    world.stop_named(name)
    kept = dict(world.changes)
    world.changes |= {"LD_PRELOAD": str(library), "CLOCK_SHIFT_S": str(3600 * hours)}
    world.start_named(name)
    world.changes = kept
    worker = world.named[name]

    def has_started() -> bool:
        # While another fault keeps the API away, the start waits: its worker joins no group.
        return bool(worker.said("partition assigned") or worker.said("start delayed"))

    world.wait(has_started, "the worker to have partitions, or to wait for the API", needs=worker)
    if hours > 0 and worker.said("partition assigned"):  # more than the brokers allow: the breaker has to open
        world.wait(lambda: _reports_wrong_clock(worker), "the worker to report that its clock is wrong", needs=worker)

    def undo() -> None:
        world.stop_named(name)
        world.start_named(name)

    return undo


def _reports_wrong_clock(worker: WorkerProcess) -> bool:
    return any("clock is wrong" in said["detail"] for said in worker.said("transaction failed"))


# --- brokers


def kill_node(world: ChaosCluster, draw: Random) -> Undo:
    node = world.machines.cluster.node(draw.choice((1, 2, 3)))
    node.kill()
    return lambda: _started(node)


def restart_node(world: ChaosCluster, draw: Random) -> Undo:
    node = world.machines.cluster.node(draw.choice((1, 2, 3)))
    node.stop()
    return lambda: _started(node)


def pause_node(world: ChaosCluster, draw: Random) -> Undo:
    node = world.machines.cluster.node(draw.choice((1, 2, 3)))
    node.pause()
    return node.resume


def roll(world: ChaosCluster, _: Random) -> Undo:
    for node_id in (1, 2, 3):
        node = world.machines.cluster.node(node_id)
        node.stop()
        node.start()
    return lambda: None


def move_coordinator(world: ChaosCluster, _: Random) -> Undo:
    """Stop the coordinator of the group: another node takes over the group and its transactions."""
    admin = AdminClient(world._client)
    [described] = admin.describe_consumer_groups([world.group_id], request_timeout=10).values()
    node = world.machines.cluster.node(described.result().coordinator.id)
    node.stop()
    return lambda: _started(node)


def fill_disk(world: ChaosCluster, _: Random) -> Undo:
    folder = world.machines.small_disk
    assert folder is not None
    filler, node = folder / FILLER, world.machines.cluster.node(3)
    with filler.open("wb", buffering=0) as file, suppress(OSError):  # otherwise close would write the rest
        while True:
            file.write(b"\0" * 65_536)

    def undo() -> None:
        filler.unlink()
        # A broker whose only disk has failed exits at some time or serves nothing until it is restarted.
        with suppress(LocalError):
            node.kill()
        _started(node)

    return undo


def _started(node: EmbeddedKafka) -> None:
    node.start()
