"""Progress of the worker: metrics from its admin port, and the group's commits, which alone prove completion."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

import requests
from confluent_kafka import Consumer, KafkaException, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from stream_scorer.kafka.admin.topics import check_topics
from stream_scorer.kafka.client.config import reader_config, silent_logger
from stream_scorer.kafka.client.errors import translate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from stream_scorer.settings import Settings

_ANSWER_S: Final = 2.0
_CALL_S: Final = 10.0
_NOT_THERE_YET: Final = "the worker is starting"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the worker at one moment.

    Attributes:
        read: records consumed.
        in_flight: requests to the API in flight.
        uncommitted: contacts read and not yet committed.
        outcomes: contacts with a committed outcome: ``scored``, ``review``, ``rejected``.
        quota_remaining: requests that the quota still allows in this minute; None: not known yet.
        trouble: reason why the worker is not ready; empty: it is ready.
        called: contacts that the campaign manager has received.
    """

    read: int = 0
    in_flight: int = 0
    uncommitted: int = 0
    outcomes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    quota_remaining: int | None = None
    trouble: str = _NOT_THERE_YET
    called: int = 0

    @property
    def settled(self) -> int:
        """Number of contacts with a committed outcome."""
        return sum(self.outcomes.values())


def read_metrics(text: str, trouble: str) -> Snapshot:
    """Return the snapshot of a ``/metrics`` scrape; absent series count as 0."""
    sums: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] += int(sample.value)
            if sample.name == "stream_scorer_contacts_total" and sample.labels["outcome"] != "deferred":
                outcomes[sample.labels["outcome"]] += int(sample.value)
    quota = "stream_scorer_quota_remaining"
    return Snapshot(
        read=sums["messaging_client_consumed_messages_total"],
        in_flight=sums["stream_scorer_requests_in_flight"],
        uncommitted=sums["stream_scorer_contacts_uncommitted"],
        outcomes=MappingProxyType(outcomes),
        quota_remaining=sums.get(quota),
        trouble=trouble,
    )


class Monitor(AbstractContextManager["Monitor"]):
    """Reader of the worker's admin port and the group's commits. It joins no group and writes nothing."""

    def __init__(self, settings: Settings, called: Callable[[], int]) -> None:
        """Connect to the broker.

        Args:
            settings: settings of the worker; the features topic must contain all contacts.
            called: returns the number of contacts that the campaign manager has received.

        Raises:
            BrokerError: the broker does not answer, or the topic is missing.
        """
        self._url = f"http://{settings.admin.host}:{settings.admin.port}"
        self._session = requests.Session()
        self._session.trust_env = False  # this machine is never reached by a proxy of the environment
        self._called = called
        self._last = Snapshot()
        self._committed = 0
        topic = settings.topics.features
        self._doing = f"reading the commits of group {settings.kafka.group_id}"
        partitions = check_topics(settings, [topic])[topic]
        self._consumer = Consumer(reader_config(settings, settings.kafka.group_id, logger=silent_logger()))
        try:
            self._ends = {
                number: self._consumer.get_watermark_offsets(TopicPartition(topic, number), _CALL_S)[1]
                for number in range(partitions)
            }
        except KafkaException as error:
            raise translate(error, f"reading the end of {topic}") from None
        self._topic = topic

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._session.close()
        self._consumer.close()

    def look(self) -> Snapshot:
        """Return the current state; while the worker does not answer (starting, or busy), the last one."""
        try:
            ready = self._session.get(f"{self._url}/readyz", timeout=_ANSWER_S)
            metrics = self._session.get(f"{self._url}/metrics", timeout=_ANSWER_S)
        except requests.RequestException:
            return self._last
        seen = read_metrics(metrics.text, "" if ready.ok else ready.text.strip())
        self._last = replace(seen, called=self._called())
        return self._last

    def committed(self) -> int:
        """Return the number of records below the committed offsets, without pending transactions.

        After a temporary error (a new cluster's coordinator takes a moment) the last number is returned.

        Raises:
            BrokerError: a permanent error of the broker.
        """
        asked = [TopicPartition(self._topic, number) for number in self._ends]
        try:
            answers = self._consumer.committed(asked, _CALL_S)
        except KafkaException as error:
            refusal = translate(error, self._doing)
            if not refusal.retryable:
                raise refusal from None
        else:
            self._committed = sum(max(answer.offset, 0) for answer in answers)
        return self._committed

    @property
    def end(self) -> int:
        """Number of records to commit; the topic began empty, so its offsets are its records."""
        return sum(self._ends.values())
