"""Faults outside of the workers: links to brokers, API and receiver, their responses, the topics."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cluster import LATENCY
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

if TYPE_CHECKING:
    from random import Random

    from cluster import ChaosCluster
    from faults import Begin, Undo

_MOST_PARTITIONS: Final = 8
_HANGS_MS: Final = 60_000

# --- links


def bad_line(which: str, how: str, *arguments: int) -> Begin:
    """Return a fault of the link to ``brokers``, ``api`` or ``receiver_line``."""

    def begin(world: ChaosCluster, _: Random) -> Undo:
        found = getattr(world.machines, which)
        lines = list(found.values()) if isinstance(found, dict) else [found]
        for line in lines:
            getattr(line, how)(*arguments)
        return lambda: [line.heal() for line in lines]

    return begin


def resets(which: str) -> Begin:
    def begin(world: ChaosCluster, _: Random) -> Undo:
        found = getattr(world.machines, which)
        for _again in range(5):
            for line in found.values() if isinstance(found, dict) else [found]:
                line.reset()
            time.sleep(0.5)  # so that connections exist for the next reset
        return lambda: None

    return begin


# --- the API and the receiver


def api_does(**words: Any) -> Begin:
    def begin(world: ChaosCluster, _: Random) -> Undo:
        world.simulator.add_fault(times=None, **words)
        return world.simulator.clear_faults

    return begin


def hangs_after(world: ChaosCluster, _: Random) -> Undo:
    """The API scores and bills the contacts of a request and does not respond."""
    world.simulator.configure(latency_ms=_HANGS_MS)
    return partial(world.simulator.configure, **LATENCY)


def no_token(world: ChaosCluster, _: Random) -> Undo:
    world.simulator.add_fault(path="token", status=503, times=None)
    world.simulator.revoke_tokens()
    return world.simulator.clear_faults


def receiver_does(**words: Any) -> Begin:
    def begin(world: ChaosCluster, _: Random) -> Undo:
        world.machines.receiver.add_fault(times=None, **words)
        return world.machines.receiver.clear_faults

    return begin


def add_partitions(world: ChaosCluster, _: Random) -> Undo:
    """Add a partition; late or not at all while the controller is the victim of another fault."""
    admin, topic = AdminClient(world._client), world.topics["features"]
    there = len(admin.list_topics(topic, timeout=30).topics[topic].partitions)
    if there < _MOST_PARTITIONS:
        with suppress(TimeoutError, KafkaException):
            for made in admin.create_partitions([NewPartitions(topic, there + 1)]).values():
                made.result(30)
            there += 1
    world.partitions = there
    world.feeder.set_partitions(there)
    return lambda: None
