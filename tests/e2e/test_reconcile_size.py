"""``stream-scorer reconcile`` over 100,000 contacts and their callbacks: time and memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from callbacks_harness import PARTITIONS
from confluent_kafka import Consumer, TopicPartition
from scoring_harness import contacts
from worker_harness import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

CONTACTS = 100_000
# CPU time, since the elapsed time depends on other load of the machine.
LIMIT_S = 15.0
CONTACTS_MIB = 150
BOTH_MIB = 400  # 2 kB for each callback, which usually has many contacts


def lag(stage: CallbacksHarness, group_id: str, kind: str) -> int:
    """Return how many offsets of a topic a group has not committed."""
    config: dict[str, Any] = {"bootstrap.servers": stage.bootstrap_servers, "group.id": group_id}
    with Consumer({**config, "isolation.level": "read_committed"}) as reader:
        places = [TopicPartition(stage.topics[kind], number) for number in range(PARTITIONS)]
        ends = sum(reader.get_watermark_offsets(place, 10, cached=False)[1] for place in places)
        return int(ends - sum(max(one.offset, 0) for one in reader.committed(places, 10)))


_RUN = """
import atexit, pathlib, runpy
atexit.register(lambda: pathlib.Path({status!r}).write_text(pathlib.Path("/proc/self/status").read_text()))
runpy.run_module("stream_scorer", run_name="__main__")
"""


def reconcile(settings: Mapping[str, str], out: Path) -> tuple[dict[str, Any], float, float]:
    """The command's JSON, its CPU seconds and its peak memory in MiB."""
    status_file = out.with_suffix(".status")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_"))}
    began = time.monotonic()
    with out.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN.format(status=str(status_file)), "reconcile", "--json"],
            env={**kept, "PYTHONPATH": str(ROOT), **settings},
            stdout=stdout,
        )
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = used.ru_utime + used.ru_stime
    # Not `ru_maxrss`, which starts with the memory of the parent process.
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", status_file.read_text(encoding="utf-8"), re.MULTILINE)
    assert peak is not None
    mib = int(peak[1]) / 1024
    print(f"\n{out.stem}: {time.monotonic() - began:.1f} s, CPU {cpu_s:.1f} s, {mib:.0f} MiB")  # noqa: T201
    report = json.loads(out.read_bytes())
    assert report["exit_code"] == process.returncode
    return report, cpu_s, mib


def test_a_hundred_thousand_contacts_and_callbacks(
    make_stage: Callable[..., WorkerHarness], make_campaign: Callable[..., CallbacksHarness], tmp_path: Path
) -> None:
    stage = make_stage(partitions=PARTITIONS)
    # Every score is called, one contact a callback: the most that there can be to read.
    environment = {
        "STREAM_SCORER_CALLBACKS__TARGET": "log",
        "STREAM_SCORER_CALLBACKS__THRESHOLD": "0",
        "STREAM_SCORER_CALLBACKS__MAX_CONTACTS": "1",
        "STREAM_SCORER_LOG__LEVEL": "warning",
    }
    campaign = make_campaign(environment)
    campaign.topics["scores"], campaign.group_id = stage.topics["scores"], stage.group_id
    stage.produce(contacts(CONTACTS, PARTITIONS))
    worker = stage.start()
    stage.wait_done(needs=worker, limit_s=200)
    assert worker.stop() == 0
    settings = {**stage.settings(), **environment}
    settings |= {f"STREAM_SCORER_TOPICS__{kind.upper()}": topic for kind, topic in campaign.topics.items()}
    # Contacts only, as without a campaign worker; then both.
    report, cpu_s, mib = reconcile(settings, tmp_path / "contacts.json")
    assert (report["exit_code"], report["totals"]["inputs"], report["callbacks"]) == (0, CONTACTS, None)
    assert cpu_s <= LIMIT_S
    assert mib <= CONTACTS_MIB

    caller = campaign.start()
    plans, delivers = f"{stage.group_id}-callbacks", f"{stage.group_id}-callbacks-delivery"
    campaign.wait(lambda: lag(campaign, plans, "scores") <= PARTITIONS, "plans", needs=caller, limit_s=200)
    campaign.wait(lambda: lag(campaign, delivers, "callbacks") <= PARTITIONS, "receipts", needs=caller, limit_s=200)
    assert caller.stop() == 0
    report, cpu_s, mib = reconcile(settings, tmp_path / "both.json")
    assert report["exit_code"] == 0, report["callbacks"]["findings"]
    assert report["totals"]["inputs"] == CONTACTS
    assert report["callbacks"]["totals"]["delivered"] > CONTACTS / 2, report["callbacks"]
    assert cpu_s <= LIMIT_S
    assert mib <= BOTH_MIB
