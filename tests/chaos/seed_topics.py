"""Violations planted on the topics of a run that was good: what a worker would have left there that makes mistakes."""

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
    """What has to be found: the kind of violation, and where it stands."""

    kind: str
    place: str


class SeedWriter:
    """Adds records to a partition of each topic, and then commits all of the features."""

    def __init__(self, arena: ScoringHarness, books: ExpectedState) -> None:
        self._arena = arena
        self._books = books
        self._producer = Producer(
            {"bootstrap.servers": arena.bootstrap_servers, "transactional.id": f"planter-{arena.group_id}"}
        )
        self._producer.init_transactions(_S)

    def plant(self) -> set[Planted]:
        """All of them; what is planted in order stands among it, and must not be found."""
        old = next(row for row in self._books.rows["scores"] if row.partition == _PARTITION)
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
        """A contact in two retry topics; and what another group deferred, which is nothing of ours."""
        source = self._produce("features", b"P-waits", contact("P-waits").value)
        own, other = self._arena.group_id.encode(), b"another"
        places = [
            self._produce_to(topic, b"P-waits", contact("P-waits").value, self._waits(source, group))
            for topic, group in zip(self._arena.retries, (own, other, own), strict=True)
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
        return self._produce_to(self._arena.topics[kind], key, value, headers)

    def _produce_to(self, topic: str, key: bytes | None, value: bytes | None, headers: Any = ()) -> str:
        """Where it stands then."""
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
        """As the group would: all of the features is done, and it began where it began."""
        topic, number = self._arena.topics["features"], _PARTITION
        end, said = self._arena.ends()[number], self._books.commits[number].metadata
        with self._arena.reader(self._arena.group_id) as reader:
            reader.commit(offsets=[TopicPartition(topic, number, end, said)], asynchronous=False)
