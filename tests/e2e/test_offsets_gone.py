"""Contacts that retention deleted before they were read: the page's repair, word for word, and a finding that stays."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined]
from scoring_harness import contact

from stream_scorer.core.exactly_once.commit_metadata import parse_metadata
from stream_scorer.core.reconciliation.score_report import FindingKind
from stream_scorer.reconciliation import reconcile
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_harness import WorkerHarness

pytestmark = pytest.mark.kafka

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def repair(stage: WorkerHarness, oldest: int) -> None:
    """Run the page's lines with this stage's names."""
    section = PAGE.read_text(encoding="utf-8").split("\n## Offsets gone\n", 1)[1].split("\n## ", 1)[0]
    [block] = re.findall(r"^ *```python\n(.*?)^ *```", section, re.DOTALL | re.MULTILINE)
    lines = textwrap.dedent(block)
    names = '"stream-scorer", "contact-features", 2, 147'
    assert names in lines
    lines = lines.replace(names, f'"{stage.group_id}", "{stage.topics["features"]}", 0, {oldest}')
    exec(lines.replace("kafka-1:9092", stage.bootstrap_servers), {})  # noqa: S102 - our own page


def test_lost_contacts_stay_a_finding_after_the_repair(make_stage: Callable[..., WorkerHarness]) -> None:
    stage = make_stage(partitions=1)
    features = stage.topics["features"]
    stage.produce([contact(f"before{number}", 0) for number in range(6)])
    worker = stage.start_ready("--from", "earliest")
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    stage.produce([contact(f"lost{number}", 0) for number in range(4)])
    admin = AdminClient(stage._client)
    [deleted] = admin.delete_records([TopicPartition(features, 0, 9)]).values()
    deleted.result(30)
    settings = load_settings(environ=stage.settings())
    report = reconcile(settings)
    assert report.counts == {FindingKind.LOST: 1}
    assert (report.findings[0].source, report.totals.lost) == (f"{features}/0/6", 3)
    repair(stage, 9)
    stage.produce([contact(f"after{number}", 0) for number in range(2)])
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    assert worker.stop() == 0
    commit = stage.commits()[0]
    metadata = parse_metadata(commit.metadata)
    assert (commit.offset, metadata.start, metadata.others) == (12, 0, (("lost", "6-9"),))
    repaired = reconcile(settings)
    assert repaired.findings == report.findings
    assert (repaired.totals.inputs, repaired.totals.missing, repaired.totals.lost) == (3, 0, 3)
