"""Contract section 5, first table: the outcome of a contact by its own content and by its score."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from scoring_harness import FEATURES, Input, contact, event
from support_behaviour import Cost, Row, batch, cases

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.kafka

GOOD: Final = batch(3)
NOTHING_FOR_THE_BAD: Final = Cost(requests=1, sent=3, paid=3)
YEAR_2023_MS, YEAR_2096_MS = 1_700_000_000_000, 4_000_000_000_000

# A model with limits, and with a feature for which there is nothing to impute.
LIMITED: Final = {
    "model__features": json.dumps(
        {
            "calls": {"type": "integer", "impute": 1, "minimum": 0, "maximum": 100},
            "time": {"type": "number", "impute": 1.5},
            "vip": {"type": "boolean", "impute": False},
            "segment": {"type": "string", "choices": ["basic", "premium"]},
        }
    )
}
LIMITED_API: Final = {
    "features": {"calls": "integer", "time": "number", "vip": "boolean", "segment": "string"},
}


def raw(key: str, value: bytes | None) -> Input:
    return Input(key.encode(), value)


def keyed(key: str, **changes: Any) -> Input:
    return Input(key.encode(), FEATURES.encode({**event(key), **changes}))


def limited(key: str, **features: Any) -> Input:
    """Return a contact for the model `LIMITED`; None removes a feature, "null" makes it null."""
    given = {"calls": 3, "time": 12.5, "vip": True, "segment": "basic", **features}
    kept = {name: None if value == "null" else value for name, value in given.items() if value is not None}
    return keyed(key, features=kept, occurred_at=YEAR_2096_MS)


def all_for(reason: str, *keys: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(keys, (reason,))


ROWS: Final = (
    Row(
        id="undecodable",
        injected="no Avro, null, empty, cut off, a byte too many, an unknown schema; 3 good contacts",
        feed=(
            *GOOD,
            raw("garbage", b"\xde\xad\xbe\xef"),
            raw("null", None),
            raw("empty", b""),
            raw("cut", FEATURES.encode(event("cut"))[:-3]),
            raw("longer", FEATURES.encode(event("longer")) + b"\x00"),
            raw("unknown", b"\xc3\x01" + bytes(8) + FEATURES.body(event("unknown"))),
        ),
        rejected=all_for("undecodable", "garbage", "null", "empty", "cut", "longer", "unknown"),
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="invalid-contact",
        injected="contact or event id empty, or of 257 bytes; 3 good contacts",
        feed=(
            *GOOD,
            keyed("no-id", contact_id=""),
            keyed("long-id", contact_id="x" * 257),
            keyed("long-in-bytes", contact_id="ü" * 129),
            keyed("no-event-id", event_id=""),
            keyed("long-event-id", event_id="x" * 257),
        ),
        rejected=all_for("invalid_contact", "no-id", "long-id", "long-in-bytes", "no-event-id", "long-event-id"),
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="expired",
        injected="an event of the year 2023, `scoring.max_event_age_s` 3600; 3 good contacts that are not as old",
        feed=(
            *(keyed(f"fresh-{n}", occurred_at=YEAR_2096_MS) for n in range(3)),
            keyed("old", occurred_at=YEAR_2023_MS),
        ),
        settings={"scoring__max_event_age_s": "3600"},
        rejected=all_for("expired", "old"),
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="too-many-features",
        injected="51 features, `model.max_features` 50; 3 good contacts",
        feed=(*GOOD, keyed("many", features={f"f{n}": n for n in range(51)})),
        rejected={"many": ("too_many_features", "unsupported_feature")},
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="unsupported-feature",
        injected="a feature that the model does not have; 3 good contacts",
        feed=(*GOOD, keyed("shoes", features={"previous_calls": 1, "shoe_size": 43})),
        rejected=all_for("unsupported_feature", "shoes"),
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="missing-feature",
        injected="a feature absent, or null, with nothing to impute; 3 good contacts",
        feed=(
            *(limited(f"good-{n}") for n in range(3)),
            limited("absent", segment=None),
            limited("null", segment="null"),
        ),
        settings=LIMITED,
        api=LIMITED_API,
        rejected=all_for("missing_feature", "absent", "null"),
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="wrong-type",
        injected="a string, a boolean and 3.5 for an integer, a boolean for a number, 1 for a boolean, 1 for a string",
        feed=(
            *(limited(f"good-{n}") for n in range(3)),
            limited("string", calls="3"),
            limited("boolean", calls=True),
            limited("fraction", calls=3.5),
            limited("boolean-number", time=True),
            limited("number-boolean", vip=1),
            limited("number-string", segment=1),
        ),
        settings=LIMITED,
        api=LIMITED_API,
        rejected=all_for(
            "wrong_type", "string", "boolean", "fraction", "boolean-number", "number-boolean", "number-string"
        ),
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="out-of-range",
        injected="below and above the model's limits, none of its choices, NaN, infinite; 3 good contacts",
        feed=(
            *(limited(f"good-{n}") for n in range(3)),
            limited("below", calls=-1),
            limited("above", calls=101),
            limited("choice", segment="gold"),
            limited("nan", time=float("nan")),
            limited("infinite", time=float("-inf")),
        ),
        settings=LIMITED,
        api=LIMITED_API,
        rejected=all_for("out_of_range", "below", "above", "choice", "nan", "infinite"),
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="too-large",
        injected="a contact of 2 kB, `scoring.max_request_bytes` 1024; 3 good contacts",
        feed=(*GOOD, keyed("large", features={"segment_id": "x" * 2000})),
        settings={"scoring__max_request_bytes": "1024"},
        rejected=all_for("too_large", "large"),
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="order-of-the-checks",
        injected="one contact with seven faults; the header has the first, the audit all; 3 good contacts",
        feed=(
            *(limited(f"good-{n}") for n in range(3)),
            keyed(
                "all",
                contact_id="x" * 257,
                occurred_at=0,
                features={**{f"f{n}": n for n in range(51)}, "calls": "3", "time": float("nan")},
            ),
        ),
        settings={**LIMITED, "scoring__max_event_age_s": "3600"},
        api=LIMITED_API,
        rejected={
            "all": (
                "invalid_contact",
                "expired",
                "too_many_features",
                "unsupported_feature",
                "missing_feature",
                "wrong_type",
                "out_of_range",
            )
        },
        cost=NOTHING_FOR_THE_BAD,
    ),
    Row(
        id="unpublishable",
        injected="a score of 6 kB, which its topic (`max.message.bytes` 3000) refuses; 3 good contacts",
        feed=(*GOOD, contact("fat", campaign_id="c" * 6000)),
        topics={kind: {"max.message.bytes": "3000"} for kind in ("scores", "review")},
        rejected=all_for("unpublishable", "fat"),
        cost=Cost(requests=1, sent=4, paid=4),
    ),
)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
