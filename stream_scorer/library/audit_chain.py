"""Verification of the audit's hash chains, for values that were read from the audit topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_scorer.core.audit.hash_chain import verify_chain
from stream_scorer.core.avro.codec import Codec, single_object_header
from stream_scorer.core.avro.confluent import CONFLUENT_HEADER_BYTES, schema_id_of
from stream_scorer.errors import InputError
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def verify_audit_chain(values: Iterable[Any]) -> list[str]:
    """Check that values of the audit topic continue their hash chains (contract section 3).

    Args:
        values: ``BatchAudit`` values of all partitions, each partition's in offset order and from its beginning; single
            object encoding, or Confluent wire format with the schema of this version. Chains may be interleaved.

    Returns:
        One sentence for each difference, in the order they were found; empty: every chain is whole.

    Raises:
        InputError: ``values`` is one value in place of an iterable, or a value is no bytes; names its place, from 0.
        SettingsError: the package was installed without its schemas.
    """
    if isinstance(values, bytes | bytearray | str):
        raise InputError("values is a single value: pass an iterable of bytes, such as a list")
    schema = load_schema(SchemaFile.BATCH_AUDIT)
    return verify_chain(_single_object(values, single_object_header(schema)), Codec.single_object(schema))


def _single_object(values: Iterable[Any], header: bytes) -> Iterator[bytes]:
    for place, value in enumerate(values):
        if not isinstance(value, bytes):
            raise InputError(f"value {place} is no bytes: pass the record's value as it was read")
        yield value if schema_id_of(value) is None else header + value[CONFLUENT_HEADER_BYTES:]
