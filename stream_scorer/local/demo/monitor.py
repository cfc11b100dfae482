"""How far the worker is: by its own admin port, and by the group's commits, which alone say that it is done."""

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
    """The worker at one moment.

    Attributes:
        read: records consumed.
        in_flight: requests at the API.
        uncommitted: contacts read and not yet committed.
        outcomes: contacts with a committed outcome: ``scored``, ``review``, ``rejected``.
        quota_remaining: requests that the quota still allows in this minute; None: nothing was said yet.
        trouble: why it does no work right now; empty: it does.
        called: contacts that the campaign manager was told about.
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
        """Contacts with a committed outcome."""
        return sum(self.outcomes.values())


def read_metrics(text: str, trouble: str) -> Snapshot:
    """Read a scrape of ``/metrics``; what is not in it yet counts as nothing."""
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
    """Asks the worker's admin port and the group's commits. Asks only: it joins no group and stores nothing."""

    def __init__(self, settings: Settings, called: Callable[[], int]) -> None:
        """Connect.

        Args:
            settings: the worker's; the features topic must hold all that it is to score.
            called: asks how many contacts the campaign manager was told about.

        Raises:
            BrokerError: the broker does not answer, or the topic is missing.
        """
        self._url = f"http://{settings.admin.host}:{settings.admin.port}"
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment is no way to this machine
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
        """Ask the worker; where it does not answer (it is starting, or very busy) the last answer holds."""
        try:
            ready = self._session.get(f"{self._url}/readyz", timeout=_ANSWER_S)
            metrics = self._session.get(f"{self._url}/metrics", timeout=_ANSWER_S)
        except requests.RequestException:
            return self._last
        seen = read_metrics(metrics.text, "" if ready.ok else ready.text.strip())
        self._last = replace(seen, called=self._called())
        return self._last

    def committed(self) -> int:
        """Ask the broker how many records lie below the committed offsets; pending transactions do not count.

        Where it cannot say now (on a new cluster the group's coordinator takes a moment) the last answer holds.

        Raises:
            BrokerError: it refuses to say.
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
        """How many records there are to commit; the topic began empty, so its offsets are its records."""
        return sum(self._ends.values())
