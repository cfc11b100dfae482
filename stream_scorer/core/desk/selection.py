"""Selection of a job, fixed by its JOB record: the options that select, and the offsets between which it selects.

The offsets are read once, when the job begins. So a record that was rejected again after its replay is not part of the
same job, and a job that is resumed decides exactly the records that it would have decided without the interruption.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from stream_scorer.core.text import quoted
from stream_scorer.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_ACTION: Final = "action"
_OPTIONS: Final = "options"
_OFFSETS: Final = "offsets"


class OffsetBounds(NamedTuple):
    """Offsets of a partition: from ``begin`` to before ``end``."""

    begin: int
    end: int


class Selection(NamedTuple):
    """Selection of a job.

    Attributes:
        action: what the job does.
        options: the options of the command that select and change, by name.
        bounds: the offsets of each partition of the decided topic.
    """

    action: str
    options: Mapping[str, Any]
    bounds: Mapping[int, OffsetBounds]

    def as_changes(self) -> dict[str, str]:
        """Return the ``changes`` of the JOB record."""
        offsets = {str(number): list(bounds) for number, bounds in self.bounds.items()}
        return {_ACTION: self.action, _OPTIONS: _canonical(self.options), _OFFSETS: _canonical(offsets)}


def selection_of(changes: Mapping[str, str]) -> Selection:
    """Return the selection in a JOB record.

    Raises:
        UsageError: a later release wrote it in another form.
    """
    try:
        offsets = json.loads(changes[_OFFSETS])
        bounds = {int(number): OffsetBounds(*one) for number, one in offsets.items()}
        return Selection(changes[_ACTION], json.loads(changes[_OPTIONS]), bounds)
    except (KeyError, ValueError, TypeError):
        raise UsageError("this job was begun by another release of stream-scorer: resume it with that one") from None


def check_resumed(name: str, given: Selection, begun: Selection) -> None:
    """Check that a job is resumed by the same command with the options it was begun with, or with none.

    Raises:
        UsageError: with others.
    """
    is_same = not given.options or _canonical(given.options) == _canonical(begun.options)
    if given.action != begun.action or not is_same:
        raise UsageError(
            f"job {name} was begun with other options: resume it with `--job {name}` alone, or give a new job another"
            " name"
        )


def check_job_name(name: str) -> None:
    """Check the name of a job, which is part of a transactional id.

    Raises:
        UsageError: it has other characters, or is too long.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--job {quoted(name)}: use a letter, then letters, digits, dots, dashes or underscores, at most 64 in all"
        )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
