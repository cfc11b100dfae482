"""The key ``lost`` of commit metadata: ``lost=100-147``, offsets that retention deleted before the group read them.

The operator adds it when a group's offset is set behind the gap (docs/operations.md, "Offsets gone"), and every later
commit repeats it. So the loss stays a finding until the operator removes the key.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_LOST: Final = re.compile(r"lost=(\d{1,18})-(\d{1,18})", re.ASCII)


class Lost(NamedTuple):
    """Offsets of an input partition that were deleted before the group read them; ``end`` is exclusive."""

    begin: int
    end: int


def parse_lost(metadata: str | None) -> tuple[Lost, ...]:
    """Return the gaps in commit metadata, in order; malformed pairs are ignored."""
    found = (_LOST.fullmatch(pair) for pair in (metadata or "").split(";"))
    gaps = (Lost(int(match[1]), int(match[2])) for match in found if match is not None)
    return tuple(gap for gap in gaps if gap.begin < gap.end)
