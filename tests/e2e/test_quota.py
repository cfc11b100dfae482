"""The quota is kept and used: the real stack at ten times the speed."""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from output_verifier import verify_outputs
from scoring_harness import contacts, wait_until
from support_fast import FastHarness, run_clocks_fast

if TYPE_CHECKING:
    from kafka_fixture import Broker

pytestmark = pytest.mark.kafka

CONTACTS_A_REQUEST = 5
SLOTS = 8
MINUTES = 2.2
# Time from a 429 at the API until the worker has received it, including requests in flight.
ON_THE_WAY_S = 15.0


def test_a_backlog_earns_no_429(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four backlogs at once, each with an API of its own.

    Equal quotas of API and worker; a lower one of the API; a lower one of the worker; two workers that share a client,
    each with the whole quota and without the headers of the API: these get a 429 at the end of a window and wait for
    its ``Retry-After``.

    How much of a quota is used is only printed: what this machine takes counts tenfold in fast motion. It is tested in
    simulated time (tests/unit/test_dispatcher_quota.py) and at the real pace (tests/chaos/test_quota_minutes.py).
    """
    run_clocks_fast(monkeypatch)
    plans = {
        "alike": (120, 120, 1),
        "theirs is lower": (60, 120, 1),
        "ours is lower": (120, 60, 1),
        "two": (120, 120, 2),
    }
    with contextlib.ExitStack() as stack:
        scenes: dict[str, FastHarness] = {}
        for name, (theirs, ours, workers) in plans.items():
            harness = scenes[name] = stack.enter_context(
                FastHarness(broker.bootstrap_servers, quota=theirs, counts_requests=workers == 1)
            )
            for _ in range(workers):
                harness.start(
                    genesys__requests_per_minute=str(ours),
                    scoring__max_contacts=str(CONTACTS_A_REQUEST),
                    scoring__max_in_flight=str(SLOTS),
                    kafka__start_from="earliest",
                )
        # After a rebalance within the backlog, contacts in flight would be billed again.
        wait_until(
            lambda: all(harness.is_shared() for harness in scenes.values()), "all partitions to have their owner"
        )
        for name, (theirs, ours, _) in plans.items():
            harness = scenes[name]
            harness.produce(contacts(int(min(theirs, ours) * MINUTES) * CONTACTS_A_REQUEST, harness.partitions))
        wait_until(lambda: all(harness.is_done() for harness in scenes.values()), "all backlogs to be committed")
        for name, (theirs, ours, _) in plans.items():
            harness, quota = scenes[name], min(theirs, ours)
            share = harness.share_used(quota, int(MINUTES))
            print(
                f"\n{name}: {share:.1%} of {quota} a minute over {int(MINUTES)} minutes, {len(harness.refused)} x 429"
            )
            harness.stop_workers()
            verdict = verify_outputs(harness)
            assert verdict.count("rejected") == 0, name
            assert len(verdict.outputs) == harness.produced, name
            assert verdict.paid_twice(harness.simulator.scored()) == 0, name
            if name != "two":
                assert harness.refused == [], name
    shared = scenes["two"]
    assert len({arrival.token for arrival in shared.arrivals}) == 2
    assert len(shared.refused) <= 2 * SLOTS * 3  # requests in flight when it is used up, in three windows
    waits = [
        (reply, reply.at + ON_THE_WAY_S, reply.at + (reply.retry_after_s or 0.0) - 1.0) for reply in shared.refused
    ]
    assert any(end - begin >= 10.0 for _, begin, end in waits), "a pause that is long enough to be seen"
    too_early = [
        arrival
        for reply, begin, end in waits
        for arrival in shared.arrivals
        if arrival.token == reply.token and begin < arrival.at < end
    ]
    assert too_early == []
