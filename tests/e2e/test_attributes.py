"""Attributes from a file to the webhook, through both workers, and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from worker_harness import ROOT

from stream_scorer.core.avro.codec import Codec
from stream_scorer.schema_files import SchemaFile, load_schema, released_schemas

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from callbacks_harness import CallbacksHarness
    from worker_harness import WorkerHarness

    from stream_scorer.local.receiver import Receiver

pytestmark = pytest.mark.kafka

CONTACTS = 30
SECRET = "attribute-that-stays-here"
SCORES = Codec.single_object(load_schema(SchemaFile.CONTACT_SCORE))
OLD = Codec.single_object(released_schemas(SchemaFile.CONTACT_FEATURES)["v0.1.0"])
FEATURES = {"previous_calls": 3, "avg_handle_time": 210.5, "last_contact_days": 12, "segment_id": "retired"}


def attributes_of(number: int) -> dict[str, str]:
    return {"phone": f"+49 170 {number:07}", "note": f"{SECRET}, é {number}"}


def load(stage: WorkerHarness, file: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STREAM_", "GENESYS_"))}
    command = [sys.executable, "-m", "stream_scorer", "produce", str(file)]
    environment = {**kept, **stage.settings(), "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_attributes_reach_the_webhook_and_nothing_else(
    make_stage: Callable[..., WorkerHarness],
    make_campaign: Callable[..., CallbacksHarness],
    receiver: Receiver,
    tmp_path: Path,
) -> None:
    stage = make_stage(partitions=2)
    stage.simulator.configure(narrow_share=0.0, inconsistent_share=0.0)
    campaign = make_campaign({**receiver.environment(), "STREAM_SCORER_CALLBACKS__THRESHOLD": "0"})
    campaign.topics["scores"] = stage.topics["scores"]
    campaign.group_id = stage.group_id
    lines = [
        *({"contactId": f"C-{n}", "features": FEATURES, "attributes": attributes_of(n)} for n in range(CONTACTS)),
        {"contactId": "bad", "features": FEATURES, "attributes": {str(number): "" for number in range(65)}},
    ]
    file = tmp_path / "contacts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    produced = load(stage, file)
    assert produced.returncode == 1
    assert f"{file}:{CONTACTS + 1}: attributes are 65, more than the 64 allowed" in produced.stderr
    old = {"event_id": "old", "contact_id": "old", "features": FEATURES, "occurred_at": 1_790_000_000_000}
    campaign_less = {"campaign_id": None, "model_version": None}
    campaign.put_values(stage.topics["features"], [(b"old", OLD.encode({**old, **campaign_less}))])

    scorer = stage.start()
    stage.wait_done(needs=scorer)
    caller = campaign.start(name="campaign")
    campaign.wait_receipts(CONTACTS + 1, needs=caller)
    assert (scorer.stop(), caller.stop()) == (0, 0), scorer.log() + caller.log()

    wanted = {f"C-{number}": attributes_of(number) for number in range(CONTACTS)}
    sent = [contact for one in campaign.callbacks() for contact in json.loads(one["body"])["data"]["contacts"]]
    assert {contact["contact_id"]: contact.get("attributes") for contact in sent} == {**wanted, "old": None}
    # The receiver verifies with the library of Standard Webhooks.
    assert (receiver.stats().contacts, receiver.stats().unverified) == (CONTACTS + 1, 0)
    assert [receipt["threshold"] for receipt in campaign.receipts()] == [0.0] * len(campaign.receipts())
    # The simulator refuses any other field; one request without contacts checks the model at the start.
    assert stage.simulator.stats().requests["score"] == {"400": 1, "200": 1}
    for text in (scorer.log(), caller.log(), produced.stdout, produced.stderr):
        assert SECRET not in text
    for topic in (stage.topics["audit"], stage.topics["rejected"], campaign.topics["receipts"]):
        assert all(SECRET.encode() not in (message.value or b"") for message in campaign.read(topic))
