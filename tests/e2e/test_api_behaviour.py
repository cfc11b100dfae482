"""docs/api-behaviour.md against the rows that are played: the same rows, with current texts and figures."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import test_api_contacts
import test_api_outages
import test_api_refusals
import test_api_results
import test_api_scores
import test_api_spend
import test_api_stops
from support_behaviour_check import fits

from stream_scorer.core.scoring.types import Reason, ReviewReason

if TYPE_CHECKING:
    from support_behaviour import Row

PAGE: Final = Path(__file__).parents[2] / "docs" / "api-behaviour.md"
MODULES: Final = (
    test_api_contacts,
    test_api_scores,
    test_api_results,
    test_api_refusals,
    test_api_stops,
    test_api_outages,
    test_api_spend,
)
ROWS: Final[tuple[Row, ...]] = tuple(row for module in MODULES for row in module.ROWS)


def lines() -> dict[str, list[str]]:
    """Return the cells of every row of the page by its id."""
    found = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in found]
    return {first.strip("`"): rest for first, *rest in cells}


def test_every_row_has_an_id_of_its_own() -> None:
    assert [row_id for row_id, times in Counter(row.id for row in ROWS).items() if times > 1] == []


def test_the_page_has_exactly_the_rows_that_are_played() -> None:
    assert set(lines()) == {row.id for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_shows_the_injected_fault_and_the_measured_result(row: Row) -> None:
    injected, did, requests, sent, paid, twice = lines()[row.id]
    assert injected == row.injected
    assert did
    assert ("Deviates from the contract" in did) == bool(row.gap)
    if row.gap:
        return
    cost = row.cost
    for cell, amount in ((requests, cost.requests), (sent, cost.sent), (paid, cost.paid), (twice, cost.twice)):
        assert fits(int(cell.partition(" ")[0].replace(",", "")), amount)


def test_every_reason_of_the_contract_is_played() -> None:
    rejected = {reasons[0] for row in ROWS for reasons in row.rejected.values()}
    assert rejected == {reason.value for reason in Reason}
    reviewed = {reason for row in ROWS for reasons in row.review.values() for reason in reasons}
    assert reviewed == {reason.value for reason in ReviewReason}
