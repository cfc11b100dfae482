"""Framing of values: Avro's single-object encoding, or with a schema registry the Confluent wire format.

A serde creates the codecs of a service. Readers share the lookup of unknown schemas; writers have the id of their
schema from the start. No schema is registered here: a missing one ends the start with one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from stream_scorer.core.avro.codec import DEFAULT_MAX_BYTES, Codec, UndecodableError
from stream_scorer.core.avro.confluent import ConfluentCodec
from stream_scorer.errors import RegistryRefused
from stream_scorer.kafka.registry.schema_fetcher import SchemaFetcher
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream_scorer.kafka.registry.client import SchemaRegistry
    from stream_scorer.kafka.registry.paused_schema_partitions import SchemaLookup
    from stream_scorer.settings import Settings

REGISTER: Final = "run `stream-scorer schemas register`"


class Serde(Protocol):
    """Factory of codecs for one framing."""

    lookup: SchemaLookup | None

    def reader(self, schema: SchemaFile, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """Return a codec that only decodes. For one loop only, since it has state."""

    def writer(self, schema: SchemaFile, topics: Sequence[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """Return a codec that encodes values for these topics."""

    def close(self) -> None:
        """Stop fetching schemas."""


class SingleObjectSerde:
    """Serde without a registry: Avro's single-object encoding."""

    def __init__(self) -> None:
        self.lookup: SchemaLookup | None = None

    def reader(self, schema: SchemaFile, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        return Codec.single_object(load_schema(schema), released_schemas(schema).values(), max_bytes=max_bytes)

    def writer(self, schema: SchemaFile, _topics: Sequence[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """Return a codec that encodes; the bytes are the same on every topic."""
        return Codec.single_object(load_schema(schema), max_bytes=max_bytes)

    def close(self) -> None: ...


class ConfluentSerde:
    """Serde with a registry: the Confluent wire format.

    Args:
        registry: has the ids of this version's schemas.
        writer_of: returns the schema of an id, or raises `WriterUnknownError`.
        lookup: fetches schemas that ``writer_of`` does not have; None: ``writer_of`` waits for them.
        learn: receives this version's schemas, which need not be fetched.
        close: stops the fetching.
    """

    def __init__(
        self,
        registry: SchemaRegistry,
        writer_of: Callable[[int], Mapping[str, Any]],
        lookup: SchemaLookup | None = None,
        learn: Callable[[int, Mapping[str, Any]], None] = lambda _schema_id, _schema: None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self._registry = registry
        self._writer_of = writer_of
        self._learn = learn
        self._close = close
        self.lookup = lookup

    def reader(self, schema: SchemaFile, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        return ConfluentCodec.confluent(
            load_schema(schema), self._writer_of, released_schemas(schema).values(), max_bytes=max_bytes
        )

    def writer(self, schema: SchemaFile, topics: Sequence[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> Codec:
        """Return a codec that encodes for these topics; the schema must be registered under the subject of each.

        A registry has one id for one schema, under whatever subjects it is registered.

        Raises:
            RegistryRefused: it is not registered.
            RegistryUnavailable: the registry does not answer.
        """
        loaded = load_schema(schema)
        ids = [self._id_of(schema, loaded, subject_of(topic)) for topic in topics]
        return ConfluentCodec.confluent(loaded, self._writer_of, schema_id=ids[0], max_bytes=max_bytes)

    def close(self) -> None:
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
    """Return the serde of a service, which fetches unknown schemas in the background.

    Raises:
        SettingsError: ``schema_registry.properties`` is invalid.
    """
    if settings.schema_registry.url is None:
        return SingleObjectSerde()
    registry = _registry(settings)
    lookup = SchemaFetcher(registry)
    return ConfluentSerde(registry, lookup.writer, lookup, lookup.add, lookup.close)


def make_blocking_serde(settings: Settings) -> Serde:
    """Return the serde of a command, which waits for the registry when it meets an unknown schema.

    Its codecs raise `RegistryUnavailable` if the registry does not answer.

    Raises:
        SettingsError: ``schema_registry.properties`` is invalid.
    """
    if settings.schema_registry.url is None:
        return SingleObjectSerde()
    registry = _registry(settings)
    return ConfluentSerde(registry, _BlockingLookup(registry).writer)


class _BlockingLookup:
    """Lookup that blocks, with one request for each id."""

    def __init__(self, writers: SchemaRegistry) -> None:
        self._writers = writers
        self._missing: set[int] = set()

    def writer(self, schema_id: int) -> Mapping[str, Any]:
        """Return the schema of an id. Raises `UndecodableError` if there is none."""
        schema = None if schema_id in self._missing else self._writers.writer(schema_id)
        if schema is None:
            self._missing.add(schema_id)
            raise UndecodableError(f"the schema registry has no schema with id {schema_id}")
        return schema


def _registry(settings: Settings) -> SchemaRegistry:
    # Imported here: it takes half a second, which is needed only with a registry.
    from stream_scorer.kafka.registry.client import SchemaRegistry  # noqa: PLC0415

    return SchemaRegistry(settings)
