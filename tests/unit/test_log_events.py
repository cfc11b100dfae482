"""Log events that tests wait for, against those that the package writes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from log_calls import LogCall, log_calls

ROOT: Final = Path(__file__).parents[2]
_WAITED_FOR: Final = re.compile(r'said(?:, |\()"([^"]+)"|\["event"\] == "([^"]+)"|get\("event"\) == "([^"]+)"')
_FILES: Final = [
    file
    for folder in ("e2e", "chaos")
    for file in sorted((ROOT / "tests" / folder).glob("*.py"))
    if _WAITED_FOR.search(file.read_text(encoding="utf-8"))
]


@cache  # not at import: every process of a test run imports this module
def written() -> frozenset[str]:
    return frozenset(call.event for call in log_calls(ROOT / "stream_scorer"))


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_every_event_is_written_somewhere(file: Path) -> None:
    found = {event for groups in _WAITED_FOR.findall(file.read_text(encoding="utf-8")) for event in groups if event}
    assert found
    assert found - written() == set()


def test_an_event_that_is_never_written_is_found() -> None:
    assert "an event of nothing" not in written()
    # Chosen by a condition, by a function of the module, and beside a logger that is a call.
    assert {"contacts held over the limit", "circuit reason changed", "waiting for Kafka"} <= written()


def test_what_a_condition_or_a_function_chooses_is_read(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(
        """
class Observer:
    def __init__(self, loop):
        self._loop = {"loop": loop} if loop else {}

    @property
    def facts(self):
        return {"reason": 1}

    def changed(self, state):
        say = self._log.error if state.is_open else self._log.info
        word = "held" if state.is_open else "rejected"
        say(f"contacts {word}", **self._loop, status=1)
        fields = {**state.facts, "detail": 2}
        self._log.warning(_event(state), **fields)
        _log.warning("of the standard library: %s", state)


def _event(state):
    if state.is_open:
        return "circuit opened"
    return "circuit closed"
"""
    )
    held, rejected, closed, opened = log_calls(tmp_path)
    assert held == LogCall("contacts held", ("error", "info"), "loop", ("loop", "status"))
    assert (rejected.event, rejected.fields) == ("contacts rejected", held.fields)
    assert opened == LogCall("circuit opened", ("warning",), "loop", ("reason", "detail"))
    assert (closed.event, closed.fields) == ("circuit closed", opened.fields)


def test_an_event_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text("def run(log, event):\n    log.info(event)\n")
    with pytest.raises((KeyError, ValueError)):
        list(log_calls(tmp_path))
