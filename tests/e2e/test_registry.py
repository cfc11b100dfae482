"""Schema registry mode on a real broker and a real Apicurio, from `schemas register` to the reconciliation.

Outputs are read with the deserializer of confluent-kafka, which is independent of this program.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import parse_schema, schemaless_writer
from scoring_harness import SCHEMAS, Input, contact, event
from worker_harness import ROOT

from stream_scorer.core.avro.codec import UndecodableError
from stream_scorer.errors import RegistryUnavailable
from stream_scorer.kafka.registry.client import SchemaRegistry
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from callbacks_harness import CallbacksHarness
    from registry_fixture import Registry
    from worker_harness import WorkerHarness, WorkerProcess

    from stream_scorer.local.schema_registry.server import EmbeddedRegistry

pytestmark = pytest.mark.kafka

FEATURES_SCHEMA = json.loads((SCHEMAS / "contact-features.avsc").read_text())
OLDER = {**FEATURES_SCHEMA, "fields": FEATURES_SCHEMA["fields"][:4]}
NEWER = {**FEATURES_SCHEMA, "fields": [*FEATURES_SCHEMA["fields"], {"name": "extra", "type": "string"}]}
LATE = {**FEATURES_SCHEMA, "fields": [{"name": "early", "type": "long"}, *FEATURES_SCHEMA["fields"]]}
NOWHERE = 999_999


class Harness:
    """Both workers' topics, their settings with a registry, and values of any writer."""

    def __init__(self, stage: WorkerHarness, campaign: CallbacksHarness, registry_url: str) -> None:
        self.stage, self.campaign = stage, campaign
        campaign.topics["scores"] = stage.topics["scores"]
        campaign.group_id = stage.group_id
        self.client = SchemaRegistryClient({"url": registry_url, "timeout": 10})
        # Its default subject lookup sends requests for every topic, and for features of Confluent's registry only.
        strategy = {"subject.name.strategy": topic_subject_name_strategy}
        self.deserialize = AvroDeserializer(self.client, conf=strategy)
        ours = {
            "STREAM_SCORER_SCHEMA_REGISTRY__URL": registry_url,
            "STREAM_SCORER_CALLBACKS__TARGET": "log",
            "STREAM_SCORER_CALLBACKS__THRESHOLD": "0",
        }
        stage.changes |= ours
        campaign.environment |= ours
        topics = {f"STREAM_SCORER_TOPICS__{kind.upper()}": name for kind, name in campaign.topics.items()}
        self.settings = {**topics, **stage.settings(), **ours}

    def command(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command as an operator does."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STREAM_SCORER_", "GENESYS_"))}
        return subprocess.run(
            [sys.executable, "-m", "stream_scorer", *arguments],
            env={**kept, **self.settings, **changes, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    def registered(self, schema: dict[str, Any]) -> int:
        """Register a schema of another team under a subject of its own; return the id."""
        return self.client.register_schema(f"theirs-{self.stage.group_id}", Schema(json.dumps(schema), "AVRO"))

    def written(self, schema_id: int, schema: dict[str, Any], contact_id: str, partition: int, **more: Any) -> Input:
        out = BytesIO()
        plain = json.loads(
            json.dumps(schema), object_hook=lambda part: {k: v for k, v in part.items() if k != "logicalType"}
        )
        schemaless_writer(out, parse_schema(plain), {**event(contact_id), **more})
        return Input(contact_id.encode(), b"\x00" + schema_id.to_bytes(4, "big") + out.getvalue(), partition)

    def decoded(self, topic: str) -> list[dict[str, Any]]:
        """Return the values of a topic, read with Confluent's deserializer."""
        context = SerializationContext(topic, MessageField.VALUE)
        values = []
        for one in self.campaign.read(topic):
            assert one.value is not None
            assert one.value[0] == 0
            values.append(self.deserialize(one.value, context))
        return values

    def scored(self) -> set[str]:
        return {one["contact_id"] for kind in ("scores", "review") for one in self.decoded(self.stage.topics[kind])}

    def rejected(self) -> list[tuple[bytes | None, bytes | None, bytes | None]]:
        found = self.campaign.read(self.stage.topics["rejected"])
        names = ("stream-scorer-error-reason", "stream-scorer-error-detail")
        return [(one.value, *(one.headers[name] for name in names)) for one in found]


@pytest.fixture
def make_scene(
    make_stage: Callable[..., WorkerHarness], make_campaign: Callable[..., CallbacksHarness]
) -> Callable[[str], Harness]:
    def make(url: str) -> Harness:
        return Harness(make_stage(partitions=2), make_campaign({}), url)

    return make


def waits_for_schema(worker: WorkerProcess) -> bool:
    return "registry: schema id" in worker.why_not_ready()


def set_up(harness: Harness) -> None:
    """Nothing is registered automatically: the startup names the remedy, which is idempotent."""
    hasty = harness.stage.start()
    assert hasty.exit_code() == 1
    assert "run `stream-scorer schemas register`" in hasty.errors()[-1]
    first = harness.command("schemas", "register")
    assert first.returncode == 0, first.stderr
    assert f"{harness.stage.topics['features']}-value: id " in first.stdout
    assert len(first.stdout.splitlines()) == 11
    assert harness.command("schemas", "register").stdout == first.stdout
    check = harness.command("schemas", "check")
    assert check.returncode == 0, check.stderr


def produce_file(harness: Harness, folder: Path, number: int) -> set[str]:
    ids = [f"file-{n}" for n in range(number)]
    file = folder / "contacts.jsonl"
    file.write_text("".join(json.dumps({"contactId": one, "features": {}}) + "\n" for one in ids))
    produced = harness.command("produce", str(file))
    assert produced.returncode == 0, produced.stderr
    return set(ids)


def check_all_written(harness: Harness, *, contacts: int) -> None:
    """Every output is read with the schemas of the registry, and the reconciliation is balanced."""
    stage, campaign = harness.stage, harness.campaign
    audited = [entry["source"] for one in harness.decoded(stage.topics["audit"]) for entry in one["contacts"]]
    assert len(audited) == len(set(audited)) == contacts
    scores = len(campaign.read("scores"))

    def receipted() -> bool:
        return sum(len(one["contact_ids"]) for one in harness.decoded(campaign.topics["receipts"])) >= scores

    campaign.wait(receipted, "all receipts", needs=campaign.workers[0])
    assert {one["outcome"] for one in harness.decoded(campaign.topics["receipts"])} == {"DELIVERED"}
    assert sum(len(one["contact_ids"]) for one in harness.decoded(campaign.topics["callbacks"])) == scores
    reconciled = harness.command("reconcile")
    assert reconciled.returncode == 0, reconciled.stdout + reconciled.stderr


def test_older_newer_and_unknown_writers_and_a_registry_outage_lose_nothing(
    make_scene: Callable[[str], Harness], own_registry: EmbeddedRegistry, tmp_path: Path
) -> None:
    harness = make_scene(own_registry.start())
    stage = harness.stage
    set_up(harness)
    older, newer, late = (harness.registered(schema) for schema in (OLDER, NEWER, LATE))
    lost = harness.written(NOWHERE, FEATURES_SCHEMA, "nowhere", 0)
    known = produce_file(harness, tmp_path, 8) | {"older", "newer", "single"}
    stage.produce(
        [
            harness.written(older, OLDER, "older", 0),
            harness.written(newer, NEWER, "newer", 1, extra="x"),
            lost,
            contact("single", 0),
            Input(b"k", b"\x00\x00\x00\x00", 0),
        ]
    )
    workers = [stage.start(), stage.start()]
    harness.campaign.start()
    for worker in workers:
        stage.wait(lambda worker=worker: worker.said("partition assigned"), "a partition each", needs=worker)
    stage.wait_done(needs=workers[0])
    assert harness.scored() == known
    rejected = harness.rejected()
    assert [reason for _, reason, _ in rejected] == [b"undecodable"] * 2
    [detail] = [detail for value, _, detail in rejected if value == lost.value]
    # It went through the two retry topics, because the registry confirmed other ids.
    assert detail == b"the schema registry has no schema with id 999999; 2 retry rounds failed too"

    # Outage: known schemas are read, an unknown one is pending, also after a restart.
    own_registry.stop()
    ends = stage.ends()
    stage.produce(
        [
            harness.written(late, LATE, "late", 0, early=1),
            harness.written(older, OLDER, "behind", 0),
            harness.written(newer, NEWER, "beside", 1, extra="y"),
        ]
    )
    stage.wait(lambda: any(map(waits_for_schema, workers)), "the reason in /readyz")
    [waiting] = [worker for worker in workers if waits_for_schema(worker)]
    [other] = [worker for worker in workers if worker is not waiting]
    assert f"schema id {late} cannot be fetched" in waiting.why_not_ready()
    assert waiting.said("schema registry unavailable")
    stage.wait(lambda: stage.commits()[1].offset > ends[1], "partition 1 to go on", needs=other)
    assert waiting.stop() == 0, waiting.log()
    stage.wait(lambda: waits_for_schema(other), "the other worker to wait", needs=other)
    assert stage.commits()[0].offset <= ends[0]

    # Recovery without intervention.
    own_registry.start()
    stage.wait_done(needs=other)
    stage.wait(other.ready, "the worker to be ready again", needs=other)
    known |= {"late", "behind", "beside"}
    assert harness.scored() == known
    assert len(harness.rejected()) == 2
    check_all_written(harness, contacts=len(known) + 2)
    assert other.stop() == 0
    assert harness.campaign.workers[0].stop() == 0


def test_an_incompatible_schema_is_rejected(make_scene: Callable[[str], Harness], registry: Registry) -> None:
    harness = make_scene(registry.url)
    subject = f"{harness.stage.topics['features']}-value"
    fields = [{**one, "type": "long"} if one["name"] == "event_id" else one for one in FEATURES_SCHEMA["fields"]]
    theirs = {**FEATURES_SCHEMA, "fields": fields[:2] + fields[3:]}
    harness.client.register_schema(subject, Schema(json.dumps(theirs), "AVRO"))
    other = f"{harness.stage.topics['scores']}-value"
    other_id = harness.client.register_schema(
        other, Schema('{"type": "object", "properties": {"a": {"type": "string"}}}', "JSON")
    )
    for command in ("register", "check"):
        done = harness.command("schemas", command)
        assert done.returncode == 1
        said = [line for line in done.stderr.splitlines() if subject in line]
        assert [line.partition("): ")[2] for line in said] == [
            "event_id is written as long and read as string",
            "features is missing and has no default",
        ]
        # A schema of another kind is a finding as well and does not hide the others.
        assert f"{other}: not compatible with version 1 (id {other_id}), a schema of type JSON, not Avro" in done.stderr
        assert f"{harness.stage.topics['audit']}-value: " in done.stderr + done.stdout
    assert harness.client.get_versions(subject) == harness.client.get_versions(other) == [1]
    unreachable = harness.command("schemas", "check", STREAM_SCORER_SCHEMA_REGISTRY__URL="http://user:word@127.0.0.1:9")
    assert unreachable.returncode == 1
    assert "schema registry 127.0.0.1:9: " in unreachable.stderr
    assert "word" not in unreachable.stderr
    alone = harness.command("schemas", "check", STREAM_SCORER_SCHEMA_REGISTRY__URL="")
    assert alone.returncode == 0
    assert "contact-features: reads what v0.1.0 wrote" in alone.stdout


class TestRegistryAdapter:
    """The adapter against the real registry."""

    @pytest.fixture
    def client(self, registry: Registry) -> SchemaRegistryClient:
        return SchemaRegistryClient({"url": registry.url, "timeout": 10})

    @pytest.fixture
    def adapter(self, registry: Registry) -> SchemaRegistry:
        return SchemaRegistry(load_settings(environ={"STREAM_SCORER_SCHEMA_REGISTRY__URL": registry.url}))

    @pytest.mark.parametrize("schema_id", [0, 999_999, 2**31 - 1, 2**31, 2**32 - 1])
    def test_a_missing_id(self, adapter: SchemaRegistry, schema_id: int) -> None:
        assert adapter.writer(schema_id) is None

    def test_a_schema_as_it_was_registered(self, adapter: SchemaRegistry, client: SchemaRegistryClient) -> None:
        subject = f"theirs-{uuid.uuid4().hex}"
        spaced = Schema(json.dumps(FEATURES_SCHEMA, indent=3), "AVRO")
        schema_id = client.register_schema(subject, spaced)
        assert adapter.writer(schema_id) == FEATURES_SCHEMA
        found = adapter.find(subject, FEATURES_SCHEMA)  # whatever its text looked like
        assert found is not None
        assert (found.schema_id, found.version) == (schema_id, 1)
        assert adapter.find(subject, OLDER) is None
        assert adapter.find(f"{subject}-other", FEATURES_SCHEMA) is None
        assert adapter.versions(f"{subject}-other") == []

    def test_schemas_of_other_kinds(self, adapter: SchemaRegistry, client: SchemaRegistryClient) -> None:
        name = f"theirs-{uuid.uuid4().hex}"
        large = {**FEATURES_SCHEMA, "doc": "x" * 70_000}
        client.register_schema(f"{name}-base", Schema(json.dumps({**OLDER, "name": "Base"}), "AVRO"))
        referring = {"type": "record", "name": "R", "fields": [{"name": "b", "type": "stream_scorer.Base"}]}
        reference = SchemaReference("stream_scorer.Base", f"{name}-base", 1)
        refused = {
            "type JSON, not Avro": Schema(json.dumps({"$schema": "http://json-schema.org/draft-07/schema#"}), "JSON"),
            "refers to other subjects": Schema(json.dumps(referring), "AVRO", [reference]),
            "more than the 65536 allowed": Schema(json.dumps(large), "AVRO"),
        }
        for number, (why, schema) in enumerate(refused.items()):
            schema_id = client.register_schema(f"{name}-{number}", schema)
            with pytest.raises(UndecodableError, match=why):
                adapter.writer(schema_id)

    def test_a_url_without_the_registry_api_is_retried_and_no_evidence(self, registry: Registry) -> None:
        url = registry.url.replace("/apis/ccompat/v7", "/nowhere")
        settings = load_settings(environ={"STREAM_SCORER_SCHEMA_REGISTRY__URL": url})
        with pytest.raises(RegistryUnavailable, match=r"check the path of schema_registry\.url"):
            SchemaRegistry(settings).writer(1)
