"""Verification of the audit's hash chains, for values that were read from the audit topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_scorer.core.audit.hash_chain import verify_chain
from stream_scorer.core.avro.codec import Codec, UndecodableError, single_object_header
from stream_scorer.core.avro.confluent import CONFLUENT_HEADER_BYTES, schema_id_of
from stream_scorer.errors import InputTypeError
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


def verify_audit_chain(values: Iterable[Any]) -> list[str]:
    """Check that values of the audit topic continue their hash chains (contract section 3).

    Args:
        values: ``BatchAudit`` values of all partitions, each partition's in offset order and from its beginning; single
            object encoding, or Confluent wire format with a schema of this version or of a release before it. Chains
            may be interleaved.

    Returns:
        One sentence for each difference, in the order they were found; empty: every chain is whole.

    Raises:
        InputTypeError: ``values`` is one value in place of an iterable, or a value is no bytes; names its place.
        SettingsError: the package was installed without its schemas.
    """
    if isinstance(values, bytes | bytearray | str):
        raise InputTypeError("values is a single value: pass an iterable of bytes, such as a list")
    schema = load_schema(SchemaFile.BATCH_AUDIT)
    released = list(released_schemas(SchemaFile.BATCH_AUDIT).values())
    codec = Codec.single_object(schema, released)
    return verify_chain(_single_object(values, codec, [schema, *reversed(released)]), codec)


def _single_object(values: Iterable[Any], codec: Codec, writers: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    headers = list(dict.fromkeys(map(single_object_header, writers)))
    for place, value in enumerate(values):
        if not isinstance(value, bytes):
            raise InputTypeError(f"value {place} is no bytes: pass the record's value as it was read")
        yield value if schema_id_of(value) is None else _reframed(value[CONFLUENT_HEADER_BYTES:], codec, headers)


def _reframed(body: bytes, codec: Codec, headers: Sequence[bytes]) -> bytes:
    """Return a body with the first of these headers with which it can be decoded: ids of a registry are unknown."""
    for header in headers:
        try:
            codec.decode(header + body)
        except UndecodableError:
            continue
        return header + body
    return headers[0] + body
