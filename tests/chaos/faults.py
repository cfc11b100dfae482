"""What goes wrong: every fault begins, lasts, and ends; how it is undone is what its beginning returns."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from world import NAMES, WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from support_worker import WorkerProcess
    from world import World

    Undo = Callable[[], object]
    Begin = Callable[[World, Random], Undo]

ALL: Final = len(NAMES) * WINDOW
_MOST_PARTITIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of trouble.

    Attributes:
        name: for people.
        begin: makes it, and returns what ends it.
        seconds: how long it lasts, from and to.
        risk: the most contacts it may cost a second time.
    """

    name: str
    begin: Begin
    seconds: tuple[float, float]
    risk: int


# --- workers


def _kill(world: World, draw: Random) -> Undo:
    name = draw.choice(NAMES)
    world.named[name].kill()
    return partial(world.start_named, name)


def _kill_callbacks(world: World, _: Random) -> Undo:
    world.named["callbacks"].kill()
    return partial(world.start_named, "callbacks")


def _pause(world: World, draw: Random) -> Undo:
    worker = world.named[draw.choice(NAMES)]
    worker.pause()
    return worker.resume


def _end_during_rebalance(world: World, draw: Random) -> Undo:
    """A guest comes, and while the group makes room for it another member is told to end."""
    name = draw.choice(NAMES)
    guest = world.start(name="guest")
    world.wait(lambda: guest.said("started"), "the guest to join", needs=guest)
    world.named[name].send(signal.SIGTERM)

    def undo() -> None:
        assert world.named[name].exit_code() == 0, world.named[name].log()
        world.start_named(name)
        world.wait(lambda: world.named[name].said("started"), "the worker to be back")
        assert guest.stop() == 0, guest.log()

    return undo


def _wrong_clock(hours: int, world: World, draw: Random) -> Undo:
    """A worker is started on a machine whose calendar is wrong."""
    name, library = draw.choice(NAMES), world.machines.wrong_clock
    world.stop_named(name)
    kept = dict(world.changes)
    world.changes |= {"LD_PRELOAD": str(library), "CLOCK_SHIFT_S": str(3600 * hours)}
    world.start_named(name)
    world.changes = kept
    worker = world.named[name]
    world.wait(lambda: worker.said("partition assigned"), "the worker to have partitions", needs=worker)
    if hours > 0:  # more than the brokers allow: it has to hold
        world.wait(lambda: _says_so(worker), "the worker to say that its clock is wrong", needs=worker)

    def undo() -> None:
        world.stop_named(name)
        world.start_named(name)

    return undo


def _says_so(worker: WorkerProcess) -> bool:
    return any("clock is wrong" in said["detail"] for said in worker.said("publishing failed, trying again"))


# --- brokers


def _kill_node(world: World, draw: Random) -> Undo:
    node = world.machines.cluster.node(draw.choice((1, 2, 3)))
    node.kill()
    return lambda: _started(node)


def _restart_node(world: World, draw: Random) -> Undo:
    node = world.machines.cluster.node(draw.choice((1, 2, 3)))
    node.stop()
    return lambda: _started(node)


def _pause_node(world: World, draw: Random) -> Undo:
    node = world.machines.cluster.node(draw.choice((1, 2, 3)))
    node.pause()
    return node.resume


def _roll(world: World, _: Random) -> Undo:
    for node_id in (1, 2, 3):
        node = world.machines.cluster.node(node_id)
        node.stop()
        node.start()
    return lambda: None


def _move_coordinator(world: World, _: Random) -> Undo:
    """The node that leads the group's own topic is stopped: another one takes group and transactions over."""
    admin = AdminClient(world._client)
    [described] = admin.describe_consumer_groups([world.group_id], request_timeout=10).values()
    node = world.machines.cluster.node(described.result().coordinator.id)
    node.stop()
    return lambda: _started(node)


def _fill_disk(world: World, _: Random) -> Undo:
    folder = world.machines.small_disk
    assert folder is not None
    filler, node = folder / "filler", world.machines.cluster.node(3)
    with filler.open("wb") as file:
        try:
            while True:
                file.write(b"\0" * 1_048_576)
                file.flush()
        except OSError:
            pass

    def undo() -> None:
        filler.unlink()
        if node.status() is not None:
            node.kill()  # a broker whose only disk has failed ends, or serves nothing until it is started again
        _started(node)

    return undo


def _started(node: Any) -> None:
    node.start()


# --- lines


def _line(which: str, how: str, *arguments: int) -> Begin:
    """Makes the line to ``brokers``, ``api`` or ``receiver_line`` bad."""

    def begin(world: World, _: Random) -> Undo:
        found = getattr(world.machines, which)
        lines = list(found.values()) if isinstance(found, dict) else [found]
        for line in lines:
            getattr(line, how)(*arguments)
        return lambda: [line.heal() for line in lines]

    return begin


def _resets(which: str) -> Begin:
    def begin(world: World, _: Random) -> Undo:
        found = getattr(world.machines, which)
        for _again in range(5):
            for line in found.values() if isinstance(found, dict) else [found]:
                line.reset()
            time.sleep(0.5)  # so that there is something to reset again
        return lambda: None

    return begin


# --- the API and the receiver


def _api(**words: Any) -> Begin:
    def begin(world: World, _: Random) -> Undo:
        world.simulator.add_fault(times=None, **words)
        return world.simulator.clear_faults

    return begin


def _no_token(world: World, _: Random) -> Undo:
    world.simulator.add_fault(path="token", status=503, times=None)
    world.simulator.revoke_tokens()
    return world.simulator.clear_faults


def _receiver(**words: Any) -> Begin:
    def begin(world: World, _: Random) -> Undo:
        world.machines.receiver.add_fault(times=None, **words)
        return world.machines.receiver.clear_faults

    return begin


def _add_partitions(world: World, _: Random) -> Undo:
    if world.partitions < _MOST_PARTITIONS:
        world.partitions += 1
        admin = AdminClient(world._client)
        for made in admin.create_partitions([NewPartitions(world.topics["features"], world.partitions)]).values():
            made.result(30)
        world.feeder.set_partitions(world.partitions)
    return lambda: None


def known_faults(world: World) -> list[Fault]:
    """All that can be done here."""
    lasting, short = (6.0, 9.0), (2.0, 6.0)
    faults = [
        Fault("worker: SIGKILL", _kill, (0.0, 2.0), WINDOW),
        Fault("worker: SIGSTOP longer than the session, SIGCONT", _pause, lasting, WINDOW),
        Fault("worker: SIGTERM during a rebalance", _end_during_rebalance, (0.0, 2.0), ALL),
        Fault("callbacks worker: SIGKILL", _kill_callbacks, (0.0, 2.0), 0),
        Fault("broker: killed", _kill_node, (1.0, 12.0), ALL),
        Fault("broker: stopped and started", _restart_node, (1.0, 6.0), ALL),
        Fault("broker: stands still (SIGSTOP)", _pause_node, lasting, ALL),
        Fault("brokers: rolling restart", _roll, (0.0, 1.0), ALL),
        Fault("brokers: the group's coordinator moves", _move_coordinator, (1.0, 6.0), ALL),
        Fault("line to the brokers: reset again and again", _resets("brokers"), (0.0, 1.0), ALL),
        Fault("line to the brokers: 300 ms latency", _line("brokers", "latency", 300), lasting, ALL),
        Fault("line to the brokers: 40 kB/s", _line("brokers", "bandwidth", 40), lasting, ALL),
        Fault("line to the brokers: half-open", _line("brokers", "half_open"), short, ALL),
        Fault("line to the brokers: half-open, transactions time out", _line("brokers", "half_open"), (10, 14), ALL),
        Fault("line to the API: reset again and again", _resets("api"), (0.0, 1.0), 5 * ALL),
        Fault("line to the API: 1 s latency", _line("api", "latency", 1000), lasting, ALL),
        Fault("line to the API: half-open", _line("api", "half_open"), lasting, 3 * ALL),
        Fault("API: 429 storm", _api(status=429, retry_after=1), lasting, 0),
        Fault("API: 5xx storm", _api(status=503), lasting, 0),
        Fault("API: every other request fails with 500", _api(status=500, share=0.5), lasting, 0),
        Fault("API: hangs", _api(delay_ms=60_000), lasting, 3 * ALL),
        Fault("API: connection reset before the request is taken", _api(drop="before", share=0.5), lasting, 0),
        Fault("API: connection reset after the request was taken", _api(drop="after", share=0.5), short, 5 * ALL),
        Fault("API: token endpoint down, tokens revoked", _no_token, lasting, 0),
        Fault("receiver: hangs", _receiver(hang=True), lasting, 0),
        Fault("receiver: 5xx", _receiver(status=503), lasting, 0),
        Fault("line to the receiver: half-open", _line("receiver_line", "half_open"), lasting, 0),
        Fault("partitions are added to the features topic", _add_partitions, (0.0, 1.0), ALL),
    ]
    if world.machines.wrong_clock is not None:
        late, early = partial(_wrong_clock, -26), partial(_wrong_clock, 26)
        faults.append(Fault("worker: clock 26 hours late", late, lasting, 2 * WINDOW))
        faults.append(Fault("worker: clock 26 hours early", early, lasting, 2 * WINDOW))
    if world.machines.small_disk is not None:
        faults.append(Fault("broker: disk full", _fill_disk, lasting, ALL))
    return faults
