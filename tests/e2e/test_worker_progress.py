"""Progress events of a worker: fields in JSON, one line on a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from callbacks_harness import score
from scoring_harness import contacts
from worker_harness import QUICK_SETTINGS, ROOT

from stream_scorer.local.kafka.process import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka


def test_a_worker_reports_its_rebalance_that_it_has_caught_up_and_its_totals(stage: WorkerHarness) -> None:
    worker = stage.start_ready()
    stage.produce(contacts(500, stage.partitions))
    stage.wait(lambda: worker.said("caught up"), "the worker to catch up", needs=worker)
    [rebalance] = worker.said("rebalance completed")
    assert (rebalance["assigned"], rebalance["revoked"], rebalance["partitions"]) == (4, 0, 4)
    [caught_up] = worker.said("caught up")
    assert caught_up["scored"] + caught_up["review"] == 500
    assert (caught_up["lag"], caught_up["rejected"], caught_up["deferred"]) == (0, 0, 0)
    assert caught_up["quota_allowed"] > caught_up["quota_used"] > 0
    assert worker.stop() == 0, worker.log()
    [totals] = worker.said("totals reported")
    assert {key: totals[key] for key in ("scored", "review", "lag")} == {
        key: caught_up[key] for key in ("scored", "review", "lag")
    }
    assert worker.said("progress reported") == []


def test_a_terminal_shows_one_line_each(stage: WorkerHarness) -> None:
    stage.produce(contacts(300, stage.partitions))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_", "OTEL_"))}
    port = {"STREAM_SCORER_ADMIN__PORT": str(free_port())}
    main, secondary = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "stream_scorer", "run"],
        env={
            **kept,
            **QUICK_SETTINGS,
            **stage.settings(),
            **stage.simulator.environment(),
            **port,
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=secondary,
        stderr=secondary,
        start_new_session=True,
    ) as process:
        os.close(secondary)
        text, interrupted = "", False
        while chunk := read(main):
            text += chunk
            if "caught up" in text and not interrupted:
                interrupted = True
                process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    os.close(main)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    numbers = r"[\d,.]+/s  scored \d+  review \d+  rejected 0  deferred 0  lag 0  quota \d+/100,000"
    assert re.search(rf"caught up  {numbers}", plain), plain
    assert re.search(rf"totals  {numbers}", plain), plain
    assert plain.count("rebalance completed") == 1
    assert "partition assigned" not in plain


def test_both_loops_of_the_campaign_worker_report(
    make_campaign: Callable[..., CallbacksHarness], receiver: Receiver
) -> None:
    campaign = make_campaign(receiver.environment())
    campaign.put(score(f"c{number}", 0.9 if number else 0.1) for number in range(10))
    worker = campaign.start("--from", "earliest")

    def loops() -> bool:
        return {line["loop"] for line in worker.said("caught up")} == {"planner", "deliverer"}

    campaign.wait(loops, "both loops to catch up", needs=worker)
    campaign.wait_receipts(9, needs=worker)
    assert worker.stop() == 0, worker.log()
    totals = {line["loop"]: line for line in worker.said("totals reported")}
    assert (totals["planner"]["scores_read"], totals["planner"]["expired"]) == (10, 0)
    assert totals["deliverer"]["delivered"] == totals["planner"]["planned"] > 0
    assert (totals["deliverer"]["refused"], totals["deliverer"]["gave_up"], totals["deliverer"]["deferred"]) == (
        0,
        0,
        0,
    )
    assert {line["loop"] for line in worker.said("rebalance completed")} == {"planner", "deliverer"}


def read(descriptor: int) -> str:
    """Return the next output on the terminal; empty once the process has closed it."""
    try:
        return os.read(descriptor, 65_536).decode()
    except OSError:
        return ""
