from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from raw_http import raw_server
from support_fuzz_http import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Servers that answer what a test tells them."""
    with raw_server() as server:
        yield Scene(server)
