"""Deferral of a contact that failed alone: to the retry topic of its next round, and finally a rejection.

A contact has one round for each of ``scoring.retry_delays_s``. It is rejected only in its last round, and there after
``LONE_FAILURES`` failures alone, each between two successes of other contacts. If rejections for one cause exceed the
limit, the contacts are held: they wait in the last retry topic, and one per cause is sent after each delay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stream_scorer.core.retry_topics import state_of
from stream_scorer.core.scoring.refusal_limit import Cause, RefusalLimit, Verdict
from stream_scorer.core.scoring.response_policy import FailedContact
from stream_scorer.core.scoring.types import Contact, Deferred, Reason, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stream_scorer.core.records import SourceRecord
    from stream_scorer.runtime.clock import Clock

LONE_FAILURES: Final = 3
LONE_FAILURES_AT_RANDOM: Final = 12
# Contacts that the API names are rejected without rounds after so many refusals in a row. An API that names contacts at
# random, or on some of its nodes, scores them before that.
NAMED_REFUSALS: Final = 8
_RANDOM_S: Final = 600.0


@dataclass(slots=True)
class _Held:
    """The contacts held for one cause: when one of them is sent next, and whether one was scored."""

    next_at: float = 0.0
    is_released: bool = False


class Deferral:
    """See the module docstring. Times are monotonic seconds.

    Args:
        delays_s: ``scoring.retry_delays_s``.
        limit: of rejections.
        clock: the time.
        on_limit: called with the cause, the number in ten minutes, and whether the contact was held.
    """

    def __init__(
        self,
        delays_s: Sequence[float],
        limit: RefusalLimit,
        clock: Clock,
        on_limit: Callable[[Cause, int, bool], object],
    ) -> None:
        self._delays_s = tuple(delays_s)
        self._limit = limit
        self._clock = clock
        self._on_limit = on_limit
        self._answered_at = float("-inf")
        self._held: dict[str, _Held] = {}

    # --- rounds

    def is_last_round(self, contact: Contact) -> bool:
        """Return whether a failure now leads to a rejection."""
        return contact.rounds >= len(self._delays_s)

    @property
    def fails_at_random(self) -> bool:
        """Whether a contact that had failed alone was scored in the last ten minutes."""
        return self._clock.monotonic() - self._answered_at <= _RANDOM_S

    @property
    def lone_failures(self) -> int:
        """Number of failures alone before a rejection: more while the API fails at random."""
        return LONE_FAILURES_AT_RANDOM if self.fails_at_random else LONE_FAILURES

    def answered_after_failure(self, contact: Contact) -> None:
        """Record the score of a contact that had failed before; release the contacts held for its cause."""
        self._answered_at = self._clock.monotonic()
        if contact.held:
            self._held.setdefault(contact.held, _Held()).is_released = True

    def counted(self, contact: Contact) -> Deferred:
        """Return the deferral of a contact whose round failed while others succeeded."""
        return self._to_topic(contact, contact.rounds + 1)

    def uncounted(self, contact: Contact) -> Deferred:
        """Return the deferral of a contact to the retry topic of its present round."""
        return self._to_topic(contact, contact.rounds, contact.held)

    def schema_missing(self, record: SourceRecord, detail: str) -> Rejected | Deferred:
        """Return the outcome of a record whose schema is missing in the registry: this round has failed.

        Args:
            record: the record, not decoded.
            detail: the reason, one sentence.
        """
        state = state_of(record) if record.origin else None
        rounds, held = (state.rounds, state.held) if state is not None else (0, "")
        contact = Contact(record, "", "", None, 0, None, False, (), b"", rounds, held)
        if self.is_held(contact):
            return self.failed_again(contact)
        if not self.is_last_round(contact):
            return self.counted(contact)
        return self.reject(FailedContact(contact, Reason.UNDECODABLE, None, detail, None))

    # --- the end

    def reject(self, failed: FailedContact) -> Rejected | Deferred:
        """Return the rejection of a contact, or its deferral if the limit of rejections is reached."""
        now = self._clock.monotonic()
        contact = failed.contact
        cause = Cause(failed.reason.value, failed.status, contact.model_version)
        verdict = self._limit.refused(cause, now)
        if verdict is not Verdict.REJECT:
            self._on_limit(cause, self._limit.count(cause), verdict is Verdict.HOLD)
        if verdict is Verdict.HOLD:
            return self._hold(contact, str(cause))
        rounds = f"; {contact.rounds} retry rounds failed too" if contact.rounds else ""
        return Rejected(
            contact.record,
            (failed.reason.value,),
            failed.detail + rounds,
            contact.contact_id,
            self._clock.unix_ms(),
            request=failed.facts,
            api_status=failed.status,
            event_id=contact.event_id,
            features_hash=contact.features_hash,
        )

    def finished(self, contacts: int) -> None:
        """Count contacts with an outcome, for the limit of rejections."""
        self._limit.record_finished(contacts, self._clock.monotonic())

    # --- held contacts

    def is_held(self, contact: Contact) -> bool:
        """Return whether a contact was held, and the limit still applies."""
        return bool(contact.held) and self._limit.is_on

    def admits(self, contact: Contact) -> bool:
        """Return whether a contact may be sent now: of those held for one cause one per delay, until it is scored."""
        if not self.is_held(contact):
            return True
        held = self._held.setdefault(contact.held, _Held())
        now = self._clock.monotonic()
        if held.is_released:
            return True
        if now < held.next_at:
            return False
        held.next_at = now + self._delays_s[-1]
        return True

    def failed_again(self, contact: Contact) -> Deferred:
        """Return the deferral of a held contact that failed once more."""
        self._held.setdefault(contact.held, _Held()).is_released = False
        return self._hold(contact, contact.held)

    # --- private

    def _hold(self, contact: Contact, cause: str) -> Deferred:
        return self._to_topic(contact, len(self._delays_s), cause)

    def _to_topic(self, contact: Contact, rounds: int, held: str = "") -> Deferred:
        level = min(max(1, rounds), len(self._delays_s))
        not_before_ms = self._clock.unix_ms() + round(self._delays_s[level - 1] * 1_000)
        return Deferred(
            contact.record,
            contact.contact_id,
            rounds,
            level,
            not_before_ms,
            held,
            event_id=contact.event_id,
            features_hash=contact.features_hash,
        )
