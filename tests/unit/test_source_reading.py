"""Number of records of one read: by the size of those before, so that large records do not fill the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stream_scorer.kafka.consumer import group_consumer as module
from stream_scorer.kafka.consumer.group_consumer import GroupConsumer

if TYPE_CHECKING:
    import pytest


class Message:
    def __init__(self, headers: list[tuple[str, bytes]]) -> None:
        self._headers = headers

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "features"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"value"

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class FakeConsumer:
    """Consumer with any number of records."""

    headers: list[tuple[str, bytes]]
    asked: list[int]

    def __init__(self, _config: dict[str, Any]) -> None: ...

    def consume(self, number: int, _wait_s: float) -> list[Message]:
        self.asked.append(number)
        return [Message(self.headers)] * number


def test_a_read_takes_as_many_as_fit_by_the_size_of_the_last_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Consumer", FakeConsumer)
    FakeConsumer.asked, FakeConsumer.headers = [], []
    source = GroupConsumer({"group.id": "g"}, ["features"], wait=lambda _: True)
    for _ in range(7):
        source.read(1_000, 0.0)
    assert FakeConsumer.asked == [32, 64, 128, 256, 512, 1_000, 1_000]
    FakeConsumer.headers = [("h", b"v")] * 20_000  # 3 MB in memory
    source.read(1_000, 0.0)
    source.read(1_000, 0.0)
    assert FakeConsumer.asked[-1] == 5
    FakeConsumer.headers = [("h", b"v")] * 200_000
    source.read(1_000, 0.0)
    source.read(1_000, 0.0)
    assert FakeConsumer.asked[-1] == 1
