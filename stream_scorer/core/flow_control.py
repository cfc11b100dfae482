"""Fair shares of one limit: how much each account may hold.

Half of the limit is guaranteed, in equal parts: each of n accounts may always hold 1/2n. The other half is shared. Of
it an account holds at most as much as it leaves free. So one account that is blocked takes half of the shared half, the
next one a third with it, and the guarantees of the others stay untouched. A single account may hold everything.

The rule for the shared half is the dynamic threshold of switches with shared memory (Choudhury and Hahne, 1998), with
a factor of one. It needs no reserve to be configured and reacts to each account as it fills.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

_GUARANTEED = 0.5


class FairShares(NamedTuple):
    """One limit, divided among the accounts as they stand.

    Args:
        limit: what all accounts may hold together.
        accounts: how many accounts there are.
        used: what all accounts hold together.
        shared_used: what accounts hold above their guarantee, all together.
    """

    limit: int
    accounts: int
    used: int
    shared_used: float

    @classmethod
    def of(cls, limit: int, used: Collection[int]) -> FairShares:
        """Divide a limit among accounts that hold so much each."""
        guaranteed = _guaranteed(limit, len(used))
        return cls(limit, len(used), sum(used), sum(one - guaranteed for one in used if one > guaranteed))

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self.used >= self.limit

    def share_of(self, used: int) -> float:
        """Return what an account that holds ``used`` may hold, as long as the others hold what they do."""
        if self.accounts <= 1:
            return self.limit
        guaranteed = _guaranteed(self.limit, self.accounts)
        shared_by_others = self.shared_used - max(0.0, used - guaranteed)
        return guaranteed + max(0.0, self.limit - guaranteed * self.accounts - shared_by_others) / 2

    def ceiling_of(self, used: int) -> float:
        """Return up to where such an account may grow now: its share, and what is free of the whole limit."""
        return min(self.share_of(used), used + self.limit - self.used)


def _guaranteed(limit: int, accounts: int) -> float:
    return limit * _GUARANTEED / max(1, accounts)
