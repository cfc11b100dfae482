"""Writer of decisions about one partition: each decision stands in one transaction with the record that it publishes.

Its transactional id is that of the decided partition. So it fences every other writer of the partition, and what such a
writer had committed is visible before its own first decision. A transaction is short, because live readers of the
published topic wait for its end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import KafkaError

from stream_scorer.errors import BrokerError, BrokerRefused, BrokerUnavailable, ProducerFenced
from stream_scorer.kafka.admin.acls import DESK_ID_PREFIX, Permission, refused_error
from stream_scorer.kafka.client.blocking_calls import CallTimedOutError
from stream_scorer.kafka.client.config import producer_config, silent_logger
from stream_scorer.kafka.producer.factory import LATE_SHARE
from stream_scorer.kafka.producer.records import OutRecord
from stream_scorer.kafka.producer.sink import FENCED
from stream_scorer.kafka.producer.transactional_producer import CLIENT_ERRORS, ProducerSession, kafka_error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.desk.decisions import Decision
    from stream_scorer.settings import Settings

_TRANSACTION_MS: Final = 10_000
_DELIVERY_S: Final = 5.0
_COMMIT_S: Final = 10.0
_OPEN_S: Final = 30.0


class Decided(NamedTuple):
    """A decision, and the record that it publishes; None: it publishes none."""

    decision: Decision
    output: OutRecord | None = None


class DecisionWriter:
    """See the module docstring. Owned by one thread; discarded after the first error.

    Args:
        settings: the cluster.
        subject: the decided partition, ``topic/partition``, or the place of a job.
        encode: the value of a decision.

    Attributes:
        is_suspect: whether the writer must be replaced although its last transaction is committed: a request of it may
            reach the brokers late, and end the next one (see `kafka.producer.sink`).

    Raises:
        BrokerUnavailable: on construction; the brokers did not confirm the producer in time.
        BrokerRefused: on construction; a right is missing.
    """

    def __init__(self, settings: Settings, subject: str, encode: Callable[[Decision], bytes]) -> None:
        self._topic = settings.topics.decisions
        self._subject = subject
        self._encode = encode
        self._id = transactional_id(subject)
        self._config = _config(settings, self._id)
        self._places: dict[int, tuple[int, int]] = {}
        self._late_s = LATE_SHARE * self._config["socket.timeout.ms"] / 1000
        self.is_suspect = False
        self._session = ProducerSession(self._config, _COMMIT_S, self._on_delivered)
        self._open()

    def _open(self) -> None:
        give_up_at = time.monotonic() + _OPEN_S
        while True:
            try:
                self._session.init()
            except (CallTimedOutError, *CLIENT_ERRORS) as error:
                inner = kafka_error_of(error)
                if inner is not None and inner.retriable() and time.monotonic() < give_up_at:
                    continue
                failed = self._translated(error)
            else:
                return
            self._session.dispose()
            raise failed

    def commit(self, decided: Sequence[Decided]) -> list[Decision]:
        """Publish records and decisions in one transaction; return the decisions with their result places.

        Raises:
            ProducerFenced: another job has taken over the partition. Nothing was published.
            BrokerUnavailable: it is not known whether the transaction was committed; a new writer's reader sees it.
            BrokerRefused: a record is refused, or a right is missing. Nothing was published.
        """
        session = self._session
        outputs = [one.output for one in decided if one.output is not None]
        self._places.clear()
        try:
            session.write(outputs)
            if outputs:
                session.flush_delivery_reports(_DELIVERY_S)
            self._check_delivered(decided, outputs)
            written = self._with_results(decided)
            session.append([self._record(one) for one in written], first_index=len(outputs))
            commit_s = session.commit_records()
        except (CallTimedOutError, *CLIENT_ERRORS) as error:
            session.flush_delivery_reports()
            failed: BrokerError = self._refused(decided, outputs) or self._translated(error)
        except BrokerError as error:
            failed = error
        else:
            self.is_suspect = session.unsafe_to_reuse or commit_s >= self._late_s
            return written
        # Outside the handler: the traceback of an error holds the client (see `kafka.producer.sink`).
        session.abort()
        raise failed

    def close(self) -> None:
        """Discard the producer; an open transaction is aborted by the next writer, or by the broker's time-out."""
        self._session.dispose()

    def _check_delivered(self, decided: Sequence[Decided], outputs: Sequence[OutRecord]) -> None:
        if (refused := self._refused(decided, outputs)) is not None:
            raise refused
        if len(self._places) < len(outputs):
            raise BrokerUnavailable(f"writing to {outputs[0].topic}: the brokers did not confirm the records in time")

    def _refused(self, decided: Sequence[Decided], outputs: Sequence[OutRecord]) -> BrokerRefused | None:
        if not self._session.refused:
            return None
        index = min(self._session.refused)
        if index >= len(outputs):
            return BrokerRefused(f"topic {self._topic} refuses a decision: set its max.message.bytes higher")
        place = [one.decision.place for one in decided if one.output is not None][index]
        return BrokerRefused(
            f"topic {outputs[index].topic} refuses the record for {place}: check its max.message.bytes and its rules"
        )

    def _with_results(self, decided: Sequence[Decided]) -> list[Decision]:
        decisions, index = [], 0
        for one in decided:
            if one.output is None:
                decisions.append(one.decision)
                continue
            number, offset = self._places[index]
            index += 1
            decisions.append(one.decision._replace(result_place=f"{one.output.topic}/{number}/{offset}"))
        return decisions

    def _record(self, decision: Decision) -> OutRecord:
        return OutRecord(self._topic, decision.place.encode(), self._encode(decision), [])

    def _on_delivered(self, index: int, partition: int, offset: int) -> None:
        self._places[index] = (partition, offset)

    def _translated(self, error: BaseException) -> BrokerError:
        inner = kafka_error_of(error)
        if inner is None or inner.code() == KafkaError._FATAL:  # noqa: SLF001 - its public name
            inner = self._session.fatal_error_of() or inner
        doing = f"writing decisions about {self._subject}"
        if inner is None:
            return BrokerUnavailable(f"{doing}: no answer from the brokers")
        if inner.code() in FENCED:
            return ProducerFenced(f"{doing}: another job has taken over")
        if (denied := self._session.denied) is not None:
            right = Permission("Write", "topic", self._topic)
            return _as_broker_error(refused_error(denied, doing, self._config, right))
        right = Permission("Write", "transactional id", self._id)
        return _as_broker_error(refused_error(inner, doing, self._config, right))


def transactional_id(subject: str) -> str:
    """Return the transactional id of the one writer of decisions about a partition.

    It has no group: jobs with the settings of two groups decide the same records.
    """
    return f"{DESK_ID_PREFIX}{subject.replace('/', '-')}"


def _config(settings: Settings, transactional: str) -> dict[str, Any]:
    config = producer_config(settings, transactional, logger=silent_logger())
    # Live readers of the published topic wait for an abandoned transaction until the broker aborts it.
    for name in ("transaction.timeout.ms", "delivery.timeout.ms", "socket.timeout.ms"):
        config[name] = min(config[name], _TRANSACTION_MS)
    # Reports of delivered records give the offsets for the decisions.
    return {**config, "delivery.report.only.error": False}


def _as_broker_error(error: Exception) -> BrokerError:
    return error if isinstance(error, BrokerError) else BrokerRefused(str(error))
