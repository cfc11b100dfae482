"""Records of a transaction, and its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.records import Headers


class OutRecord(NamedTuple):
    """A record to be written."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Committed:
    """The broker confirmed the transaction. Handing it all over took ``send_s``, the commit ``commit_s``.

    ``slow``: it took so long that one of twice the size would hardly be in time.
    """

    send_s: float = 0.0
    commit_s: float = 0.0
    slow: bool = False


@dataclass(frozen=True, slots=True)
class RecordsRejected:
    """The broker refuses records themselves, by their index: nothing of the transaction is visible."""

    errors: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """The transaction did not end well, or nobody knows how it ended.

    ``fenced``: another producer took over our transactional id. ``stale``: the group has moved on without us, so that
    nothing can be committed before the next rebalance says what we own. ``denied``: a right (ACL) is missing.
    ``late``: it failed after so long a time that it may have been too large for the line.
    """

    message: str
    fenced: bool = False
    stale: bool = False
    denied: bool = False
    late: bool = False


Publication: TypeAlias = Committed | RecordsRejected | Failed
