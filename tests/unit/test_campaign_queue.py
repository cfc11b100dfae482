"""Queue of one campaign: its rate limit and its probes."""

from __future__ import annotations

from delivery_harness import callback

from stream_scorer.callbacks.campaign_queue import CampaignQueue
from stream_scorer.core.callbacks.retry_policy import Delivery
from stream_scorer.core.records import SourceRecord


def test_a_probe_does_not_wait_behind_the_reservations_of_blocked_callbacks() -> None:
    queue = CampaignQueue("spring", 1)
    one = Delivery(SourceRecord("callbacks", 0, 0, b"k", b"v", [], True, 0), callback("cb-0"))
    waits_s = [queue.rate_limit_wait_s(one, 1_000.0) for _ in range(4)]
    assert waits_s == [0.0, 60.0, 120.0, 180.0]
    assert not queue.admits_probe(1_059.0), "one a minute"
    assert queue.admits_probe(1_060.0)
    assert not queue.admits_probe(1_119.0)
    assert queue.admits_probe(1_120.0)
