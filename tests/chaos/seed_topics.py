"""Writer of violations on the topics of a valid run, as a faulty worker would leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from callbacks_harness import score
from confluent_kafka import Producer, TopicPartition
from expected_state import PREFIX
from scoring_harness import AUDIT, SCORE, contact
from seed_records import audit_event, entry

if TYPE_CHECKING:
    from expected_state import ExpectedState
    from scoring_harness import ScoringHarness

_PARTITION = 0
_S = 30.0


class Planted(NamedTuple):
    """An expected violation: its kind and its location."""

    kind: str
    place: str


class SeedWriter:
    """Adds records to a partition of each topic and then commits all of the features."""

    def __init__(self, harness: ScoringHarness, state: ExpectedState) -> None:
        self._harness = harness
        self._state = state
        self._producer = Producer(
            {"bootstrap.servers": harness.bootstrap_servers, "transactional.id": f"planter-{harness.group_id}"}
        )
        self._producer.init_transactions(_S)

    def plant(self) -> set[Planted]:
        """Plant all violations, and a valid record among them that must not be reported."""
        old = next(row for row in self._state.rows["scores"] if row.partition == _PARTITION)
        self._producer.begin_transaction()
        self._produce("scores", old.key, old.value, list(old.headers))
        self._producer.abort_transaction(_S)  # invisible with read_committed
        self._producer.begin_transaction()
        doubled = self._produce("scores", old.key, old.value, list(old.headers))
        lost, unaudited, first, second, good, unlinked = (
            self._produce("features", name.encode(), contact(name).value)
            for name in ("P-lost", "P-unaudited", "P-first", "P-second", "P-good", "P-unlinked")
        )
        for name, source in (("P-unaudited", unaudited), ("P-second", second)):
            self._score(name, source, "batch-0")
        late = self._score("P-first", first, "batch-0")
        self._score("P-good", good, "batch-0")
        self._score("P-unlinked", unlinked, "batch-1")
        listed = {"P-lost": lost, "P-first": first, "P-second": second, "P-good": good}
        event = audit_event(0, b"", [entry(source, name, "SCORED") for name, source in listed.items()])
        self._audit(event)
        twice = self._wait_twice()
        broken = self._audit(audit_event(1, b"of another event", [entry(unlinked, "P-unlinked", "SCORED")]))
        self._producer.commit_transaction(_S)
        self._commit()
        return {
            Planted("doubled", doubled),
            Planted("lost", lost),
            Planted("unaudited", unaudited),
            Planted("reordered", late),
            Planted("chain", broken),
            Planted("waits twice", twice),
        }

    def _wait_twice(self) -> str:
        """Put a contact into two retry topics, and a contact deferred by another group, which must be ignored."""
        source = self._produce("features", b"P-waits", contact("P-waits").value)
        own, other = self._harness.group_id.encode(), b"another"
        places = [
            self._produce_to(topic, b"P-waits", contact("P-waits").value, self._waits(source, group))
            for topic, group in zip(self._harness.retries, (own, other, own), strict=True)
        ]
        return places[2]

    def _waits(self, source: str, group: bytes) -> list[tuple[str, bytes]]:
        return [(f"{PREFIX}source", source.encode()), (f"{PREFIX}deferred", b"1"), (f"{PREFIX}group", group)]

    def _score(self, contact_id: str, source: str, batch_id: str) -> str:
        headers = [(f"{PREFIX}source", source.encode()), (f"{PREFIX}batch", batch_id.encode())]
        return self._produce("scores", contact_id.encode(), SCORE.encode(score(contact_id)), headers)

    def _audit(self, event: dict[str, Any]) -> str:
        return self._produce("audit", event["chain_id"].encode(), AUDIT.encode(event))

    def _produce(self, kind: str, key: bytes | None, value: bytes | None, headers: Any = ()) -> str:
        return self._produce_to(self._harness.topics[kind], key, value, headers)

    def _produce_to(self, topic: str, key: bytes | None, value: bytes | None, headers: Any = ()) -> str:
        """Produce a record and return its location."""
        places: list[str] = []
        self._producer.produce(
            topic,
            value,
            key,
            partition=_PARTITION,
            headers=list(headers),
            on_delivery=lambda error, message: places.append(
                str(error) if error else f"{message.topic()}/{message.partition()}/{message.offset()}"
            ),
        )
        assert self._producer.flush(_S) == 0
        return places[0]

    def _commit(self) -> None:
        """Commit the end of the features as the group does, with its start."""
        topic, number = self._harness.topics["features"], _PARTITION
        end, said = self._harness.ends()[number], self._state.commits[number].metadata
        with self._harness.reader(self._harness.group_id) as reader:
            reader.commit(offsets=[TopicPartition(topic, number, end, said)], asynchronous=False)
