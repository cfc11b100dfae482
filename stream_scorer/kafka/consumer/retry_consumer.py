"""Consumer of the retry partitions that go with the input partitions of this worker.

It joins no group. Partition j of a retry topic goes with partition j of the input topic, modulo their number. The
owner of the input partition reads it. So retry partitions move with the input, under the same generation of the group.

They are not subscribed together with the input, because the cooperative assignor balances the number of partitions over
all topics. The second worker of a group got all four input partitions, and the first was left with retry partitions
only (seen with librdkafka 2.15). The drawback: without a subscription the commits on retry topics expire like those of
an unused topic. The committer renews them (`kafka.producer.committer`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stream_scorer.core.records import Partition
from stream_scorer.kafka.client.factory import create_client

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

# Retry topics carry little beside the input: a quarter of its prefetch is enough.
_PREFETCH: Final = {"queued.max.messages.kbytes": 4_096, "queued.min.messages": 1_000}
_MEMBER: Final = "group.instance.id"


class RetryConsumer:
    """Consumer of retry partitions with manual assignment. Owned by the thread that owns the input's consumer.

    Args:
        config: librdkafka properties of the input's consumer.
        input_topic: the topic whose partitions decide which retry partitions are read.
        topics: the retry topics.

    Attributes:
        client: confluent-kafka's consumer.
    """

    def __init__(self, config: Mapping[str, Any], input_topic: str, topics: Sequence[str]) -> None:
        own = {name: value for name, value in config.items() if name != _MEMBER}
        self.client = create_client(Consumer, {**own, **_PREFETCH})
        self._input_topic = input_topic
        self._topics = tuple(topics)
        self._goes_with: dict[Partition, Partition] = {}

    def __contains__(self, partition: Partition) -> bool:
        return partition.topic in self._topics

    @property
    def assigned(self) -> list[Partition]:
        """The assigned retry partitions."""
        return list(self._goes_with)

    def going_with(self, inputs: Collection[Partition], timeout_s: float) -> dict[Partition, Partition]:
        """Return the retry partitions that go with these input partitions, each with its input partition.

        Raises:
            KafkaException: the number of partitions could not be read.
        """
        count = self._count(self._input_topic, timeout_s) if inputs else 0
        if not count:
            return {}
        found = {}
        for topic in self._topics:
            for number in range(self._count(topic, timeout_s)):
                goes_with = Partition(self._input_topic, number % count)
                if goes_with in inputs:
                    found[Partition(topic, number)] = goes_with
        return found

    def assigned_with(self, inputs: Iterable[Partition]) -> list[Partition]:
        """Return the assigned retry partitions that go with these input partitions."""
        chosen = set(inputs)
        return [partition for partition, goes_with in self._goes_with.items() if goes_with in chosen]

    def assign(self, partition: Partition, goes_with: Partition, offset: int, *, paused: bool) -> None:
        """Assign a partition from ``offset`` on; ``paused``: without delivery until it is resumed."""
        self._goes_with[partition] = goes_with
        self.client.incremental_assign([TopicPartition(*partition, offset)])
        (self.client.pause if paused else self.client.resume)([TopicPartition(*partition)])

    def unassign(self, partitions: Iterable[Partition]) -> None:
        """Unassign these partitions."""
        assigned = [partition for partition in partitions if self._goes_with.pop(partition, None) is not None]
        if assigned:
            self.client.incremental_unassign([TopicPartition(*partition) for partition in assigned])

    def close(self) -> None:
        """Close the client."""
        self.client.close()

    def _count(self, topic: str, timeout_s: float) -> int:
        metadata = self.client.list_topics(topic, timeout_s).topics[topic]
        error = metadata.error
        if error is None:
            return len(metadata.partitions)
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return 0  # deleted, or not known to this broker yet: found by a later call
        raise KafkaException(error)
