"""Log events that tests wait for, against those that the package writes: a wait for any other proves nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
_WAITED_FOR: Final = re.compile(r'said(?:, |\()"([^"]+)"|\["event"\] == "([^"]+)"|get\("event"\) == "([^"]+)"')
_SOURCE: Final = "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "stream_scorer").rglob("*.py")))
# An event whose text has a part that varies, such as ``f"contacts {outcome} over the limit"``.
_VARIABLE: Final = [
    re.compile(".+".join(re.escape(part) for part in re.split(r"\{\w+\}", text)))
    for text in re.findall(r'f"([a-z]+ \{\w+\} [a-z ]+)"', _SOURCE)
]
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
    assert {event for event in found if not _is_written(event)} == set()


def test_an_event_that_is_never_written_is_found() -> None:
    assert not _is_written("an event of nothing")
    assert _is_written("contacts held over the limit")


def _is_written(event: str) -> bool:
    return f'"{event}"' in _SOURCE or any(pattern.fullmatch(event) for pattern in _VARIABLE)
