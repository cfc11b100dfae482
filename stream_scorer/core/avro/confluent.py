"""Values in the Confluent wire format: ``00``, the schema's id in the registry (big endian), the Avro body.

A schema in the registry is untrusted. It is looked up once, through a function that is passed in, and checked: for
safety (`core.avro.schema_safety`), and for compatibility with the reader's schema (`core.avro.compatibility`). The
result is cached, rejections too, for as many ids as there may be versions of a schema.

Values of the single-object encoding are decoded, too: a topic may be older than its registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self

from stream_scorer.core.avro.codec import (
    DEFAULT_MAX_BYTES,
    SINGLE_OBJECT_HEADER_BYTES,
    Codec,
    UndecodableError,
    WriterSchema,
    single_object_header,
)
from stream_scorer.core.avro.compatibility import compare
from stream_scorer.core.avro.framing_detector import framing_inside
from stream_scorer.errors import SettingsError, StreamScorerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

CONFLUENT_MARKER: Final = 0
CONFLUENT_HEADER_BYTES: Final = 5
_KEPT_WRITERS: Final = 200
_MOST_REASONS: Final = 3


class WriterUnknownError(StreamScorerError):
    """A value cannot be decoded yet: its writer's schema is still to be fetched.

    Attributes:
        schema_id: the registry's id of that schema.
    """

    retryable = True

    def __init__(self, schema_id: int) -> None:
        super().__init__(f"schema id {schema_id} is not known yet")
        self.schema_id = schema_id


class SchemaMissingError(UndecodableError):
    """The registry has schemas, but none with the id of a value: the value may be decodable later."""


class ConfluentCodec(Codec):
    """A codec for a topic whose schemas are in a registry."""

    __slots__ = ("_kept", "_reads", "_single", "_writer_of")

    _kept: dict[int, WriterSchema | str]
    _reads: Mapping[str, Any]
    _single: bytes
    _writer_of: Callable[[int], Mapping[str, Any]]

    @classmethod
    def confluent(
        cls,
        schema: Mapping[str, Any],
        writer_of: Callable[[int], Mapping[str, Any]],
        writer_schemas: Iterable[Mapping[str, Any]] = (),
        *,
        schema_id: int | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Self:
        """Return a codec.

        Args:
            schema: the schema that values are encoded with, and resolved to when decoded.
            writer_of: returns the schema of an id; raises `WriterUnknownError` while that is to be fetched, and
                `UndecodableError` if there is none.
            writer_schemas: further schemas that values in single-object encoding may have been written with.
            schema_id: the id of ``schema``; without one the codec only decodes.
            max_bytes: a longer value is rejected unread.

        Raises:
            SettingsError: the schema allows unlimited memory for a few bytes.
        """
        single = single_object_header(schema)
        writers = {single_object_header(writer): writer for writer in writer_schemas} | {single: schema}
        codec = cls(schema, single, writers, max_bytes)
        codec._single = single
        codec._reads = schema
        codec._kept = {}
        codec._writer_of = writer_of
        if schema_id is not None:
            codec.header = confluent_header(schema_id)
            codec._kept[schema_id] = codec.with_writer_ids(schema)
        return codec

    def decode(self, data: bytes | None) -> dict[str, Any]:
        """Return the value, resolved to this codec's schema; timestamps are integers.

        Raises:
            UndecodableError: the bytes are not one complete value of a compatible schema.
            SchemaMissingError: the registry does not have the writer's schema.
            WriterUnknownError: the writer's schema is still to be fetched.
        """
        schema_id = schema_id_of(data)
        if schema_id is None or data is None:
            return super().decode(data)
        known = self._kept.get(schema_id)
        if known is None:
            try:
                known = self._keep(schema_id)
            except SchemaMissingError:
                raise
            except UndecodableError as error:
                raise UndecodableError(f"{error}{_framing_inside(data)}") from None
        if isinstance(known, str):
            raise UndecodableError(f"the value was written with schema id {schema_id}, {known}{_framing_inside(data)}")
        return self._read(data, CONFLUENT_HEADER_BYTES, known)

    def payload_of(self, data: bytes) -> bytes:
        """Return the Avro body of a framed value that `decode` has accepted."""
        return super().payload_of(data) if schema_id_of(data) is None else data[CONFLUENT_HEADER_BYTES:]

    def fast_path_offset(self, data: bytes) -> int | None:
        """Return where the Avro body begins, if the value was written with this codec's own schema; otherwise None."""
        schema_id = schema_id_of(data)
        if schema_id is None:
            return SINGLE_OBJECT_HEADER_BYTES if data.startswith(self._single) else None
        known = self._kept.get(schema_id)
        # The reader's schema by its index, which is faster than its name: this runs for every value.
        return CONFLUENT_HEADER_BYTES if isinstance(known, tuple) and known[1] is None else None

    def prefix_offset(self, data: bytes, fields: int) -> int | None:
        """Return where the Avro body begins, if the writer has just the first ``fields`` fields of this codec's schema.

        Such a writer is of an older release. Its body is the beginning of a body of the present schema.
        """
        schema_id = schema_id_of(data)
        if schema_id is None:
            return super().prefix_offset(data, fields)
        known = self._kept.get(schema_id)
        return CONFLUENT_HEADER_BYTES if isinstance(known, WriterSchema) and known.prefix == fields else None

    def _keep(self, schema_id: int) -> WriterSchema | str:
        schema = self._writer_of(schema_id)
        known = self._judged(schema)
        while len(self._kept) >= _KEPT_WRITERS:
            del self._kept[next(iter(self._kept))]
        self._kept[schema_id] = known
        return known

    def _judged(self, schema: Mapping[str, Any]) -> WriterSchema | str:
        """Return the prepared schema, or why it is rejected, as the end of a sentence about the value."""
        try:
            known = self.with_writer_ids(schema)
            findings = compare(self._reads, schema)
        except SettingsError as error:
            return f"which cannot be read safely: {error}"
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
            return "which is no valid Avro schema"
        if findings.read_errors:
            return f"which cannot be read as {self.name}: {'; '.join(findings.read_errors[:_MOST_REASONS])}"
        return known._replace(doubts=tuple(findings.some[:_MOST_REASONS]))


def _framing_inside(data: bytes) -> str:
    return framing_inside(data[CONFLUENT_HEADER_BYTES:])


def confluent_header(schema_id: int) -> bytes:
    """Return the five bytes before every value of the schema with this id."""
    return bytes((CONFLUENT_MARKER,)) + schema_id.to_bytes(CONFLUENT_HEADER_BYTES - 1, "big")


def schema_id_of(data: bytes | None) -> int | None:
    """Return the id in a value of the Confluent wire format; None: it is not in that format.

    Registries count from 1. An id of 0 is the first half of one of eight bytes (see `core.avro.framing_detector`).
    """
    if not data or data[0] != CONFLUENT_MARKER or len(data) < CONFLUENT_HEADER_BYTES:
        return None
    return int.from_bytes(data[1:CONFLUENT_HEADER_BYTES], "big") or None
