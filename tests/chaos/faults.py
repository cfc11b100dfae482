"""Catalog of faults: each has a start function that returns its undo function, and a duration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from cluster import IN_FLIGHT, NAMES, WINDOW
from line_faults import add_partitions, api_does, bad_line, hangs_after, no_token, receiver_does, resets
from process_faults import (
    end_during_rebalance,
    fill_disk,
    kill,
    kill_callbacks,
    kill_node,
    move_coordinator,
    pause,
    pause_node,
    restart_node,
    roll,
    wrong_clock,
)
from scenes import MAX_CONTACTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from cluster import ChaosCluster

    Undo = Callable[[], object]
    Begin = Callable[[ChaosCluster, Random], Undo]

# Contacts that all workers have read and not committed, and those of them in flight.
ALL: Final = len(NAMES) * WINDOW
UNDER_WAY: Final = len(NAMES) * IN_FLIGHT * MAX_CONTACTS


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault.

    Attributes:
        name: shown in results.
        begin: starts it and returns the function that ends it.
        seconds: shortest and longest duration.
        risk: the most contacts that may be billed twice because of it.
    """

    name: str
    begin: Begin
    seconds: tuple[float, float]
    risk: int

    @property
    def victim(self) -> str:
        """Return its victim, the first part of its name: ``worker``, ``broker``, ``line to the API`` …"""
        return self.name.partition(":")[0].removesuffix("s")


def known_faults(world: ChaosCluster) -> list[Fault]:
    """Return the faults that are possible on this machine."""
    lasting, short = (6.0, 9.0), (2.0, 6.0)
    faults = [
        Fault("worker: SIGKILL", kill, (0.0, 2.0), WINDOW),
        Fault("worker: SIGSTOP longer than the session, SIGCONT", pause, lasting, WINDOW),
        Fault("worker: SIGTERM during a rebalance", end_during_rebalance, (0.0, 2.0), ALL),
        Fault("callbacks worker: SIGKILL", kill_callbacks, (0.0, 2.0), 0),
        Fault("broker: killed", kill_node, (1.0, 12.0), ALL),
        Fault("broker: stopped and started", restart_node, (1.0, 6.0), ALL),
        Fault("broker: stands still (SIGSTOP)", pause_node, lasting, ALL),
        Fault("brokers: rolling restart", roll, (0.0, 1.0), ALL),
        Fault("brokers: the group's coordinator moves", move_coordinator, (1.0, 6.0), ALL),
        Fault("line to the brokers: reset again and again", resets("brokers"), (0.0, 1.0), ALL),
        Fault("line to the brokers: 300 ms latency", bad_line("brokers", "latency", 300), lasting, ALL),
        Fault("line to the brokers: 40 kB/s", bad_line("brokers", "bandwidth", 40), lasting, ALL),
        Fault("line to the brokers: half-open", bad_line("brokers", "half_open"), short, ALL),
        Fault("line to the brokers: half-open, transactions time out", bad_line("brokers", "half_open"), (10, 14), ALL),
        Fault("line to the API: reset again and again", resets("api"), (0.0, 1.0), 5 * ALL),
        Fault("line to the API: 1 s latency", bad_line("api", "latency", 1000), lasting, ALL),
        Fault("line to the API: half-open", bad_line("api", "half_open"), lasting, 3 * ALL),
        Fault("API: 429 storm", api_does(status=429, retry_after=1), lasting, 0),
        Fault("API: 5xx storm", api_does(status=503), lasting, 0),
        Fault("API: every other request fails with 500", api_does(status=500, share=0.5), lasting, 0),
        Fault("API: hangs", api_does(delay_ms=60_000), lasting, 3 * ALL),
        # A slot whose request ends at its deadline of 5 s sends two requests in this time, a third if it is longer.
        Fault("API: hangs after the request was taken", hangs_after, lasting, 3 * UNDER_WAY),
        Fault("API: connection reset before the request is taken", api_does(drop="before", share=0.5), lasting, 0),
        Fault("API: connection reset after the request was taken", api_does(drop="after", share=0.5), short, 5 * ALL),
        Fault("API: token endpoint down, tokens revoked", no_token, lasting, 0),
        Fault("receiver: hangs", receiver_does(hang=True), lasting, 0),
        Fault("receiver: 5xx", receiver_does(status=503), lasting, 0),
        Fault("line to the receiver: half-open", bad_line("receiver_line", "half_open"), lasting, 0),
        Fault("partitions are added to the features topic", add_partitions, (0.0, 1.0), ALL),
    ]
    if world.machines.wrong_clock is not None:
        late, early = partial(wrong_clock, -26), partial(wrong_clock, 26)
        faults.append(Fault("worker: clock 26 hours late", late, lasting, 2 * WINDOW))
        faults.append(Fault("worker: clock 26 hours early", early, lasting, 2 * WINDOW))
    if world.machines.small_disk is not None:
        faults.append(Fault("broker: disk full", fill_disk, lasting, ALL))
    return faults
