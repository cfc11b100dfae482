"""Outage of the schema registry under load, with one broker and two workers.

Records of known schemas are scored. Records of a schema that was not fetched yet wait, also after a rebalance, and
are not rejected. A worker that starts meanwhile exits with one line, and its supervisor restarts it.
"""

# ruff: noqa: T201 - measured figures are printed

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from random_faults import note
from scenes import MAX_UNCOMMITTED, ChaosHarness
from scoring_harness import AUDIT, SCHEMAS, SCORE, Input, contacts
from verifier import verdict
from worker_harness import QUICK_SETTINGS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from expected_state import ExpectedState
    from scenes import Scenario
    from worker_harness import WorkerProcess

    from stream_scorer.local.schema_registry.server import EmbeddedRegistry

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(280)]

FAULT: Final = "schema registry down"
OURS: Final[dict[str, Any]] = json.loads((SCHEMAS / "contact-features.avsc").read_text(encoding="utf-8"))
# Each writer has a field of its own before ours; one is in Avro the two bytes that stand for it.
EARLY: Final = {name: {**OURS, "fields": [{"name": name, "type": "long"}, *OURS["fields"]]} for name in ("a", "b")}
ONE: Final = b"\x02"
NOWHERE: Final = 999_999
_OWN_FRAME: Final = len(AUDIT.header)


def framed(given: Iterable[Input], schema_id: int, before: bytes = ONE) -> Iterator[Input]:
    """Return the same contacts by another writer, in the Confluent wire format."""
    for one in given:
        assert one.value is not None
        yield replace(one, value=b"\0" + schema_id.to_bytes(4, "big") + before + one.value[_OWN_FRAME:])


def on(partition: int, given: Iterable[Input]) -> Iterator[Input]:
    """Return all of them on one partition."""
    return (replace(one, partition=partition) for one in given)


class RegistryWorld:
    """A harness with a registry and the schemas of several writers."""

    def __init__(self, stage: ChaosHarness, url: str) -> None:
        self.stage = stage
        stage.changes |= {"STREAM_SCORER_SCHEMA_REGISTRY__URL": url}
        self.client = SchemaRegistryClient({"url": url, "timeout": 10})
        self._register_ours()
        subject = f"theirs-{stage.group_id}"
        self.known, self.late = (
            self.client.register_schema(subject, Schema(json.dumps(schema), "AVRO")) for schema in EARLY.values()
        )
        kinds = {"scores": SCORE, "review": SCORE, "audit": AUDIT}
        subjects = {kind: f"{stage.topics[kind]}-value" for kind in kinds}
        self._frames = {
            kind: (b"\0" + self.client.get_latest_version(subjects[kind]).schema_id.to_bytes(4, "big"), codec.header)
            for kind, codec in kinds.items()
        }

    def reframed(self, state: ExpectedState) -> ExpectedState:
        """Convert values to the single-object encoding of the verifier; other values stay unchanged."""
        for kind, (theirs, ours) in self._frames.items():
            state.rows[kind] = [
                row._replace(value=ours + row.value.removeprefix(theirs))
                if row.value is not None and row.value.startswith(theirs)
                else row._replace(value=None)
                for row in state.rows[kind]
            ]
        return state

    def _register_ours(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_"))}
        stage = self.stage
        done = subprocess.run(
            [sys.executable, "-m", "stream_scorer", "schemas", "register"],
            env={**kept, **QUICK_SETTINGS, **stage.settings(), **stage.changes, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def waits(worker: WorkerProcess) -> bool:
    """Return whether /readyz reports records that wait for a schema."""
    return worker.running and "registry: schema id" in worker.why_not_ready()


def test_the_registry_goes_away(scene: Scenario, own_registry: EmbeddedRegistry) -> None:
    with scene.stage() as stage:
        world = RegistryWorld(stage, own_registry.start())
        workers = {name: stage.start_ready("--from", "earliest", name=name) for name in ("one", "two")}
        features, half = stage.topics["features"], stage.partitions // 2
        stage.wait(lambda: len(workers["one"].owned(features)) == half, "both to have their share")
        stage.produce(contacts(1000, stage.partitions))
        stage.produce(framed(contacts(1000, stage.partitions, "K"), world.known))
        stage.wait_done()  # both have fetched the known schema
        own_registry.stop()
        began = time.monotonic()

        # Records of known schemas are scored, in both framings.
        stage.produce(contacts(1000, stage.partitions, "D"))
        stage.produce(framed(contacts(1000, stage.partitions, "L"), world.known))
        stage.wait_done(needs=workers["one"])

        # Records of unknown schemas wait, with those after them on their partitions; other partitions continue.
        ends = stage.ends()
        for number in (0, 2):
            stage.produce(framed(on(number, contacts(50, 1, f"U{number}")), world.late))
            stage.produce(framed(on(number, contacts(1, 1, f"W{number}")), NOWHERE), good=False)
            stage.produce(framed(on(number, contacts(300, 1, f"B{number}")), world.known))
            stage.produce(on(number + 1, contacts(300, 1, f"G{number}")))
        stage.wait(lambda: any(map(waits, workers.values())), "a worker to wait for a schema")
        stage.wait(lambda: all(stage.commits()[n].offset >= ends[n] + 300 for n in (1, 3)), "the others to go on")

        # A worker that starts now exits; a killed worker leaves pending records to its successor, which waits as well.
        late = stage.start(name="late")
        assert late.exit_code() == 1
        assert "schema registry" in late.errors()[-1]
        victim = next(name for name, worker in workers.items() if waits(worker))
        survivor = next(worker for name, worker in workers.items() if name != victim)
        stage.kill(workers[victim])
        stage.wait_owned(survivor)
        stage.wait(lambda: waits(survivor), "the survivor to wait for a schema", needs=survivor)
        assert {n: stage.commits()[n].offset for n in (0, 2)} == {n: ends[n] for n in (0, 2)}

        own_registry.start()
        lasted_s, ended = time.monotonic() - began, time.monotonic()
        stage.recover(FAULT, survivor)
        recovered_s = time.monotonic() - ended
        stage.start_ready(name=victim)
        state = world.reframed(stage.close())

    found = verdict(state)
    again = sum(times - 1 for times in (state.account or {}).values())
    print(f"\nregistry away for {lasted_s:.0f} s: went on after {recovered_s:.1f} s, {again} paid again")
    note(
        faults=[FAULT],
        seed=0,
        lasted_s=round(lasted_s, 1),
        recovered_s=round(recovered_s, 1),
        paid_again=again,
        allowed=MAX_UNCOMMITTED,
    )
    number = len(state.rows["features"])
    note(run=FAULT, seed=0, contacts=number, paid_again=again, violations=found.splitlines()[:1])
    assert found == ""
    reasons = [row.own_header("error-detail") or "" for row in state.rows["rejected"]]
    assert len(reasons) == 2, "only what no registry knows is rejected"
    assert all(str(NOWHERE) in reason for reason in reasons)
