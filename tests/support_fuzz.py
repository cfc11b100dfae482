"""Strategies of hostile input, and the number of examples of the tests in tests/fuzz (``FUZZ_EFFORT``; `make fuzz`)."""

from __future__ import annotations

import os
import tracemalloc
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from stream_scorer.core.avro.codec import Codec
from stream_scorer.schema_files import SchemaFile, load_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy

EFFORT = int(os.environ.get("FUZZ_EFFORT", "1"))
MEGABYTE = 1024 * 1024


def fuzz(examples: int) -> settings:
    """So many examples in `make test`, and ``FUZZ_EFFORT`` times as many in `make fuzz`."""
    return settings(max_examples=examples * EFFORT, deadline=None, suppress_health_check=list(HealthCheck))


def is_one_line(shown: str) -> bool:
    """Return whether a text can neither end a line of a log nor steer a terminal."""
    return not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in shown)


# --- texts

SPECIAL_TEXTS = (
    *("", " ", "\0", "\x7f", "\u0085", "\u2028", "\ufeff", "\uffff", "\U0010ffff", "é", "\U0001f600", "e\u0301"),
    *("a\r\nstream-scorer-error-reason: forged", '{"level":"info"}\n', "\x1b[31m", "${jndi:ldap://x}", "{0!r}", "%s%n"),
    *("x" * 255, "x" * 256, "x" * 257, "é" * 128, "é" * 129, "\U0001f600" * 65, "\x01" * 300),
    *("nan", "1e999", "../../etc/passwd", "'; drop table contacts; --", "=1+1", "\u202egnp.exe"),
)
TEXTS: SearchStrategy[str] = st.text(max_size=20) | st.sampled_from(SPECIAL_TEXTS)
HEADERS = st.lists(
    st.tuples(
        TEXTS | st.sampled_from(["traceparent", "stream-scorer-error-reason", "stream-scorer-"]),
        st.none() | st.binary(max_size=40),
    ),
    max_size=5,
)
KEYS = st.none() | st.binary(max_size=40)
LONGS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 2**31, 2**53, 2**53 + 1, -(2**63), 2**63 - 1])
DOUBLES = st.floats() | st.sampled_from([1e308, -1e308, 5e-324, 2.0**53, 1e19, float("inf"), float("nan")])


# --- Avro, written by hand so that it may be wrong


def varint(value: int) -> bytes:
    """Return a long in Avro's encoding, also of more than 64 bits, which a reader must reject."""
    rest = ((value << 1) ^ (value >> 63)) & (2**70 - 1)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def text(value: bytes) -> bytes:
    """An Avro string or bytes."""
    return varint(len(value)) + value


_COUNTS = st.integers(-3, 5) | LONGS | st.integers(2**62, 2**69)
_LIES = st.builds(lambda count, body: varint(count) + body, _COUNTS, st.binary(max_size=12))
_STRINGS = st.binary(max_size=12).map(text) | TEXTS.map(lambda value: text(value.encode())) | _LIES
_VALUES = st.one_of(
    *(st.just(varint(0)), st.just(varint(1) + b"\x01"), st.just(varint(1) + b"\x02")),
    LONGS.map(lambda value: varint(2) + varint(value)),
    st.binary(min_size=8, max_size=8).map(lambda value: varint(3) + value),
    _STRINGS.map(lambda value: varint(4) + value),
    st.builds(lambda branch, rest: varint(branch) + rest, _COUNTS, st.binary(max_size=9)),
)
_BLOCKS = st.one_of(
    st.lists(st.tuples(_STRINGS, _VALUES), max_size=6).map(
        lambda pairs: varint(len(pairs)) + b"".join(name + value for name, value in pairs) if pairs else b""
    ),
    st.builds(lambda count, size, rest: varint(count) + varint(size) + rest, _COUNTS, _COUNTS, st.binary(max_size=20)),
)
_TAILS = st.one_of(
    st.builds(lambda at, rest: varint(at) + rest, LONGS, st.sampled_from([b"\0\0", b"\0\x02\x02v", b"\0", b"\x04"])),
    st.binary(max_size=14),
)


@st.composite
def lies(draw: st.DrawFn) -> bytes:
    """The body of a ``ContactFeatures`` whose counts, lengths and branches may be anything."""
    blocks = draw(st.lists(_BLOCKS, max_size=3))
    return b"".join([draw(_STRINGS), draw(_STRINGS), *blocks, draw(st.sampled_from([b"\0", b""])), draw(_TAILS)])


@st.composite
def mutilated(draw: st.DrawFn, whole: SearchStrategy[bytes]) -> bytes:
    """Return valid bytes with some changed, inserted, removed, duplicated or cut off."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                data[at:at] = draw(st.binary(max_size=12))
            case 2:
                del data[at : at + draw(st.integers(1, 8))]
            case 3:
                data[at:at] = data[at : at + draw(st.integers(1, 30))]
            case _:
                del data[at:]
    return bytes(data)


# Too many, and too large.
BIG_ATTRIBUTES = st.sampled_from([{str(number): "" for number in range(65)}, {"a": "x" * 17_000}])


def contact_features(names: SearchStrategy[str]) -> SearchStrategy[dict[str, Any]]:
    """``ContactFeatures`` as a producer may write them; ``names``: of features."""
    values = st.none() | st.booleans() | LONGS | DOUBLES | TEXTS
    return st.fixed_dictionaries(
        {
            "event_id": TEXTS,
            "contact_id": TEXTS,
            "features": st.dictionaries(names, values, max_size=8),
            "occurred_at": LONGS,
            "campaign_id": st.none() | TEXTS,
            "model_version": st.none() | TEXTS,
            "attributes": st.dictionaries(TEXTS, TEXTS, max_size=3) | BIG_ATTRIBUTES,
        }
    )


# --- codecs of both framings, each with an older and a newer writer


def codecs(schema_file: SchemaFile, max_bytes: int) -> tuple[Codec, ...]:
    """Codecs of the single-object encoding, and of the Confluent wire format without a registry."""
    schema = load_schema(schema_file)
    older = {**schema, "fields": schema["fields"][:-1]}
    newer = {**schema, "fields": [*schema["fields"], {"name": "more", "type": {"type": "map", "values": "bytes"}}]}
    writers = {b"\0" + number.to_bytes(4, "big"): one for number, one in enumerate((schema, older, newer), 7)}
    return (
        Codec.single_object(schema, [older, newer], max_bytes=max_bytes),
        Codec(schema, b"\0\0\0\0\7", writers, max_bytes),
    )


def framed(codec: Codec, bodies: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Return bodies after a header that is known to the codec or not."""
    return st.builds(bytes.__add__, st.sampled_from([*codec._writers, b"", b"\0", b"\xc3\x01", b"\0\0\0\0\1"]), bodies)


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Measure Python's peak memory in bytes; it is in the list afterwards."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
