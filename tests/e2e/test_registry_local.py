"""The embedded schema registry is real: Confluent's own client works with it, and it keeps its ids."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from stream_scorer.errors import LocalError
from stream_scorer.local import registry_archive
from stream_scorer.local.registry import EmbeddedRegistry

if TYPE_CHECKING:
    from pathlib import Path

    from registry_fixture import Registry

SCHEMA = Schema('{"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]}', "AVRO")


@pytest.mark.usefixtures("registry")
def test_ids_outlive_a_restart_at_the_same_place(tmp_path: Path) -> None:
    embedded = EmbeddedRegistry(tmp_path / "registry")
    try:
        url = embedded.start()
        number = SchemaRegistryClient({"url": url}).register_schema("r-value", SCHEMA)
        assert embedded.start() == url  # it is found running
        embedded.stop()
        assert embedded.start() == url
        assert '"R"' in SchemaRegistryClient({"url": url}).get_schema(number).schema_str
    finally:
        embedded.stop()


def test_the_shared_one_answers(registry: Registry) -> None:
    assert isinstance(SchemaRegistryClient({"url": registry.url}).get_subjects(), list)


def test_another_archive_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(staging: Path) -> Path:
        staging.mkdir(parents=True)
        (staging / "archive").write_bytes(b"something else")
        return staging / "archive"

    monkeypatch.setattr(registry_archive, "_download", download)
    expected = hashlib.sha256(b"something else").hexdigest()[:12]
    with pytest.raises(LocalError, match=f"is not what this version was released with .SHA-256 {expected}"):
        registry_archive.registry_home(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".fetch-registry.lock"]
