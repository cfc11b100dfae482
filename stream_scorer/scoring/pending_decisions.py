"""Failures that wait for evidence: whether the API scored another contact after the failed request was sent.

A usable result of the same model version decides that others succeed. Without one, the decision waits for the requests
of the version that were in flight when the failure was received, then for one control. If the control fails too, none
succeed. For a version unknown to the platform, results of any other version are the evidence, and the control
is sent without a version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stream_scorer.core.scoring.response_policy import FailureKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stream_scorer.core.scoring.request import Request
    from stream_scorer.core.scoring.response_policy import Failure
    from stream_scorer.scoring.version_state import VersionStates

# In its last round a failure counts only between two successes of other contacts, each at most this far away.
LAST_ROUND_WINDOW_S: Final = 10.0


@dataclass(slots=True, eq=False)
class PendingDecision:
    """A failed request. Times are monotonic seconds.

    Attributes:
        request: the request, its failure counted.
        failure: the failure of the request.
        failed_at: when the failure was received.
        is_last_round: whether its single contact is in its last round.
        awaited: the requests in flight that may be the evidence.
        control: the ``batch_id`` of the control that decides; None: none was sent yet.
        control_failed: whether that control failed.
    """

    request: Request
    failure: Failure
    failed_at: float
    is_last_round: bool = False
    awaited: set[str] = field(default_factory=set)
    control: str | None = None
    control_failed: bool = False

    @property
    def is_unknown_version(self) -> bool:
        """Whether the platform does not know the version: then results of any other are evidence."""
        return self.failure.kind is FailureKind.UNKNOWN_VERSION

    @property
    def target(self) -> str | None:
        """The model version for which a control is evidence."""
        return None if self.is_unknown_version else self.request.key.model_version


class PendingDecisions:
    """See the module docstring.

    Args:
        versions: when requests of each version succeeded.
    """

    def __init__(self, versions: VersionStates) -> None:
        self._versions = versions
        self._pending: list[PendingDecision] = []

    def __len__(self) -> int:
        return len(self._pending)

    def __iter__(self) -> Iterator[PendingDecision]:
        return iter(self._pending)

    def add(self, pending: PendingDecision, in_flight: Iterable[Request]) -> None:
        """Add a failure that waits for evidence."""
        is_unknown = pending.is_unknown_version
        version = pending.request.key.model_version
        pending.awaited = {one.batch_id for one in in_flight if (one.key.model_version != version) is is_unknown}
        self._pending.append(pending)

    def remove(self, pending: PendingDecision) -> None:
        """Remove a failure whose decision was made."""
        self._pending.remove(pending)

    def drain(self, model_version: str | None) -> list[Request]:
        """Remove all failures of a version without a decision, and return their requests."""
        drained = [pending for pending in self._pending if pending.request.key.model_version == model_version]
        self._pending = [pending for pending in self._pending if pending not in drained]
        return [pending.request for pending in drained]

    def responded(self, batch_id: str) -> None:
        """Record that a request is not in flight any more."""
        for pending in self._pending:
            pending.awaited.discard(batch_id)

    def control_sent(self, target: str | None, batch_id: str) -> None:
        """Record the control for all failures of a version that wait for one."""
        for pending in self._wanting(target):
            pending.control = batch_id

    def control_ended(self, batch_id: str, *, failed: bool) -> None:
        """Record that a control failed, or that it ended without a verdict: then another one is sent.

        A 429 is no verdict. Neither is the failure of a waiting contact while there are contacts with a score.
        """
        for pending in self._pending:
            if pending.control == batch_id:
                pending.control_failed = failed
                pending.control = batch_id if failed else None

    def wanting_control(self) -> list[PendingDecision]:
        """Return the failures whose control was not sent yet."""
        return [one for one in self._pending if one.control is None and not one.awaited and self.evidence(one) is None]

    def evidence(self, pending: PendingDecision, now: float | None = None) -> bool | None:
        """Return whether requests for other contacts succeed; None: not decided yet."""
        request, failed_at = pending.request, pending.failed_at
        is_unknown = pending.is_unknown_version
        if is_unknown:
            succeeded_at = self._versions.others_succeeded_at(request.key.model_version)
        else:
            succeeded_at = self._versions.succeeded_at(request.key.model_version)
        since = failed_at if is_unknown or pending.is_last_round else request.sent_at
        if since is None or succeeded_at > since:
            return not pending.is_last_round or succeeded_at - failed_at <= LAST_ROUND_WINDOW_S
        if pending.control_failed:
            return False
        if pending.is_last_round and now is not None and now - failed_at > LAST_ROUND_WINDOW_S:
            return False
        return None

    def decided(self, now: float) -> list[tuple[PendingDecision, bool]]:
        """Return the failures that can be decided, each with whether requests for other contacts succeed."""
        found = [(pending, self.evidence(pending, now)) for pending in self._pending]
        return [(pending, verdict) for pending, verdict in found if verdict is not None]

    def _wanting(self, target: str | None) -> list[PendingDecision]:
        return [one for one in self.wanting_control() if one.target == target]
