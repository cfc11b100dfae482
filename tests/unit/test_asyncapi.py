"""docs/asyncapi.yaml against the code: topics, schemas, headers; its form with AsyncAPI's parser if installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_scorer.core.avro.codec import Codec
from stream_scorer.core.callbacks.records import callback_id_of
from stream_scorer.core.records import SourceRecord
from stream_scorer.kafka.producer.dead_letter import error_headers, source_header
from stream_scorer.schema_files import SchemaFile, load_schema
from stream_scorer.settings import Settings
from stream_scorer.targets.payload import iso_time
from stream_scorer.targets.signature import Signer

REPOSITORY = Path(__file__).parents[2]
FILE = REPOSITORY / "docs" / "asyncapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
OURS = "stream-scorer-"
WEBHOOK = "campaign-webhook"
# Of the example.
SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def header_names(message: str) -> set[str]:
    return set(MESSAGES[message].get("headers", {}).get("properties", {}))


def schema_file(message: str) -> str | None:
    """Return the Avro schema of a message's payload; None for JSON and for the bytes of another record."""
    schema = MESSAGES[message].get("payload", {}).get("schema")
    return None if schema is None else str(schema["$ref"])


def avro_value(value: Any, schema: Any) -> Any:
    """The value of an example, in which bytes are a text as in Avro's JSON."""
    match schema:
        case "bytes":
            return value.encode("latin-1")
        case list():
            return None if value is None else avro_value(value, next(one for one in schema if one != "null"))
        case {"type": "record"}:
            assert set(value) == {field["name"] for field in schema["fields"]}
            return {field["name"]: avro_value(value[field["name"]], field["type"]) for field in schema["fields"]}
        case {"type": "array"}:
            return [avro_value(one, schema["items"]) for one in value]
        case _:
            return value


def test_the_channels_are_all_topics_with_their_settings() -> None:
    settings = Settings()
    assert set(DOCUMENT["channels"]) == {*settings.all_topics, WEBHOOK}
    for name, channel in DOCUMENT["channels"].items():
        server = "campaign-manager" if name == WEBHOOK else "kafka"
        assert channel["servers"] == [{"$ref": f"#/servers/{server}"}]
        if name == WEBHOOK:
            continue
        assert channel["address"] == channel["bindings"]["kafka"]["topic"] == name
        key, _, tier = channel["x-setting"].removeprefix("topics.").partition("-")
        assert name == getattr(settings.topics, key) + (f"-{tier}" if tier else "")


def test_the_operations_match_the_topics_of_the_two_services() -> None:
    settings = Settings()
    topics, retries = settings.topics, settings.contact_retry_topics
    done: dict[str, set[str]] = {"receive": set(), "send": set()}
    for operation in DOCUMENT["operations"].values():
        done[operation["action"]].add(operation["channel"]["$ref"].rpartition("/")[2])
    assert done["receive"] == {topics.features, *retries, topics.scores, topics.callbacks, *topics.retries()}
    assert done["send"] == set(DOCUMENT["channels"])
    assert DOCUMENT["operations"]["sendWebhook"]["bindings"]["http"]["method"] == "POST"


def test_every_schema_file_is_the_payload_of_a_message() -> None:
    named = {name for name in map(schema_file, MESSAGES) if name is not None}
    assert named == {f"../schemas/{schema.value}.avsc" for schema in SchemaFile}
    for name in named:
        assert (FILE.parent / name).is_file()


def test_the_headers_are_those_of_the_contract_and_of_the_code() -> None:
    described = set().union(*(header_names(name) for name in MESSAGES if name != "webhookCallback"))
    table = (REPOSITORY / "docs" / "contract.md").read_text().split("## 2 Headers", 1)[1].split("## 3", 1)[0]
    listed = set(re.findall(r"`(stream-scorer-[\w-]*\w|traceparent|tracestate)`", table))
    assert described == listed
    ends = (
        "error-[a-z]+|source|batch|failed-rounds|last-status|unanswered|threshold|traceparents|deferred|not-before|group"
        "|held|replays|replay-of|decision|decided-at"
    )
    named = re.compile(rf'(?:f"\{{HEADER_PREFIX\}}|"stream-scorer-)({ends})"')
    code = "".join(path.read_text() for path in (REPOSITORY / "stream_scorer").rglob("*.py"))
    written = {OURS + name for name in named.findall(code)}
    assert {name for name in described if name.startswith(OURS)} == written


def test_a_rejected_contact_has_the_headers_that_are_required() -> None:
    record = SourceRecord("t", 0, 1, None, None, [])
    always = {source_header(record)[0], *(name for name, _ in error_headers("undecodable", "why", 0, None))}
    assert set(MESSAGES["rejectedContact"]["headers"]["required"]) == {*always, "stream-scorer-batch"}
    assert set(MESSAGES["rejectedCallback"]["headers"]["required"]) == always
    assert header_names("rejectedContact") >= {name for name, _ in error_headers("refused_by_api", "why", 0, 400)}


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_has_an_example_of_its_schema_and_headers(message: str) -> None:
    described = MESSAGES[message].get("headers", {})
    for example in MESSAGES[message]["examples"]:
        headers = example.get("headers", {})
        assert set(described.get("required", ())) <= set(headers) <= set(described.get("properties", ()))
        assert all(isinstance(value, str) for value in headers.values())
        name = schema_file(message)
        assert ("payload" in example) == ("payload" in MESSAGES[message])
        if name is not None:
            schema = SchemaFile(Path(name).stem)
            codec = Codec.single_object(load_schema(schema))
            value = avro_value(example["payload"], load_schema(schema))
            assert codec.decode(codec.encode(value)) == value


def test_the_webhook_of_the_example_is_the_callback_of_the_example_and_signed() -> None:
    [example] = MESSAGES["webhookCallback"]["examples"]
    [callback] = MESSAGES["campaignCallback"]["examples"]
    [score] = MESSAGES["contactScore"]["examples"]
    body = callback["payload"]["body"]
    assert json.loads(body) == example["payload"]
    [contact] = example["payload"]["data"]["contacts"]
    for name, value in contact.items():
        expected = score["payload"][name]
        assert value == (iso_time(expected) if name.endswith("_at") else expected)
    assert callback["payload"]["callback_id"] == callback_id_of(callback["payload"]["sources"])
    headers = example["headers"]
    at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
    assert headers == Signer(SECRET).headers(callback["payload"]["callback_id"], body.encode(), at)
    described = MESSAGES["webhookCallback"]
    assert set(described["headers"]["required"]) == set(headers)
    entry = described["payload"]["properties"]["data"]["properties"]["contacts"]["items"]
    assert set(entry["required"]) == set(contact) - {"attributes"}
    assert set(entry["properties"]) == set(contact)


def test_operations_and_messages_have_tags_that_are_described() -> None:
    known = {tag["name"] for tag in DOCUMENT["info"]["tags"]}
    used = [one["tags"] for part in (DOCUMENT["operations"], MESSAGES) for one in part.values()]
    assert {tag["name"] for tags in used for tag in tags} == known
    assert all(len(tags) == 1 for tags in used)


def test_the_parser_of_asyncapi_accepts_it() -> None:
    modules = os.environ.get("ASYNCAPI_PARSER_DIR", "")
    if not modules or shutil.which("node") is None:
        pytest.skip("needs node and, in $ASYNCAPI_PARSER_DIR, the packages that tests/tools/check_asyncapi.mjs names")
    command = ["node", str(REPOSITORY / "tests" / "tools" / "check_asyncapi.mjs"), modules, str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{len(DOCUMENT['channels'])} channels, {len(MESSAGES)} messages\n"
