"""Age of an event: from the Kafka timestamp of its record and its own time, independent of the worker's clock."""

from __future__ import annotations

import pytest

from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.records import SourceRecord
from stream_scorer.core.scoring.event_time import age_ms
from stream_scorer.core.scoring.feature_types import Feature
from stream_scorer.core.scoring.features import ContactChecker, FeatureList
from stream_scorer.core.scoring.types import Contact, Rejected
from stream_scorer.genesys.wire import encode_contact
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.scoring.intake import Intake

HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000
CODEC = Codec.single_object(load_schema(SchemaFile.CONTACT_FEATURES))
INTAKE = Intake(
    codec=CODEC,
    checker=ContactChecker(FeatureList([Feature("calls", "integer")]), max_event_age_s=7_200),
    encode=encode_contact,
    fits=lambda _: True,
    model_version=None,
)


def examined(*, occurred_ms: int, written_ms: int, now_ms: int = NOW_MS) -> Contact | Rejected:
    event = {
        "event_id": "e",
        "contact_id": "c",
        "features": {"calls": 1},
        "occurred_at": occurred_ms,
        "campaign_id": None,
        "model_version": None,
        "attributes": {},
    }
    return INTAKE.examine(SourceRecord("in", 0, 0, b"c", CODEC.encode(event), [], timestamp_ms=written_ms), now_ms)


@pytest.mark.parametrize("off_ms", [26 * HOUR_MS, 300 * HOUR_MS, -HOUR_MS])
def test_a_worker_whose_clock_is_wrong_rejects_no_fresh_contact(off_ms: int) -> None:
    """Field case: 2,000 of 2,000 contacts that were seconds old, read while the clock was 26 h off."""
    found = examined(occurred_ms=NOW_MS - 1_000, written_ms=NOW_MS, now_ms=NOW_MS + off_ms)
    assert isinstance(found, Contact)


def test_an_event_that_was_old_when_it_was_written_is_expired_by_any_clock() -> None:
    for now_ms in (NOW_MS, NOW_MS + 26 * HOUR_MS, NOW_MS - HOUR_MS):
        found = examined(occurred_ms=NOW_MS - 3 * HOUR_MS, written_ms=NOW_MS, now_ms=now_ms)
        assert isinstance(found, Rejected)
        assert found.reasons == ("expired",)
        assert found.detail.startswith("the event was 10800 s old when it was written to the topic")


def test_nothing_expires_while_the_clocks_contradict_each_other_by_more_than_an_hour() -> None:
    found = examined(occurred_ms=NOW_MS - 3 * HOUR_MS, written_ms=NOW_MS, now_ms=NOW_MS - HOUR_MS - 1)
    assert isinstance(found, Contact)


def test_a_record_without_a_time_is_checked_by_the_clock_of_the_worker() -> None:
    assert age_ms(NOW_MS - 5, written_ms=-1, now_ms=NOW_MS) == 5
    assert isinstance(examined(occurred_ms=NOW_MS - 3 * HOUR_MS, written_ms=-1), Rejected)
