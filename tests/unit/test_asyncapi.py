"""docs/asyncapi.yaml against the code: topics, schemas, headers; its form by AsyncAPI's own parser, where that is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_scorer.core.records import SourceRecord
from stream_scorer.kafka.producer.dead_letter import error_headers, source_header
from stream_scorer.schema_files import SchemaFile
from stream_scorer.settings import Settings

REPOSITORY = Path(__file__).parents[2]
FILE = REPOSITORY / "docs" / "asyncapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
OURS = "stream-scorer-"


def header_names(message: str) -> set[str]:
    return set(MESSAGES[message].get("headers", {}).get("properties", {}))


def test_the_channels_are_all_topics_with_their_settings() -> None:
    settings = Settings()
    assert set(DOCUMENT["channels"]) == set(settings.all_topics)
    for name, channel in DOCUMENT["channels"].items():
        assert channel["address"] == channel["bindings"]["kafka"]["topic"] == name
        key, _, tier = channel["x-setting"].removeprefix("topics.").partition("-")
        assert name == getattr(settings.topics, key) + (f"-{tier}" if tier else "")


def test_what_is_read_and_written_is_what_the_two_services_use() -> None:
    settings = Settings()
    topics, retries = settings.topics, settings.contact_retry_topics
    done: dict[str, set[str]] = {"receive": set(), "send": set()}
    for operation in DOCUMENT["operations"].values():
        done[operation["action"]].add(operation["channel"]["$ref"].rpartition("/")[2])
    assert done["receive"] == {topics.features, *retries, topics.scores, topics.callbacks, *topics.retries()}
    assert done["send"] == set(DOCUMENT["channels"])


def test_every_schema_file_is_the_payload_of_a_message() -> None:
    named = {message["payload"]["schema"]["$ref"] for message in MESSAGES.values() if "payload" in message}
    assert named == {f"../schemas/{schema.value}.avsc" for schema in SchemaFile}
    for name in named:
        assert (FILE.parent / name).is_file()


def test_the_headers_are_those_of_the_contract_and_of_the_code() -> None:
    described = set().union(*map(header_names, MESSAGES))
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


def test_the_parser_of_asyncapi_accepts_it() -> None:
    modules = os.environ.get("ASYNCAPI_PARSER_DIR", "")
    if not modules or shutil.which("node") is None:
        pytest.skip("needs node and, in $ASYNCAPI_PARSER_DIR, the packages that tests/tools/check_asyncapi.mjs names")
    command = ["node", str(REPOSITORY / "tests" / "tools" / "check_asyncapi.mjs"), modules, str(FILE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == f"{len(DOCUMENT['channels'])} channels, {len(MESSAGES)} messages\n"
