"""Output records of a transaction, and its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_scorer.core.records import Headers


BY_KEY: Final = -1


class OutRecord(NamedTuple):
    """Output record of a transaction; ``partition``: by default that of its key."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = BY_KEY


@dataclass(frozen=True, slots=True)
class Committed:
    """The broker confirmed the transaction. Producing its records took ``send_s``, the commit ``commit_s``.

    ``slow``: a transaction of twice the size would hardly meet its time-out.
    """

    send_s: float = 0.0
    commit_s: float = 0.0
    slow: bool = False


@dataclass(frozen=True, slots=True)
class RecordsRejected:
    """The broker rejected records individually, by their index: no record of the transaction is visible."""

    errors: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Failed:
    """The transaction failed, or its outcome is unknown.

    ``fenced``: another producer took over the transactional id. ``stale``: the group has a newer generation without
    this worker, so no commit is possible before the next rebalance. ``denied``: a right (ACL) is missing. ``late``: it
    failed after so long a time that it may have been too large for the line.
    """

    message: str
    fenced: bool = False
    stale: bool = False
    denied: bool = False
    late: bool = False


Publication: TypeAlias = Committed | RecordsRejected | Failed
