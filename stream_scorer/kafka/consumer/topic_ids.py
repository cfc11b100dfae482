"""Topic ids: read from the brokers, compared with those of a group's commits, and part of its commit metadata.

When a topic is deleted and created again, librdkafka 2.16 continues at its old offset. So the first records of the new
topic are never read (measured: 10 of 25). The ids of both topics differ. They are compared at each assignment, after
reading and before each commit, and in the background while nothing is committed. A record of the new topic is not
committed, because the topic's id is read after the record.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from stream_scorer.core.exactly_once.commit_metadata import CommitMetadata, parse_metadata
from stream_scorer.core.records import Partition
from stream_scorer.doc_pages import docs_command
from stream_scorer.errors import BrokerRefused, BrokerUnavailable, SettingsError
from stream_scorer.kafka.admin.acls import DENIALS
from stream_scorer.kafka.client.errors import translate
from stream_scorer.kafka.client.factory import create_client

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from concurrent.futures import Future

    from confluent_kafka import TopicPartition

_CALL_S: Final = 5.0
_EVERY_S: Final = 15.0
_DOING: Final = "reading the ids of topics"
# The id that a broker without topic ids returns (Kafka before 2.8).
_NONE: Final = "AAAAAAAAAAAAAAAAAAAAAA"
_NO_ID: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, *DENIALS})


def replaced_error(topic: str, former_id: str | None, present_id: str | None, group_id: str) -> BrokerRefused:
    """Return the error for a topic that was deleted and created again."""
    return BrokerRefused(
        f"topic {topic} was deleted and created again: the offsets of group {group_id} are those of the former topic"
        f" (id {former_id}), not of the present one (id {present_id}). To read the present one, start once with"
        " --new-topic and --from earliest, --from latest or --from and an ISO time"
        f" ({docs_command('operations', 'topic-created-again')})"
    )


class TopicIds:
    """Reader of topic ids. Owned by one thread.

    Args:
        config: librdkafka properties of the admin client, which is created at the first request.
        create: creates the admin client.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        create: Callable[[dict[str, Any]], Any] = lambda config: create_client(AdminClient, config),
    ) -> None:
        self._config = dict(config)
        self._create = create
        self._client: Any | None = None

    def read(self, topics: Collection[str], timeout_s: float = _CALL_S) -> dict[str, str | None]:
        """Return the id of each topic that exists; None: the broker returns none.

        Raises:
            BrokerUnavailable: no broker responded within ``timeout_s``.
        """
        return ids_of(self.request(topics, timeout_s), 2 * timeout_s)

    def request(self, topics: Collection[str], timeout_s: float = _CALL_S) -> dict[str, Future[Any]]:
        """Request the ids without waiting for them; see `ids_of`.

        Raises:
            BrokerUnavailable: no client could be created now.
        """
        if not topics:
            return {}
        try:
            if self._client is None:
                self._client = self._create(self._config)
            self._client.poll(0)  # logs, and the renewal of OAUTHBEARER tokens
            futures: dict[str, Future[Any]] = self._client.describe_topics(
                TopicCollection(list(topics)), request_timeout=timeout_s
            )
        except KafkaException as error:
            raise BrokerUnavailable(str(translate(error, _DOING))) from None
        except SettingsError as error:  # a file in the properties may be in the course of a change
            raise BrokerUnavailable(str(error)) from None
        return futures

    def close(self) -> None:
        """Drop the admin client."""
        self._client = None


def ids_of(futures: Mapping[str, Future[Any]], wait_s: float = 0.0) -> dict[str, str | None]:
    """Return the requested id of each topic that exists; None: the broker returns none.

    Raises:
        BrokerUnavailable: there is no response for one of them.
    """
    found: dict[str, str | None] = {}
    for topic, future in futures.items():
        try:
            error = future.exception(wait_s)  # not raised: its traceback would keep a reference to the client
        except TimeoutError:
            raise BrokerUnavailable(f"{_DOING}: no answer within {wait_s:g} s") from None
        if error is None:
            topic_id = str(future.result().topic_id)
            found[topic] = None if topic_id == _NONE else topic_id
        elif not isinstance(error, KafkaException) or error.args[0].code() not in _NO_ID:
            raise BrokerUnavailable(str(_translated(error)))
        elif error.args[0].code() in DENIALS:
            found[topic] = None
    return found


def _translated(error: BaseException) -> BaseException:
    return translate(error, _DOING) if isinstance(error, KafkaException) else error


class ResolvedSchemas(Protocol):
    """The schema ids that a group has resolved; see ``kafka.registry.schema_fetcher.SchemaFetcher``."""

    def mark_resolved(self, schema_ids: Iterable[int]) -> None:
        """Add the ids of a commit."""

    def resolved(self) -> tuple[int, ...]:
        """Return the ids for the next commit."""


class TopicIdentity:
    """The topic ids of one group's commits. Owned by the thread that owns the consumer.

    Args:
        ids: reads topic ids.
        group_id: the group, for the error.
        monotonic: clock in seconds.
        schemas: takes the schema ids of the commits, and returns those of the next ones.
    """

    def __init__(
        self, ids: TopicIds, group_id: str, monotonic: Callable[[], float], schemas: ResolvedSchemas | None = None
    ) -> None:
        self._ids = ids
        self._schemas = schemas
        self._group_id = group_id
        self._monotonic = monotonic
        self._metadata: dict[Partition, CommitMetadata] = {}
        # Kafka drops the commits of a deleted topic, so the id would be lost with its partitions.
        self._read_ids: dict[str, str] = {}
        self._pending: dict[str, Future[Any]] = {}
        self._requested_at = monotonic()

    def begin(self, committed: Iterable[TopicPartition], timeout_s: float) -> None:
        """Record the commit metadata of newly assigned partitions, with the ids of their topics.

        Raises:
            BrokerRefused: the commit of one belongs to a former topic.
            BrokerUnavailable: the ids could not be read.
        """
        answers = list(committed)
        present = self._ids.read({answer.topic for answer in answers}, timeout_s)
        for answer in answers:
            metadata = parse_metadata(answer.metadata) if answer.offset >= 0 else CommitMetadata()
            metadata = metadata.adopt(self._read_ids.get(answer.topic)).adopt(present.get(answer.topic))
            self._compare(answer.topic, metadata.topic_id, present.get(answer.topic))
            self._metadata[Partition(answer.topic, answer.partition)] = metadata
            if self._schemas is not None:
                self._schemas.mark_resolved(metadata.schema_ids)
            if metadata.topic_id is not None:
                self._read_ids[answer.topic] = metadata.topic_id

    def read_id(self, topic: str) -> str | None:
        """Return the id that a topic had when its partitions were assigned; None: the brokers return none."""
        return self._read_ids.get(topic)

    def metadata(self, partition: Partition, start_offset: int) -> str:
        """Return the metadata of the next commit on a partition."""
        metadata = self._metadata.get(partition, CommitMetadata())._replace(start=start_offset)
        if self._schemas is not None:
            metadata = metadata._replace(schema_ids=self._schemas.resolved() or metadata.schema_ids)
        return str(metadata)

    def check(self, topics: Collection[str]) -> None:
        """Check that these topics are still those of the commits.

        Raises:
            BrokerRefused: one was deleted and created again.
            BrokerUnavailable: the ids could not be read, or one of the topics is deleted.
        """
        wanted = self._read_ids.keys() & topics
        present = self._ids.read(wanted)
        self._compare_all(present)
        if missing := sorted(wanted - present.keys()):
            raise BrokerUnavailable(f"topic {missing[0]} does not exist now")

    def poll(self) -> None:
        """Compare ids in the background, at most every 15 s, for workers without commits. Never blocks.

        Raises:
            BrokerRefused: a topic was deleted and created again.
        """
        if self._pending and all(future.done() for future in self._pending.values()):
            futures, self._pending = self._pending, {}
            with suppress(BrokerUnavailable):
                self._compare_all(ids_of(futures))
        if not self._pending and self._read_ids and self._monotonic() - self._requested_at >= _EVERY_S:
            self._requested_at = self._monotonic()
            with suppress(BrokerUnavailable):
                self._pending = self._ids.request(self._read_ids)

    def revoke(self, partitions: Iterable[Partition]) -> None:
        """Drop revoked partitions."""
        for partition in partitions:
            self._metadata.pop(partition, None)

    def close(self) -> None:
        """Drop the client and its pending requests."""
        self._pending = {}
        self._ids.close()

    def _compare_all(self, present: Mapping[str, str | None]) -> None:
        for topic, topic_id in self._read_ids.items():
            self._compare(topic, topic_id, present.get(topic))

    def _compare(self, topic: str, read_id: str | None, present_id: str | None) -> None:
        if CommitMetadata(topic_id=read_id).contradicts(present_id):
            raise replaced_error(topic, read_id, present_id, self._group_id)
