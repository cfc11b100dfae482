"""``stream-scorer callbacks`` on a real broker, from the scores topic to a campaign manager that keeps books."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support_campaign import score

if TYPE_CHECKING:
    from collections.abc import Callable

    from support_campaign import CampaignStage

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka


@pytest.fixture
def stage(make_campaign: Callable[..., CampaignStage], receiver: Receiver) -> CampaignStage:
    """A stage whose target is the receiver."""
    return make_campaign(receiver.environment())


def test_every_high_score_reaches_the_receiver_once(stage: CampaignStage, receiver: Receiver) -> None:
    stage.put(score(f"c{n}", n % 100 / 100, campaign_id=(None, "spring", "autumn")[n % 3]) for n in range(1000))
    worker = stage.start()
    stage.wait_receipts(250, needs=worker)
    assert stage.judge() == {"DELIVERED": 250}
    assert receiver.contacts() == {f"c{n}": 1 for n in range(1000) if n % 100 >= 75}
    stats = receiver.stats()
    assert (stats.repeats, stats.changed, stats.unverified) == (0, 0, 0)
    assert worker.stop() == 0, worker.log()


def test_a_successor_goes_on_where_the_first_was_killed(stage: CampaignStage, receiver: Receiver) -> None:
    for round_number in range(4):
        stage.put(score(f"c{round_number}-{n}", campaign_id=f"k{n % 5}") for n in range(200))
        worker = stage.start(name="w")
        before = receiver.stats().contacts
        stage.wait(lambda before=before: receiver.stats().contacts > before, "new contacts", needs=worker)
        worker.kill()
    worker = stage.start(name="w")
    stage.wait_receipts(800, needs=worker)
    assert stage.judge() == {"DELIVERED": 800}
    stats = receiver.stats()
    assert stats.contacts == 800
    assert (stats.changed, stats.unverified) == (0, 0)
    assert set(receiver.contacts().values()) == {1}
