"""The program of the embedded schema registry is fetched once, and run only if it is the pinned one."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import requests

from stream_scorer.errors import LocalError
from stream_scorer.local.schema_registry import archive

if TYPE_CHECKING:
    from pathlib import Path


def test_another_archive_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(staging: Path) -> Path:
        staging.mkdir(parents=True)
        (staging / "archive").write_bytes(b"something else")
        return staging / "archive"

    monkeypatch.setattr(archive, "_download", download)
    expected = hashlib.sha256(b"something else").hexdigest()[:12]
    with pytest.raises(LocalError, match=f"is not what this version was released with .SHA-256 {expected}"):
        archive.registry_home(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".fetch-registry.lock"]


def test_without_a_network_the_error_is_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(_: Path) -> Path:
        raise requests.ConnectionError

    monkeypatch.setattr(archive, "_download", download)
    with pytest.raises(archive.NoNetworkError, match="the first start needs the network once"):
        archive.registry_home(tmp_path)
