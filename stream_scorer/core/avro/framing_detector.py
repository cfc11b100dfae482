"""Detection of other serializers' framings, for values that begin neither with a fingerprint nor with an id.

The first rejected record shows that a producer uses another serializer, or none: the reason names the framing and the
remedy. Values in these framings are not decoded.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from stream_scorer.core.avro.encoder import compile_writer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_scorer.core.records import Headers

_USE_AVRO: Final = "let the producer use an Avro serializer"
# A byte order mark of UTF-8, then white space.
_TEXT: Final = rb"(?:\xef\xbb\xbf)?\s*+"
# A block of snappy has no mark: the length of its text, then the tag of a literal, which is a framed value.
_SNAPPY_BLOCK: Final = rb"[\x80-\xff]{0,3}[\x01-\x7f](?:[%b]|\xf0.|\xf4..)(?:\xc3\x01|\0\0\0)" % re.escape(
    bytes(range(0, 0xF0, 4))
)
_COMPRESSED: Final[Mapping[str, bytes]] = MappingProxyType(
    {
        "gzip": rb"\x1f\x8b",
        "zlib": rb"\x78[\x01\x5e\x9c\xda]",
        "zstd": rb"\x28\xb5\x2f\xfd",
        "lz4": rb"\x04\x22\x4d\x18|LZ4Block",
        "bzip2": rb"BZh[1-9]1AY&SY",
        "xz": rb"\xfd7zXZ\0",
        "snappy": rb"\xff\x06\0\0sNaPpY|\x82SNAPPY\0|" + _SNAPPY_BLOCK,
    }
)
# The framing of the value, and the remedy at its producer.
_BY_BYTES: Final[Sequence[tuple[re.Pattern[bytes], str]]] = (
    (
        re.compile(rb"\0\0\0\0\0"),
        "begins with schema id 0, as ids of eight bytes do: for Apicurio set apicurio.registry.as-confluent=true",
    ),
    (
        re.compile(rb"\x03[\x00\x05].{16}", re.DOTALL),
        "is in the framing of AWS Glue: let the producer use the Confluent wire format or single-object encoding",
    ),
    (re.compile(rb"Obj\x01"), "is an Avro container file: let the producer send each record of it as a value"),
    (re.compile(_TEXT + rb"(?:[{\[]|\".*\"\s*\Z)", re.DOTALL), f"is JSON, not Avro: {_USE_AVRO}"),
    (
        re.compile(rb"(AA[A-Za-z0-9+/]{4}|wwE[A-Za-z0-9+/]{3})[A-Za-z0-9+/]*={0,2}\s*\Z"),
        "is base64 text: let the producer send the bytes themselves",
    ),
    (
        re.compile(rb"(0x|\\x)?([cC]301|00)[0-9a-fA-F]{8,}+\s*\Z"),
        "is hexadecimal text: let the producer send the bytes themselves",
    ),
    *(
        (
            re.compile(beginning, re.DOTALL),
            f"is compressed by its producer: set Kafka's compression.type there instead of {name}",
        )
        for name, beginning in _COMPRESSED.items()
    ),
    (re.compile(rb"\xac\xed\x00\x05"), f"is a serialized Java object: {_USE_AVRO}"),
    (re.compile(_TEXT + rb"<[^\0-\x08]*>\s*\Z"), f"is XML or HTML, not Avro: {_USE_AVRO}"),
    (re.compile(rb"\xff\xfe|\xfe\xff|\0[ -~]\0[ -~]\0"), f"is UTF-16 text, not Avro: {_USE_AVRO}"),
)
_PLAIN_TEXT: Final = re.compile(_TEXT + rb"[\t\n\r -~]+\Z")
# By the beginning of a header's name: the place of the id, and the setting that puts it before the value.
_BY_HEADER: Final = (
    ("__value_schema_id", "the header __value_schema_id", "use Confluent's PrefixSchemaIdSerializer"),
    ("apicurio.value.", "headers of Apicurio", "set apicurio.registry.headers.enabled=false"),
)
_write_bytes: Final = compile_writer("bytes")
_AZURE: Final = b"avro/binary+"


def framing_of(data: bytes) -> str | None:
    """Return the framing of a value, as the end of a sentence about it; None: it is unknown.

    A bare Avro body may begin like some of these, so try to decode that first.
    """
    framing = _framing_of(data)
    return f"is text, not Avro: {_USE_AVRO}" if framing is None and _PLAIN_TEXT.match(data) else framing


def framing_inside(rest: bytes) -> str:
    """Return the framing of what follows a value's header, as the end of a sentence; empty: there is none known."""
    # A serializer of Avro's type bytes writes their length before them.
    content = next((rest[size:] for size in range(1, 5) if _write_bytes(rest[size:]) == rest), rest)
    if content.startswith((b"\xc3\x01", b"\0\0\0")):
        return "; after its header stands another one: let the producer serialize the value once"
    # Zeros may begin a body, and text one that was cut off.
    framing = None if content.startswith(b"\0") else _framing_of(content)
    return "" if framing is None else f"; what follows its header {framing}"


def with_framing(error: Exception, headers: Headers) -> str:
    """Return why a record is undecodable; its headers may identify the framing better than its value does.

    Args:
        error: why the value cannot be decoded.
        headers: of the record.
    """
    for name, value in headers:
        for beginning, place, remedy in _BY_HEADER:
            if name.startswith(beginning):
                return _in_header(place, remedy, error)
        if name.lower() == "content-type" and (value or b"").startswith(_AZURE):
            return _in_header("the header content-type of Azure", "use the Confluent wire format", error)
    return str(error)


def _framing_of(data: bytes) -> str | None:
    return next((text for pattern, text in _BY_BYTES if pattern.match(data)), None)


def _in_header(place: str, remedy: str, error: Exception) -> str:
    return f"the id of its schema stands in {place}, not before the value: let the producer {remedy} ({error})"
