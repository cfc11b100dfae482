"""Start of a renamed delivery group: at the first callback that waits, behind all that was finished."""

from __future__ import annotations

from stream_scorer.core.callbacks.delivery_start import RetryRecord, waiting_callbacks


def record(level: int, offset: int, key: str, written_ms: int) -> RetryRecord:
    return RetryRecord(f"retry-{level}", 0, offset, key.encode(), written_ms)


def test_what_waits_is_the_last_record_without_a_receipt() -> None:
    records = [
        record(1, 0, "done", 10),
        record(1, 1, "moved", 20),
        record(2, 0, "done", 30),
        record(2, 1, "moved", 40),
        record(1, 2, "new", 50),
    ]
    found = waiting_callbacks(records, {b"done"})
    assert found.starts == {("retry-1", 0): 2, ("retry-2", 0): 1}
    assert found.keys == {b"moved", b"new"}
    assert found.repeated == frozenset()


def test_one_that_went_back_to_the_first_topic_waits_there() -> None:
    found = waiting_callbacks([record(1, 0, "a", 10), record(2, 0, "a", 20), record(1, 1, "a", 30)], ())
    assert found.starts == {("retry-1", 0): 1}


def test_what_is_finished_behind_a_start_would_be_repeated() -> None:
    found = waiting_callbacks([record(1, 0, "lost receipt", 10), record(1, 1, "done", 20)], {b"done"})
    assert found.repeated == {b"done"}


def test_without_waiting_callbacks_there_is_no_start() -> None:
    assert waiting_callbacks([record(1, 0, "done", 10)], {b"done"}).starts == {}
