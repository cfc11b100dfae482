"""W3C Trace Context: read from headers and propagated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_scorer.core.trace_context import (
    TraceContext,
    context_of,
    link_parents,
    parse_traceparent,
    split_links,
    trace_flags,
    with_trace,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01".encode()


def test_a_context_is_read_and_written_as_it_came() -> None:
    context = context_of([("a", b"b"), ("traceparent", PARENT), ("tracestate", b"x=1"), ("tracestate", b"y=2")])
    assert context == TraceContext(int(TRACE, 16), int(SPAN, 16), 1, "x=1,y=2")
    assert context.sampled
    assert context.headers == [("traceparent", PARENT), ("tracestate", b"x=1,y=2")]


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-03", 3),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f"01-{TRACE}-{SPAN}-01-what-comes-later", 1),
        (f"cc-{TRACE}-{SPAN}-00", 0),
    ],
)
def test_flags_and_later_versions(value: str, flags: int) -> None:
    context = parse_traceparent(value.encode())
    assert context is not None
    assert context.flags == flags
    assert context.sampled is bool(flags & 1)
    looked = trace_flags([("a", b"b"), ("traceparent", value.encode())])
    assert looked is not None
    assert looked & 3 == flags


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}-01-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-1",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}{SPAN}-01",
    ],
)
def test_what_is_no_traceparent_is_none(value: str) -> None:
    assert parse_traceparent(value.encode()) is None
    assert trace_flags([("traceparent", value.encode())]) == -1


def test_two_or_an_empty_one_say_nothing() -> None:
    assert context_of([("traceparent", PARENT), ("traceparent", PARENT)]) is None
    assert context_of([("traceparent", None)]) is None
    assert context_of([("tracestate", b"x=1")]) is None
    assert trace_flags([("traceparent", PARENT), ("traceparent", PARENT)]) == trace_flags([("traceparent", None)]) == -1
    assert trace_flags([("tracestate", b"x=1")]) is None


@pytest.mark.parametrize(
    "state",
    [
        b"x=" + b"y" * 511,
        b"x=\x00",
        "x=ä".encode(),
        b"x=1\ny=2",
        b"HELLO text",
        b"x=1,x=2",
        b"1a=b",
        b"a@b@c=1",
        b"x=1,,y=2",
        b",".join(b"k%d=v" % n for n in range(33)),
    ],
)
def test_a_state_that_is_too_long_or_no_text_is_left_out(state: bytes) -> None:
    context = context_of([("traceparent", PARENT), ("tracestate", state)])
    assert context is not None
    assert context.headers == [("traceparent", PARENT)]


@given(st.binary(max_size=80))
def test_no_value_raises(value: bytes) -> None:
    context = context_of([("traceparent", value), ("tracestate", value)])
    assert context is None or context.trace_id


def test_an_output_has_one_trace() -> None:
    context = TraceContext(1, 2, 0)
    old = [("traceparent", PARENT), ("a", b"b"), ("tracestate", b"x=1"), ("traceparent", b"?")]
    assert with_trace(old, context) == [("a", b"b"), ("traceparent", f"00-{1:032x}-{2:016x}-00".encode())]


def test_several_in_one_value() -> None:
    contexts = [TraceContext(n, n, 1) for n in (1, 2, 3)]
    assert split_links(link_parents(contexts), 75) == contexts
    assert split_links(link_parents(contexts), 2) == contexts[:2]
    assert split_links(b"nonsense,," + link_parents(contexts[:1]), 75) == contexts[:1]
