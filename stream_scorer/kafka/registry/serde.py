"""Which framing values have: Avro's single-object encoding, or with a schema registry the Confluent wire format.

A framing makes the codecs of a service. Those that read share what fetches unknown schemas; those that write know the
id of their schema from the start. Nothing is registered here: what is missing ends the start with one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from stream_scorer.core.avro.codec import DEFAULT_MAX_BYTES, Codec, UndecodableError
from stream_scorer.core.avro.confluent import ConfluentCodec
from stream_scorer.errors import RegistryRefused
from stream_scorer.kafka.registry.schema_fetcher import SchemaFetcher, WriterSchemas
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stream_scorer.kafka.registry.client import SchemaRegistry
    from stream_scorer.kafka.registry.pending_schemas import SchemaLookup
    from stream_scorer.settings import Settings

REGISTER: Final = "run `stream-scorer schemas register`"


class Serde(Protocol):
    """Makes codecs."""

    lookup: SchemaLookup

    def reader(self, schema: SchemaFile, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """A codec that only decodes. One loop's own: it remembers what it has met."""

    def writer(self, schema: SchemaFile, topics: Sequence[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """A codec for what is written to these topics."""

    def close(self) -> None:
        """Nothing is fetched any more."""


class _NoLookup:
    """Of the single-object encoding: no record ever waits for a schema."""

    def request(self, schema_id: int, *, ahead: bool = False) -> None:
        """There is nobody to ask."""

    def is_answered(self, schema_id: int) -> bool:  # noqa: ARG002
        """Nothing is waited for."""
        return True

    def error_for(self, schema_id: int) -> str:  # noqa: ARG002
        """Nothing has failed."""
        return ""

    def mark_resolved(self, schema_ids: Iterable[int]) -> None:
        """There are no ids."""

    def resolved(self) -> tuple[int, ...]:
        """There are no ids."""
        return ()


class SingleObjectSerde:
    """Without a registry."""

    def __init__(self) -> None:
        self.lookup: SchemaLookup = _NoLookup()

    def reader(self, schema: SchemaFile, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """A codec that decodes."""
        return Codec.single_object(load_schema(schema), released_schemas(schema).values(), max_bytes=max_bytes)

    def writer(self, schema: SchemaFile, _topics: Sequence[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """A codec that encodes; the bytes are the same on every topic."""
        return Codec.single_object(load_schema(schema), max_bytes=max_bytes)

    def close(self) -> None:
        """There is nothing to end."""


class ConfluentSerde:
    """With a registry.

    Args:
        registry: knows the ids of our schemas.
        writer_of: the schema behind an id, or `WriterUnknownError`.
        lookup: fetches what that does not know.
        learn: takes what need not be fetched: our own schemas.
        close: ends the fetching.
    """

    def __init__(
        self,
        registry: SchemaRegistry,
        writer_of: Callable[[int], Mapping[str, Any]],
        lookup: SchemaLookup,
        learn: Callable[[int, Mapping[str, Any]], None] = lambda _schema_id, _schema: None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._writer_of = writer_of
        self._learn = learn
        self._close = close
        self.lookup = lookup

    def reader(self, schema: SchemaFile, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """A codec that only decodes."""
        return ConfluentCodec.confluent(
            load_schema(schema), self._writer_of, released_schemas(schema).values(), max_bytes=max_bytes
        )

    def writer(self, schema: SchemaFile, topics: Sequence[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """A codec for these topics, under each of whose subjects the schema is registered.

        A registry has one id for one schema, under whatever subjects it stands.

        Raises:
            RegistryRefused: it is not registered.
            RegistryUnavailable: nobody could say.
        """
        loaded = load_schema(schema)
        ids = [self._id_of(schema, loaded, subject_of(topic)) for topic in topics]
        return ConfluentCodec.confluent(loaded, self._writer_of, schema_id=ids[0], max_bytes=max_bytes)

    def close(self) -> None:
        """Nothing is fetched any more."""
        self._close()

    def _id_of(self, schema: SchemaFile, loaded: Mapping[str, Any], subject: str) -> int:
        found = self._registry.find(subject, loaded)
        if found is None:
            raise RegistryRefused(
                f"schema registry {self._registry.place}: subject {subject} does not have this version's {schema.value}"
                f" schema: {REGISTER}"
            )
        self._learn(found.schema_id, loaded)
        return found.schema_id


def subject_of(topic: str) -> str:
    """Return the subject of a topic's values."""
    return f"{topic}-value"


def make_serde(settings: Settings) -> Serde:
    """Return the framing of a service, in which unknown schemas are fetched in the background.

    Raises:
        SettingsError: ``schema_registry.properties`` cannot work.
    """
    if settings.schema_registry.url is None:
        return SingleObjectSerde()
    registry = _registry(settings)
    lookup = SchemaFetcher(registry)
    return ConfluentSerde(registry, lookup.writer, lookup, lookup.add, lookup.close)


def make_blocking_serde(settings: Settings) -> Serde:
    """Return the framing of a command, which waits for the registry when it meets an unknown schema.

    Its codecs raise `RegistryUnavailable` where the registry does not answer.

    Raises:
        SettingsError: ``schema_registry.properties`` cannot work.
    """
    if settings.schema_registry.url is None:
        return SingleObjectSerde()
    registry = _registry(settings)
    return ConfluentSerde(registry, _BlockingLookup(registry).writer, _NoLookup())


class _BlockingLookup:
    """Asks the registry once for each id."""

    def __init__(self, writers: WriterSchemas) -> None:
        self._writers = writers
        self._missing: set[int] = set()

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        """Return the schema behind an id. Raises `UndecodableError` where there is none."""
        schema = None if schema_id in self._missing else self._writers.writer(schema_id)
        if schema is None:
            self._missing.add(schema_id)
            raise UndecodableError(f"the schema registry has no schema with id {schema_id}")
        return schema


def _registry(settings: Settings) -> SchemaRegistry:
    # Half a second of imports that nobody without a registry waits for.
    from stream_scorer.kafka.registry.client import SchemaRegistry  # noqa: PLC0415

    return SchemaRegistry(settings)
