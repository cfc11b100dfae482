"""Start of a renamed delivery group with redelivered callbacks."""

from __future__ import annotations

from stream_scorer.core.callbacks.delivery_start import CallbackPart, CallbackRecord, RetryStarts


def record(topic: str, offset: int, decision: str = "") -> CallbackRecord:
    return CallbackRecord(topic, 0, offset, b"callback", offset, decision.encode())


def test_a_redelivery_has_a_receipt_of_its_own() -> None:
    starts = RetryStarts()
    part = CallbackPart(starts)
    part.add_planned(record("callbacks", 7, "decision"))
    part.add_receipt(record("receipts", 1))
    part.end()
    assert starts.repeated == 0


def test_a_redelivery_with_its_receipt_would_be_delivered_once_more() -> None:
    starts = RetryStarts()
    part = CallbackPart(starts)
    part.add_planned(record("callbacks", 7, "decision"))
    part.add_receipt(record("receipts", 1))
    part.add_receipt(record("receipts", 8, "decision"))
    part.end()
    assert starts.repeated == 1


def test_a_redelivery_has_a_retry_record_of_its_own() -> None:
    starts = RetryStarts()
    part = CallbackPart(starts)
    part.add_retry(record("retry-1", 2))
    part.add_retry(record("retry-1", 9, "decision"))
    part.add_receipt(record("receipts", 3))
    part.end()
    assert starts.first_waiting == {("retry-1", 0): 9}
    assert starts.repeated_partitions == 0
