"""A worker with good contacts and arbitrary other records: it neither stops nor blocks."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from output_verifier import verify_outputs
from scoring_harness import FEATURES, MEGABYTE, Input, contact, event
from support_fuzz import SPECIAL_TEXTS, text, varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_harness import WorkerHarness

pytestmark = pytest.mark.kafka

HOSTILE, GOOD, LARGE = 1_000, 1_000, 6
SEED = 20_261_124
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**53, 2**53 + 1, -(2**63), 2**63 - 1),
    *(float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 5e-324, -0.0),
    *SPECIAL_TEXTS,
)
NAMES = ("previous_calls", "avg_handle_time", "last_contact_days", "segment_id", "", "\0", "\U0001f600", "a\nb")
HEADER_NAMES = ("trace", "traceparent", "stream-scorer-source", "stream-scorer-error-reason", "é\U0001f600", "a\nb", "")


def hostile(draw: random.Random, number: int) -> Input:
    """Return an arbitrary record with a unique contact id if it has one."""
    value: bytes | None = FEATURES.encode(odd_event(draw, number))
    match draw.randrange(8):
        case 0:
            value = draw.choice([None, b"", b"\xc3\x01", b"{}", b"\0\0\0\0\7", draw.randbytes(draw.randrange(60))])
        case 1:
            value = (value or b"")[: draw.randrange(len(value or b""))]
        case 2:
            damaged = bytearray(value or b"")
            for _ in range(draw.randrange(1, 4)):
                damaged[draw.randrange(10, len(damaged))] = draw.randrange(256)
            value = bytes(damaged)
        case 3:
            value = FEATURES.header + lying_body(draw)
    key = draw.choice([None, b"", b"\xff\xfe", b"\0", f"k-{number}".encode(), draw.randbytes(20), b"k" * 2_000])
    headers = [
        (draw.choice(HEADER_NAMES), draw.choice([None, b"", b"\xff", b"a\r\nb: c", draw.randbytes(9), b"h" * 3_000]))
        for _ in range(draw.randrange(4))
    ]
    return Input(key, value, draw.randrange(4), headers)


def odd_event(draw: random.Random, number: int) -> dict[str, Any]:
    features = {draw.choice(NAMES): draw.choice(VALUES) for _ in range(draw.randrange(6))}
    if draw.randrange(10) == 0:
        features |= {f"f{n}": n for n in range(draw.randrange(40, 400))}
    own = f"{number}-{draw.choice(SPECIAL_TEXTS)}"
    return event(
        draw.choice([own, own, own, ""]),
        event_id=draw.choice([own, *SPECIAL_TEXTS]),
        features=features,
        occurred_at=draw.choice([0, -(2**63), 2**63 - 1, 1_700_000_000_000]),
        campaign_id=draw.choice([None, *SPECIAL_TEXTS]),
        model_version=draw.choice([None, None, None, "", "v" * 257]),
    )


def lying_body(draw: random.Random) -> bytes:
    """Return a body with false counts and lengths, nested as deeply as the schema allows."""
    lie = draw.choice([2**62, -(2**62), 2**69, 1_000_000, -1])
    return draw.choice(
        [
            varint(lie) + b"x" * 20,
            text(b"e") + text(b"c") + varint(lie) + b"\2k\0" * 9,
            text(b"e") + text(b"c") + varint(1) + text(b"k") + varint(lie) + b"\0",
            text(b"e") + text(b"c") + (varint(-1) + varint(lie) + b"\2k\0") * 3 + b"\0\0\0\0",
        ]
    )


def large() -> Iterator[Input]:
    """Return values near the topic's limit, whose rejections must fit and be fast."""
    size = 2 * MEGABYTE - 20_000
    ids = text(b"e") + text(b"large")
    names = b"".join(text(b"%06x" % n) + varint(0) for n in range(size // 8))
    for number, body in enumerate(
        (
            ids + varint(size // 8) + names + b"\0\0\0\0",
            ids + varint(2**40) + b"\0\0" * (size // 2),
            ids + varint(1) + text(b"segment_id") + varint(4) + text(b"\x01" * size) + b"\0\0\0\0",
            text(b"e") + text(b"c" * size) + b"\0\0\0\0",
            text(b"e" * size) + b"\xff",
        )
    ):
        yield Input(f"large-{number}".encode(), FEATURES.header + body, number % 4, [("stay", b"s" * 9_000)])
    yield Input(b"large-5", b"\xde\xad" * (size // 2), 1)


def test_two_thousand_hostile_and_good_records(stage: WorkerHarness) -> None:
    draw = random.Random(SEED)  # noqa: S311 - the same records in every run
    good = [contact(f"good-{number:04}", number % 4) for number in range(GOOD)]
    mixed = [*good, *(hostile(draw, number) for number in range(HOSTILE)), *large()]
    draw.shuffle(mixed)
    worker = stage.start_ready(genesys__max_retries="1")
    stage.produce(mixed)
    stage.wait_done(needs=worker)
    stage.wait(worker.ready, "the worker to go on", needs=worker)
    stage.produce([contact("the-last-one", 0)])
    stage.wait_done(needs=worker)
    assert worker.stop() == 0, worker.log()
    verdict = verify_outputs(stage)
    assert len(verdict.outputs) == GOOD + HOSTILE + LARGE + 1
    scored = {output.score["contact_id"] for output in verdict.outputs.values() if output.score is not None}
    assert {given.key.decode() for given in good if given.key} | {"the-last-one"} <= scored
    assert verdict.count("rejected") > HOSTILE // 2
    assert verdict.paid_twice(stage.simulator.scored()) == 0
    reasons = verdict.reasons()
    wanted = {"undecodable", "invalid_contact", "too_many_features", "unsupported_feature", "wrong_type"}
    assert wanted <= set(reasons)
    assert worker.errors() == []
    assert all(line["level"] in ("info", "warning") for line in worker.log_lines())
    # Logs and metrics reveal nothing about a contact, and no input can inject lines into them.
    assert all(word not in worker.log() for word in ("good-0", "the-last-one", "retired", "forged", "jndi"))
