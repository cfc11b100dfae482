from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from proxied_kafka import ProxiedKafka
from scenes import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stream_scorer.local.simulator import Simulator


@pytest.fixture(scope="module")
def proxied_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedKafka]:
    """One Kafka behind a proxy for the scenarios of a module: they have topics of their own."""
    with ProxiedKafka(tmp_path_factory.mktemp("proxied")) as kafka:
        yield kafka


@pytest.fixture
def scene(proxied_kafka: ProxiedKafka, simulator: Simulator, tmp_path: Path) -> Scene:
    return Scene(proxied_kafka, simulator, tmp_path)
