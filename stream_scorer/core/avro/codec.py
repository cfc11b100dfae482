"""Avro codec: framing, encoding, and decoding of untrusted bytes.

Every value has a header that identifies its writer's schema. Here that is the single-object encoding of the Avro
specification: the marker ``C3 01``, then the CRC-64-AVRO fingerprint of the schema, little endian. A `Codec` looks up
the whole header among its writers. So another framing (Confluent's five bytes) is another set of headers, not another
decoder.

Threats of a hostile value, and their countermeasures:

* growth: a writer's schema with items of no size, or a recursive one, turns seven bytes into gigabytes. `Codec` refuses
  such schemas when it is built (`core.avro.schema_safety`). With all others decoding takes memory and time in
  proportion to the bytes, which ``max_bytes`` limits.
* hidden data: fastavro stops at the end of the record. Here that must be the end of the value.
* unexpected exceptions: fastavro raises various types for broken bytes. Here each becomes `UndecodableError`.

`stream_scorer.core.avro.encoder` encodes values.

Logical types are removed from both schemas before fastavro gets them: a timestamp stays an integer, because a
``datetime`` costs time and fails for years past 9999. They change neither bytes nor fingerprint. A logical type that
only the writer has is converted, or the value is rejected (`core.avro.logical_types`).
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastavro import parse_schema, schemaless_reader
from fastavro.read import LOGICAL_READERS, SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form

from stream_scorer.core.avro import logical_types
from stream_scorer.core.avro.encoder import compile_writer
from stream_scorer.core.avro.framing_detector import framing_inside, framing_of
from stream_scorer.core.avro.schema_form import normal_form
from stream_scorer.core.avro.schema_safety import check_schema
from stream_scorer.errors import InputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

SINGLE_OBJECT_MARKER: Final = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES: Final = 10
DEFAULT_MAX_BYTES: Final = 1024 * 1024


# fastavro has one table of these per process. The names are private, so no other program's schemas use them.
LOGICAL_READERS.update(logical_types.LOGICAL_READERS)


class UndecodableError(InputError):
    """A value does not match its topic's schema; the message gives the fault in one sentence, without content."""


class WriterSchema(NamedTuple):
    """A writer's schema, prepared for decoding.

    Attributes:
        writer: the schema, parsed by fastavro.
        reader: the reader's schema, parsed; None: the two are equal, and fastavro uses its faster path.
        doubts: which values of a union's branches cannot be decoded, as sentences.
        prefix: how many of the reader's fields the writer has, if these are the first ones and there are no others; 0:
            it has all, or others.
    """

    writer: Any
    reader: Any
    doubts: tuple[str, ...] = ()
    prefix: int = 0


class Codec:
    """Immutable codec: encodes values of one schema, and decodes values of any known writer's schema."""

    __slots__ = (
        "_bare",
        "_form",
        "_header_bytes",
        "_own",
        "_plain",
        "_schema",
        "_single_header",
        "_write",
        "_writers",
        "_writes_own_header",
        "header",
        "max_bytes",
        "name",
    )

    def __init__(self, schema: Mapping[str, Any], header: bytes, writers: Mapping[bytes, Any], max_bytes: int) -> None:
        """Use `single_object`; this constructor takes the headers of another framing.

        Args:
            schema: the reader's schema, with which values are encoded.
            header: the bytes before every encoded value.
            writers: every schema a value may have been written with, by header. Headers have one length.
            max_bytes: a longer value is rejected unread.

        Raises:
            SettingsError: a writer's schema is invalid, or allows unlimited memory or time for a few bytes.
        """
        plain = _without_logical_types(schema)
        self._plain: Mapping[str, Any] = plain
        self._schema: Any = parse_schema(plain)
        self._form = normal_form(schema)
        self._own = logical_types.decodable_form(self._form, self._form)
        self._write = compile_writer(plain)
        self.name = str(schema["name"]).rpartition(".")[2]
        self.header = header
        self._header_bytes = len(header)
        self.max_bytes = max_bytes
        self._bare = self.with_writer_ids(schema)
        self._single_header = single_object_header(schema)
        self._writers: dict[bytes, WriterSchema] = {}
        for written_header, writer in writers.items():
            self._writers[written_header] = self.with_writer_ids(writer)
        self._writes_own_header = writers.get(header) == schema

    @classmethod
    def single_object(
        cls,
        schema: Mapping[str, Any],
        writer_schemas: Iterable[Mapping[str, Any]] = (),
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Codec:
        """Return a codec for the single-object encoding.

        Args:
            schema: the schema that values are encoded with, and resolved to when decoded.
            writer_schemas: further schemas that values may have been written with (older or newer ones).
            max_bytes: a longer value is rejected unread.

        Raises:
            SettingsError: as `Codec`.
        """
        header = single_object_header(schema)
        # The own schema last: of two with equal fingerprints, its defaults apply.
        writers = {single_object_header(writer): writer for writer in writer_schemas} | {header: schema}
        return cls(schema, header, writers, max_bytes)

    def with_writer_ids(self, writer: Mapping[str, Any]) -> WriterSchema:
        """Return a writer's schema, prepared for `_read`.

        Raises:
            SettingsError: it is invalid, or allows unlimited memory or time for a few bytes.
        """
        check_schema(writer, self.name)
        form, parsed = self._parsed(writer)
        return WriterSchema(parsed, None if form == self._own else self._schema, prefix=_prefix(form, self._own))

    def _parsed(self, writer: Mapping[str, Any]) -> tuple[Any, Any]:
        try:
            form = logical_types.decodable_form(normal_form(writer), self._form)
            return form, parse_schema(form)
        except (SchemaParseException, UnknownType, KeyError, TypeError, ValueError, AttributeError) as error:
            # The exception's text may quote the whole schema.
            raise SettingsError(f"schema {self.name}: is no valid Avro schema ({type(error).__name__})") from None

    def encode(self, value: Mapping[str, Any]) -> bytes:
        """Return the framed value. Values are this program's own: an invalid one is a defect, with any exception."""
        return self.header + self._write(value)

    def encode_body(self, value: Mapping[str, Any]) -> bytes:
        """Return the value's Avro body without framing."""
        return self._write(value)

    def frame(self, body: bytes) -> bytes:
        """Return a body of `encode_body` with framing."""
        return self.header + body

    def payload_of(self, data: bytes) -> bytes:
        """Return the Avro body of a framed value that `decode` has accepted."""
        return data[self._header_bytes :]

    def fast_path_offset(self, data: bytes) -> int | None:
        """Return where the Avro body begins, if the value was written with this codec's own schema; otherwise None."""
        return self._header_bytes if self._writes_own_header and data.startswith(self.header) else None

    def prefix_offset(self, data: bytes, fields: int) -> int | None:
        """Return where the Avro body begins, if the writer has just the first ``fields`` fields of this codec's schema.

        Such a writer is of an older release. Its body is the beginning of a body of the present schema.
        """
        known = self._writers.get(data[: self._header_bytes])
        # By its index, as it runs for every value.
        return self._header_bytes if known is not None and known[3] == fields else None

    @property
    def schema(self) -> Mapping[str, Any]:
        """The schema values are encoded with, without documentation and logical types."""
        return self._plain

    def decode(self, data: bytes | None) -> dict[str, Any]:
        """Return the value, resolved to this codec's schema; timestamps are integers.

        Raises:
            UndecodableError: the bytes are not one complete value of a known schema, or are too many.
        """
        if data is None:
            raise UndecodableError("the value is null")
        known = self._writers.get(data[: self._header_bytes])
        if known is None:
            raise UndecodableError(self._unknown_header(data))
        return self._read(data, self._header_bytes, known)

    def _read(self, data: bytes, at: int, known: WriterSchema) -> dict[str, Any]:
        """Decode the body that begins at ``at``."""
        if len(data) > self.max_bytes:
            raise UndecodableError(f"the value has {len(data)} bytes, more than the {self.max_bytes} allowed")
        stream = BytesIO(data) if known.reader is None else _UpToTheEnd(data)
        stream.seek(at)
        try:
            value: dict[str, Any] = schemaless_reader(stream, known.writer, known.reader)  # type: ignore[assignment]
        except MemoryError:
            # Bytes cannot cause it (see above). The machine lacks memory, and a valid contact must not be rejected.
            raise
        except Exception as error:  # any exception of the C code; only the bytes can be the cause
            reason = _reason(error, known.doubts) + framing_inside(data[at:])
            raise UndecodableError(f"the value is no valid Avro {self.name}: {reason}") from error
        if stream.tell() != len(data):
            framing = framing_inside(data[at:])
            extra = len(data) - stream.tell()
            raise UndecodableError(f"{extra} bytes follow the end of the {self.name}{framing}")
        return value

    def _unknown_header(self, data: bytes) -> str:
        if not data:
            return "the value is empty"
        if self._is_bare(data):
            header = self._single_header.hex()
            return (
                f"the value is a {self.name} without a header: let the producer write {header} before it, or the"
                " Confluent wire format"
            )
        framing = framing_of(data)
        if framing is not None:
            return f"the value {framing}"
        if len(data) < self._header_bytes:
            return f"the value has only {len(data)} bytes, too few for the header of an Avro value"
        return self._unknown_schema(data)

    def _unknown_schema(self, data: bytes) -> str:
        if data[0] == 0:
            return (
                "the value is in the Confluent wire format (it begins with 00 and a schema's id), and no schema"
                " registry is configured: set schema_registry.url"
            )
        if not data.startswith(SINGLE_OBJECT_MARKER):
            return f"the value does not begin like an Avro single-object encoding (c301) but with {data[:2].hex()}"
        name = data[len(SINGLE_OBJECT_MARKER) : SINGLE_OBJECT_HEADER_BYTES]
        if SINGLE_OBJECT_MARKER + name[::-1] in self._writers:
            return "the fingerprint of the value's schema is big endian: let the producer write it little endian"
        return f"the value was written with an unknown schema (fingerprint bytes {name.hex()}), not a known {self.name}"

    def _is_bare(self, data: bytes) -> bool:
        try:
            self._read(data, 0, self._bare)
        except UndecodableError:
            return False
        return True


class _UpToTheEnd(BytesIO):
    """Bytes whose end is an error, for fields that fastavro skips because only a newer writer has them.

    When it skips, fastavro ignores the end of the value, and would iterate over a count of 2 ** 62 numbers.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            raise EOFError
        return data


def single_object_header(schema: Mapping[str, Any]) -> bytes:
    """Return marker and fingerprint: the ten bytes before every value of this schema."""
    canonical = to_parsing_canonical_form(_without_logical_types(schema))
    # fastavro returns the sixteen digits in the order of the bytes on the wire, which is little endian.
    return SINGLE_OBJECT_MARKER + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


def _prefix(writer: Any, reader: Any) -> int:
    """Return how many fields of a reader's schema a writer has, if these are the first ones; otherwise 0."""
    if not (isinstance(writer, dict) and isinstance(reader, dict)):
        return 0
    ours, theirs = reader.get("fields", []), writer.get("fields", [])
    is_prefix = len(theirs) < len(ours) and theirs == ours[: len(theirs)] and writer.get("name") == reader.get("name")
    return len(theirs) if is_prefix else 0


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: value if key == "default" else _without_logical_types(value)
            for key, value in schema.items()
            if key not in ("logicalType", "doc")
        }
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    return schema


def _reason(error: Exception, doubts: Sequence[str]) -> str:
    """Return the cause without the value's content, which exception messages may contain."""
    match error:
        case logical_types.ForeignMeaningError():
            return str(error)
        case SchemaResolutionError() if doubts:
            return "; ".join(doubts)
        case EOFError() | StopIteration():
            return "it ends too early"
        case UnicodeDecodeError():
            return "a string is not UTF-8"
        case IndexError():
            return "it ends too early, or a union or enum index is out of range"
        case _:
            return f"its bytes break the schema ({type(error).__name__})"
