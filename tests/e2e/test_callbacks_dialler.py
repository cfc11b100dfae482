"""The campaign worker and a dialler: no contact is dialled twice for a score despite kills, losses and rejections."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from callbacks_harness import score

from stream_scorer.reconciliation import reconcile_callbacks
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness

    from stream_scorer.local.simulator import Simulator

pytestmark = pytest.mark.kafka

SCORES_EACH = 6
COLUMNS = {"contact_id": "contact_id", "scored_at": "scored_at", "score": "score", "phone": "attributes.phone"}


@dataclass(frozen=True)
class Size:
    contacts: int
    kills: int
    max_contacts: int

    @property
    def contact_ids(self) -> list[str]:
        return [f"{'REFUSE-' if number % 40 == 7 else ''}C-{number:03}" for number in range(self.contacts)]

    @property
    def opted_out(self) -> set[str]:
        return {f"C-{number:03}" for number in range(0, self.contacts, 10)}


SHORT = Size(contacts=80, kills=10, max_contacts=9)
# About 1,000 callbacks.
LONG = Size(contacts=500, kills=200, max_contacts=3)


def scores(size: Size, turn: int) -> list[dict[str, Any]]:
    """One score of every contact; two contacts have no number."""
    at_ms = time.time_ns() // 1_000_000 - 3_600_000 + turn * 60_000
    return [
        score(
            name,
            scored_at=at_ms + number,
            campaign_id=("spring", "autumn")[number % 2],
            attributes={} if number in (11, 12) else {"phone": f"+49-{name}"},
        )
        for number, name in enumerate(size.contact_ids)
    ]


def test_contacts_without_a_number_delay_no_other_contact(
    make_campaign: Callable[..., CallbacksHarness], simulator: Simulator
) -> None:
    simulator.configure(quota=1_000_000, dials_per_s=200.0)
    campaign = make_campaign(
        {
            **simulator.environment(),
            "STREAM_SCORER_GENESYS__REQUESTS_PER_MINUTE": "100000",
            "STREAM_SCORER_CALLBACKS__TARGET": "genesys-outbound",
            "STREAM_SCORER_CALLBACKS__CONTACT_LIST_ID": "simulator-list",
            "STREAM_SCORER_CALLBACKS__COLUMNS": json.dumps(COLUMNS),
            "STREAM_SCORER_CALLBACKS__MAX_CONTACTS": "1",
            "STREAM_SCORER_CALLBACKS__PROBE_INTERVAL_S": "600",
        }
    )
    campaign.put(score(f"without-{number}") for number in range(30))
    campaign.put(score(f"with-{number}", attributes={"phone": f"+49-{number}"}) for number in range(5))
    worker = campaign.start()
    campaign.wait_receipts(35, needs=worker)
    assert campaign.verify_receipts() == {"REFUSED": 30, "DELIVERED": 5}
    assert worker.ready(), worker.log()
    assert not worker.said("circuit opened")


def has_more_requests(simulator: Simulator, requests: int, campaign: CallbacksHarness, put: int) -> bool:
    """Return whether the platform has accepted more requests or nothing is left to send."""
    if simulator.stats().requests["outbound"]["200"] > requests + 2:
        return True
    return sum(len(receipt["contact_ids"]) for receipt in campaign.receipts()) >= put


@pytest.mark.parametrize(
    ("requeue", "size"),
    [
        pytest.param("never", SHORT, marks=pytest.mark.slow, id="never"),
        pytest.param("newer_score", SHORT, id="newer_score"),
        pytest.param("newer_score", LONG, marks=[pytest.mark.slow, pytest.mark.timeout(3_000)], id="200-kills"),
    ],
)
def test_no_contact_is_dialled_twice_for_one_score(
    make_campaign: Callable[..., CallbacksHarness], simulator: Simulator, requeue: str, size: Size
) -> None:
    simulator.configure(quota=1_000_000, contact_lists={"autumn-list": {}}, dials_per_s=200.0)
    campaign = make_campaign(
        {
            **simulator.environment(),
            "STREAM_SCORER_GENESYS__REQUESTS_PER_MINUTE": "100000",
            "STREAM_SCORER_CALLBACKS__TARGET": "genesys-outbound",
            "STREAM_SCORER_CALLBACKS__CONTACT_LIST_ID": "simulator-list",
            "STREAM_SCORER_CALLBACKS__CONTACT_LISTS": json.dumps({"autumn": "autumn-list"}),
            "STREAM_SCORER_CALLBACKS__COLUMNS": json.dumps(COLUMNS),
            "STREAM_SCORER_CALLBACKS__CONTACT_ID": "contact_id",
            "STREAM_SCORER_CALLBACKS__REQUEUE": requeue,
            "STREAM_SCORER_CALLBACKS__MAX_CONTACTS": str(size.max_contacts),
            "STREAM_SCORER_CALLBACKS__RETRY_DELAYS_S": "[0.2, 0.2, 0.2, 0.2]",
        }
    )
    simulator.add_fault(path="outbound", drop="after", times=None, share=0.15, seed=1)
    worker = campaign.start(name="dialler")
    put = campaign.put(scores(size, 0))
    campaign.wait(lambda: len(simulator.dials()) > 20, "the first calls", needs=worker)
    kept_out: set[str] = set()
    for list_id in ("simulator-list", "autumn-list"):
        here = size.opted_out & simulator.contact_list(list_id).keys()
        simulator.opt_out(*here, list_id=list_id)
        kept_out |= here
    for kill in range(1, size.kills + 1):
        if kill < SCORES_EACH:
            put += campaign.put(scores(size, kill))
        requests = simulator.stats().requests["outbound"]["200"]
        with_more = partial(has_more_requests, simulator, requests, campaign, put)
        campaign.wait(with_more, "requests", needs=worker)
        worker.kill()
        worker = campaign.start(name="dialler")
    campaign.wait_receipts(put, needs=worker, limit_s=180)
    outcomes = campaign.verify_receipts()
    campaign.wait(worker.ready, "the last worker to be ready", needs=worker)
    assert worker.stop() == 0, worker.log()
    for list_id in ("simulator-list", "autumn-list"):
        simulator.dial(list_id=list_id)

    bad = (sum(name.startswith("REFUSE") for name in size.contact_ids) + 2) * SCORES_EACH
    assert outcomes == {"DELIVERED": put - bad, "REFUSED": bad}
    assert simulator.dialled(minimum=2) == []
    assert all(dial.number for dial in simulator.dials())
    listed = simulator.contact_list() | simulator.contact_list("autumn-list")
    assert len(listed) == size.contacts - bad // SCORES_EACH
    assert kept_out
    assert not any(listed[contact_id].callable for contact_id in kept_out)
    assert all(listed[contact_id].times > 1 for contact_id in kept_out), "newer scores were added"
    calls = {dial.id for dial in simulator.dials()}
    assert calls >= listed.keys() - size.opted_out

    environment = {name: text for name, text in campaign.settings().items() if name.startswith("STREAM_SCORER_")}
    report = reconcile_callbacks(load_settings(environ=environment))
    assert report is not None
    assert report.is_balanced, report.findings
    assert (report.counts.delivered, report.counts.refused) == (put - bad, bad)
