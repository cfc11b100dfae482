"""Continuous producer of good contacts and of every kind of bad record."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Self

from confluent_kafka import KafkaException, Producer
from scoring_harness import FEATURES, MEGABYTE, Input, contact, event

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT_S: Final = 300.0
_TICK_S: Final = 0.05
_BAD_EVERY: Final = 100


class Feeder:
    """Produce so many contacts a second to all partitions in turn, in a thread, until it is stopped.

    Its client retries for minutes: each record is on the topic exactly once in the end.

    Attributes:
        produced: number of records.
        good: the keys of the valid contacts.
    """

    def __init__(self, bootstrap_servers: str, topic: str, *, partitions: int, per_second: int, seed: int) -> None:
        self._topic, self._partitions, self._per_second = topic, partitions, per_second
        self._random = random.Random(seed)  # noqa: S311 - every run draws the same
        self._stopping = threading.Event()
        self._failures: list[str] = []
        self.produced = 0
        self.good: set[bytes] = set()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "log_level": 0,
                "enable.idempotence": True,
                "linger.ms": 20,
                "message.max.bytes": 3 * MEGABYTE,
                "batch.size": MEGABYTE,
                "delivery.timeout.ms": int(_TIMEOUT_S * 1000),
                "reconnect.backoff.max.ms": 500,
                "topic.metadata.refresh.interval.ms": 1000,  # partitions are added
            }
        )
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()

    def stop(self) -> int:
        """Stop, wait until all records are on the topic, and return their number."""
        self._stopping.set()
        self._thread.join(_TIMEOUT_S)
        left = self._producer.flush(_TIMEOUT_S)
        assert not left, f"{left} records could not be produced"
        assert not self._failures, self._failures[0]
        return self.produced

    def set_partitions(self, partitions: int) -> None:
        """Use so many partitions from now on."""
        self._partitions = partitions

    def _run(self) -> None:
        began, inputs = time.monotonic(), self._inputs()
        while not self._stopping.wait(_TICK_S):
            # A delay is not compensated by a burst: bursts are another test.
            due = min(self._per_second * (time.monotonic() - began), self.produced + self._per_second)
            while self.produced < due:
                given = next(inputs)
                self._produce(given)
            self._producer.poll(0)

    def _produce(self, given: Input) -> None:
        number = self.produced % self._partitions
        while not self._stopping.is_set():
            try:
                self._producer.produce(
                    self._topic, given.value, given.key, partition=number, on_delivery=self._on_delivery
                )
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException:
                self._stopping.wait(_TICK_S)  # the client has no metadata of a new partition yet
            else:
                self.produced += 1
                return

    def _on_delivery(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failures.append(str(error))

    def _inputs(self) -> Iterator[Input]:
        number = 0
        while True:
            number += 1
            if number % _BAD_EVERY == 0:
                yield bad_input(self._random.randrange(len(BAD)), number)
                continue
            given = contact(f"N-{number:07}")
            self.good.add(given.key or b"")
            yield given


def bad_input(kind: int, number: int) -> Input:
    """A record that cannot be scored, or only after failures."""
    return BAD[kind](number)


def _poison(number: int) -> Input:
    """A valid contact that the API rejects; bisection has to find it."""
    return contact(f"REFUSE-{number:07}")


def _named_poison(number: int) -> Input:
    return contact(f"REFUSE-NAMED-{number:07}")


def _malformed(number: int) -> Input:
    return Input(f"bad-{number}".encode(), b"\xc3\x01 this is not Avro")


def _cut(number: int) -> Input:
    return Input(f"cut-{number}".encode(), FEATURES.encode(event(f"cut-{number}"))[:-3])


def _trailing(number: int) -> Input:
    return Input(f"trail-{number}".encode(), FEATURES.encode(event(f"trail-{number}")) + b"\0")


def _empty(number: int) -> Input:
    return Input(f"empty-{number}".encode(), b"")


def _tombstone(number: int) -> Input:
    return Input(f"gone-{number}".encode(), None)


def _huge(number: int) -> Input:
    return contact(f"huge-{number}", features={f"f{n}": "x" * 1000 for n in range(900)})


def _huge_bytes(number: int) -> Input:
    return Input(f"noise-{number}".encode(), b"\xff" * 1_200_000)


def _nameless(number: int) -> Input:
    return Input(None, FEATURES.encode(event("", event_id=f"event-{number}")))


BAD: Final = (
    _poison,
    _named_poison,
    _malformed,
    _cut,
    _trailing,
    _empty,
    _tombstone,
    _huge,
    _huge_bytes,
    _nameless,
)
