from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from raw_http import raw_server
from support_fuzz_http import HttpHarness

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def harness() -> Iterator[HttpHarness]:
    """Servers with scripted responses."""
    with raw_server() as server:
        yield HttpHarness(server)
