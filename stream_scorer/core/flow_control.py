"""Fair shares of one limit: how much each account may use.

Half of the limit is guaranteed, in equal parts: each of n accounts may always use 1/2n. The other half is shared. An
account uses at most as much of it as stays free. So one blocked account takes half of the shared half, two take a third
each, and the guarantees of the other accounts remain. A single account may use the whole limit.

The rule for the shared half is the dynamic threshold of switches with shared memory (Choudhury and Hahne, 1998), with
a factor of one. It needs no reserve to be configured and reacts to each account as it fills.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

_GUARANTEED = 0.5


class FairShares(NamedTuple):
    """One limit, divided among the accounts by their present use.

    Args:
        limit: the maximum use of all accounts together.
        accounts: number of accounts.
        used: the use of all accounts together.
        shared_used: the use above the guarantees, of all accounts together.
    """

    limit: int
    accounts: int
    used: int
    shared_used: float

    @classmethod
    def of(cls, limit: int, used: Collection[int]) -> FairShares:
        """Divide a limit among accounts; ``used``: the use of each."""
        guaranteed = _guaranteed(limit, len(used))
        return cls(limit, len(used), sum(used), sum(one - guaranteed for one in used if one > guaranteed))

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.used >= self.limit

    def share_of(self, used: int) -> float:
        """Return the share of an account that uses ``used``, while the use of the other accounts stays."""
        if self.accounts <= 1:
            return self.limit
        guaranteed = _guaranteed(self.limit, self.accounts)
        shared_by_others = self.shared_used - max(0.0, used - guaranteed)
        return guaranteed + max(0.0, self.limit - guaranteed * self.accounts - shared_by_others) / 2

    def ceiling_of(self, used: int) -> float:
        """Return how much such an account may use now: at most its share, and at most the free part of the limit."""
        return min(self.share_of(used), used + self.limit - self.used)


def _guaranteed(limit: int, accounts: int) -> float:
    return limit * _GUARANTEED / max(1, accounts)
