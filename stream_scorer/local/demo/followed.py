"""Contacts that the demo follows by their id: one scored, one in review, one rejected, which is then repaired."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_scorer.core.scoring.types import Reason
from stream_scorer.local.demo.outcomes import REJECTED, REVIEW, SCORED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stream_scorer.local.demo.outcomes import Outcome
    from stream_scorer.local.simulator.contact_list import Dial

_PREFIX: Final = "DEMO-"


class FollowedContacts:
    """The first contact of each kind, and what happens to it.

    Args:
        threshold: the least score of a contact that is called.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._found: dict[str, Outcome] = {}
        self.repaired: Outcome | None = None
        self._is_replayed = False

    @property
    def rejected_id(self) -> str | None:
        """Id of the rejected contact; None: there is none that can be repaired."""
        return self._found[REJECTED].contact_id if REJECTED in self._found else None

    def expect_repaired(self) -> None:
        """Expect the second outcome of the rejected contact."""
        self._is_replayed = True

    def observe(self, outcome: Outcome) -> Iterator[str]:
        """Yield a line if this is the outcome of a followed contact."""
        if self._is_replayed and outcome.kind != REJECTED and outcome.contact_id == self.rejected_id:
            self.repaired, self._is_replayed = outcome, False
            yield f"{outcome.contact_id} {self._sentence(outcome)}"
        elif outcome.kind not in self._found and self._is_chosen(outcome):
            self._found[outcome.kind] = outcome
            yield f"{outcome.contact_id} {self._sentence(outcome)}"

    def summary(self, dials: Sequence[Dial]) -> Iterator[str]:
        """Yield one line for each, with the dialler's call if there was one."""
        calls = {dial.data["contact_id"]: number for number, dial in enumerate(dials, start=1)}
        for kind in (SCORED, REVIEW, REJECTED):
            outcome = self._found.get(kind)
            if outcome is None:
                continue
            parts = [self._sentence(outcome)]
            if kind == REJECTED and self.repaired is not None:
                parts.append(f"repaired, replayed, {self._sentence(self.repaired)}")
            if outcome.contact_id in calls:
                parts.append(f"call {calls[outcome.contact_id]:,} of {len(dials):,}")
            yield f"{outcome.contact_id}  {'; '.join(parts)}"

    def _is_chosen(self, outcome: Outcome) -> bool:
        if not outcome.contact_id.startswith(_PREFIX):
            return False
        match outcome.kind:
            case "scored":
                return bool(outcome.values["score"] >= self._threshold)
            case "rejected":
                return bool(outcome.values["reason"] == Reason.WRONG_TYPE)
        return True

    def _sentence(self, outcome: Outcome) -> str:
        values = outcome.values
        match outcome.kind:
            case "rejected":
                return f"rejected: {values['reason']} ({values['detail']})"
            case "review":
                return f"in review: {', '.join(values['review_reasons'])}, so a person decides"
        goes = "to be called" if values["score"] >= self._threshold else f"below {self._threshold:g}: not called"
        return f"scored {values['score']:.3f}, {goes}"
