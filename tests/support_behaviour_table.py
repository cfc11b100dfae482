"""Writer of the results of the rows of contract section 5 into docs/api-behaviour.md: ``pytest … --api-table FILE``.

A pytest plugin. The tests of rows use its fixture `act_out`; when the run ends, the lines of the page that begin with
the ids of these rows are replaced. Works with xdist: a line travels with the report of its test.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kafka_fixture import Broker
    from support_behaviour import Row

    from stream_scorer.local.simulator import Simulator

COLUMNS: Final = ("injected", "did", "requests", "sent", "paid", "twice")
_PROPERTY: Final = "api_row"
_LINES = pytest.StashKey[dict[str, str]]()


def line_of(row: Row, cells: Mapping[str, str]) -> str:
    """The row's line of the page."""
    did = f"{cells['did']}. **Deviates from the contract:** {row.gap}" if row.gap else cells["did"]
    shown = {**cells, "injected": row.injected, "did": did}
    return " | ".join((f"| `{row.id}`", *(shown[name] for name in COLUMNS))) + " |"


def with_lines(page: str, lines: Mapping[str, str]) -> str:
    """The page with the lines of these rows in the places of their ids.

    Raises:
        KeyError: the page has no line for one of them; add ``| `id` |`` where it belongs.
    """
    kept = page.splitlines()
    places = {line.split("`")[1]: number for number, line in enumerate(kept) if line.startswith("| `")}
    for row_id, line in lines.items():
        kept[places[row_id]] = line
    return "\n".join(kept) + "\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--api-table", metavar="FILE", type=Path, help="write the rows of contract section 5 to this page")


@pytest.fixture
def act_out(
    broker: Broker, simulator: Simulator, tmp_path: Path, record_property: Callable[[str, object], None]
) -> Callable[[Row], None]:
    """Play a row, record its results, and check it."""
    # The whole worker is imported only where a row is played, not at every start of pytest.
    from support_behaviour_check import cells, check  # noqa: PLC0415
    from support_behaviour_play import play  # noqa: PLC0415

    def act(row: Row) -> None:
        case = play(row, broker.bootstrap_servers, simulator, tmp_path)
        record_property(_PROPERTY, [row.id, line_of(row, cells(case))])
        check(case)

    return act


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LINES] = {}
    config.pluginmanager.register(_Collector(config), "api-table-collector")


class _Collector:
    """Collector of the lines of all reports, in the controlling process."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            for name, line in report.user_properties:
                if name == _PROPERTY and isinstance(line, list):
                    self._config.stash[_LINES][line[0]] = line[1]

    def pytest_sessionfinish(self) -> None:
        page, lines = self._config.getoption("--api-table"), self._config.stash[_LINES]
        if page is not None and lines and not hasattr(self._config, "workerinput"):
            page.write_text(with_lines(page.read_text(encoding="utf-8"), lines), encoding="utf-8")
