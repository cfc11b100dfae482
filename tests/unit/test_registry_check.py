"""`reconcile` without the registry of the workers: unreadable records are no findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from stream_scorer.errors import SettingsError
from stream_scorer.reconciliation.topic_reader import RegistryCheck
from stream_scorer.settings import Settings

if TYPE_CHECKING:
    from stream_scorer.core.reconciliation.score_report import Report
    from stream_scorer.kafka.consumer.log_reader import Record

FRAMED = b"\x00\x00\x00\x00\x07body"


@dataclass
class Found:
    """A minimal record."""

    value: bytes | None
    partition: int = 3
    offset: int = 14


@dataclass
class Judged:
    """A minimal report."""

    is_balanced: bool


def check(value: bytes | None, *, is_balanced: bool, **sections: Any) -> None:
    wanted = RegistryCheck(Settings.model_validate(sections))
    wanted.observe(cast("Record", Found(value)), "receipts")
    wanted.observe(cast("Record", Found(FRAMED if value == FRAMED else None, 4)), "scores")
    wanted.check(cast("Report", Judged(is_balanced)))


def test_the_first_such_record_and_the_setting_are_named() -> None:
    with pytest.raises(SettingsError) as refused:
        check(FRAMED, is_balanced=False)
    assert str(refused.value) == (
        "topic receipts is framed for a schema registry (the record at receipts/3/14 is in the Confluent wire format),"
        " so nothing can be judged without one: set schema_registry.url as the workers have it"
    )


def test_unrelated_records_are_no_finding_if_the_report_is_balanced() -> None:
    check(FRAMED, is_balanced=True)


@pytest.mark.parametrize("value", [None, b"", b"\xc3\x01rest", b"\x00\x01"])
def test_another_framing_needs_no_registry(value: bytes | None) -> None:
    check(value, is_balanced=False)


def test_with_a_registry_findings_are_findings() -> None:
    check(FRAMED, is_balanced=False, schema_registry={"url": "http://registry"})
