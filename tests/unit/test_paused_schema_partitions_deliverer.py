"""Callbacks of unknown writer schemas in the loop of the deliverer, beside other reasons to pause a partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from delivery_harness import CALLBACKS, START_MS, DeliveryHarness, SimulatedReceivers, callback, delivered

from stream_scorer.core.avro.confluent import ConfluentCodec, WriterUnknownError, confluent_header
from stream_scorer.core.callbacks.records import callback_value
from stream_scorer.core.records import Partition
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = load_schema(SchemaFile.CAMPAIGN_CALLBACK)
KNOWN, UNKNOWN = 3, 17


class Lookup:
    """Lookup with one id from the start, and the other once it is added."""

    def __init__(self) -> None:
        self.known = {KNOWN}

    def request(self, _: int, **__: bool) -> None:
        """Ignore: the schema is added by the test."""

    def is_answered(self, schema_id: int) -> bool:
        return schema_id in self.known

    def error_for(self, schema_id: int) -> str:
        return "" if schema_id in self.known else f"schema id {schema_id} cannot be fetched: no connection"

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        if schema_id not in self.known:
            raise WriterUnknownError(schema_id)
        return SCHEMA


def fill(world: SimulatedReceivers) -> set[str]:
    """Partition 0 has known writers, then an unknown one; partition 1 only known ones; retry topic 1 has both."""
    names = set()

    def put(topic: str, number: int, name: str, schema_id: int, **changes: Any) -> None:
        body = CALLBACKS.encode_body(callback_value(callback(name, **changes)))
        world.write(topic, name.encode(), confluent_header(schema_id) + body, number=number)
        names.add(name)

    for n in range(30):
        put("callbacks", 0, f"held-{n}", UNKNOWN if n == 5 else KNOWN)
        put("callbacks", 1, f"free-{n}", KNOWN)
    put("retry-1", 0, "tier-unknown", UNKNOWN, not_before_ms=START_MS + 5_000)
    put("retry-1", 0, "tier-behind", KNOWN, not_before_ms=START_MS + 6_000)
    put("retry-1", 1, "tier-free", KNOWN, not_before_ms=START_MS + 4_000)
    return names


@pytest.mark.parametrize("max_uncommitted", [4, 12, 1_000])
def test_only_partitions_with_pending_schemas_wait_and_nothing_is_lost_or_duplicated(max_uncommitted: int) -> None:
    world = SimulatedReceivers(lambda _, __: delivered())
    names, lookup = fill(world), Lookup()
    codec = ConfluentCodec.confluent(SCHEMA, lookup.writer)
    bench = DeliveryHarness(world, max_uncommitted=max_uncommitted, codec=codec, lookup=lookup)
    free = {name for name in names if "free" in name} | {f"held-{n}" for n in range(5)}
    before: list[tuple[set[str], str | None]] = []

    def look() -> None:
        if not before and free <= set(world.receipts()) and world.now > 1_010:
            before.append((set(world.receipts()), bench.observe.readiness_failure()))
            lookup.known.add(UNKNOWN)

    bench.run(lambda: not world.waiting(), look)
    [(done, reason)] = before
    assert done == free
    assert reason == "deliverer: registry: schema id 17 cannot be fetched: no connection"
    assert bench.observe.readiness_failure() == "deliverer: draining"
    assert set(world.outcomes()) == names
    assert set(world.outcomes().values()) == {"DELIVERED"}


def test_pending_records_are_left_to_the_next_owner() -> None:
    world = SimulatedReceivers(lambda _, __: delivered())
    names, lookup = fill(world), Lookup()

    def bench() -> DeliveryHarness:
        return DeliveryHarness(world, codec=ConfluentCodec.confluent(SCHEMA, lookup.writer), lookup=lookup)

    first = bench()
    first.run(lambda: len(world.receipts()) >= 36 and world.now > 1_010)
    assert world.committed[Partition("callbacks", 0)] == 5
    assert world.committed.get(Partition("retry-1", 0), 0) == 0
    second = bench()

    def take_away_and_give_back() -> None:
        if second.rounds == 20:
            second.source.revoke([Partition("callbacks", 0), Partition("retry-1", 0)])
        if second.rounds == 30:
            second.source.assign([Partition("callbacks", 0), Partition("retry-1", 0)])
        if second.rounds == 50:
            lookup.known.add(UNKNOWN)

    second.run(lambda: not world.waiting(), take_away_and_give_back)
    assert set(world.outcomes()) == names
    assert world.topic("rejected") == []
