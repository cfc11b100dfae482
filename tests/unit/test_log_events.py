"""Log events that tests wait for, against those that the package writes: a wait for any other proves nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from log_calls import log_calls

ROOT: Final = Path(__file__).parents[2]
_WAITED_FOR: Final = re.compile(r'said(?:, |\()"([^"]+)"|\["event"\] == "([^"]+)"|get\("event"\) == "([^"]+)"')
_WRITTEN: Final = {call.event for call in log_calls(ROOT / "stream_scorer")}
_FILES: Final = [
    file
    for folder in ("e2e", "chaos")
    for file in sorted((ROOT / "tests" / folder).glob("*.py"))
    if _WAITED_FOR.search(file.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_every_event_is_written_somewhere(file: Path) -> None:
    found = {event for groups in _WAITED_FOR.findall(file.read_text(encoding="utf-8")) for event in groups if event}
    assert found
    assert found - _WRITTEN == set()


def test_an_event_that_is_never_written_is_found() -> None:
    assert "an event of nothing" not in _WRITTEN
    # Chosen by a condition, by a function of the module, and beside a logger that is a call.
    assert {"contacts held over the limit", "circuit reason changed", "waiting for Kafka"} <= _WRITTEN
