"""A real schema registry for tests: one shared by all, also across xdist workers, started on first use.

A pytest plugin; as with the broker (`kafka_fixture`), the controlling process owns the folder and stops the registry.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stream_scorer.local.schema_registry.archive import NoNetworkError
from stream_scorer.local.schema_registry.server import EmbeddedRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOLDER = pytest.StashKey[Path]()


@dataclass(frozen=True, slots=True)
class Registry:
    """The shared registry. Take subjects of your own: others use it at the same time."""

    url: str


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_FOLDER] = Path(tempfile.mkdtemp(prefix="stream-scorer-test-registry-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["registry_folder"] = str(node.config.stash[_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_FOLDER, None)
    if folder is not None:
        EmbeddedRegistry(folder).stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    """A registry of the test's own, running; it may be stopped and started. It ends with the test."""
    embedded = EmbeddedRegistry(tmp_path / "registry")
    started(embedded)
    yield embedded
    embedded.stop()


def started(embedded: EmbeddedRegistry) -> str:
    """The URL; without a network there may be no registry, and the test is skipped."""
    try:
        return embedded.start()
    except NoNetworkError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def registry(pytestconfig: pytest.Config) -> Registry:
    """The schema registry that all tests share."""
    workerinput = getattr(pytestconfig, "workerinput", None)
    folder = Path(workerinput["registry_folder"]) if workerinput else pytestconfig.stash[_FOLDER]
    return Registry(started(EmbeddedRegistry(folder)))
