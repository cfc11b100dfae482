"""Destination of the callbacks in the demo: the simulator's dialler, or a campaign manager with a webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from stream_scorer.local.demo.callbacks_check import verify_delivered, verify_dialled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_scorer.local.receiver import Receiver
    from stream_scorer.local.simulator import Simulator
    from stream_scorer.local.simulator.contact_list import Dial
    from stream_scorer.settings import Settings


class CampaignCounts(NamedTuple):
    """Counts of the destination.

    Attributes:
        called: contacts that were called, or that the campaign manager has received.
        queued: contacts that wait in the dial queue; None: there is no dialler.
    """

    called: int
    queued: int | None


class CampaignSide(Protocol):
    """Destination of the callbacks."""

    def counts(self) -> CampaignCounts:
        """Return the counts so far."""

    def verified(self, settings: Settings) -> str:
        """Compare its contacts with the scores, and return a sentence about them.

        Raises:
            CheckFailed: they differ.
        """

    def dials(self) -> Sequence[Dial]:
        """Return all calls in their order; empty without a dialler."""


class DiallerSide:
    """The dialler of the simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def counts(self) -> CampaignCounts:
        counts = self._simulator.dialler()
        return CampaignCounts(counts.dials, counts.queued)

    def verified(self, settings: Settings) -> str:
        calls = verify_dialled(settings, self._simulator)
        return (
            f"the dialler called {calls:,} contacts, each once, exactly those with a high score (a contact with several"
            " high scores is called once)"
        )

    def dials(self) -> Sequence[Dial]:
        return self._simulator.dials()


class WebhookSide:
    """The receiver of this project."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def counts(self) -> CampaignCounts:
        return CampaignCounts(self._receiver.stats().contacts, None)

    def verified(self, settings: Settings) -> str:
        received = verify_delivered(settings, self._receiver)
        return (
            f"the campaign manager received {received.contacts:,} contacts in {received.callbacks:,} callbacks, exactly"
            f" those with a high score; {received.repeats:,} deliveries were repeats, under their id"
        )

    def dials(self) -> Sequence[Dial]:
        return ()
