"""The judge must be able to fail: every kind of violation is planted in good books, and found where it stands.

`test_chaos_short.py` plants some of them on the topics of a real run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from expected_state import Memory
from scoring_harness import contact
from seed_records import (
    PLANTED,
    accept,
    forge_audit,
    good_books,
    lose,
    pay_nothing,
    receive_twice,
    redeliver,
    replay,
    swap,
    wait,
)
from verifier import verdict, violations

if TYPE_CHECKING:
    from collections.abc import Callable

    from expected_state import ExpectedState


@pytest.fixture
def books() -> ExpectedState:
    return good_books()


def test_good_books_are_good(books: ExpectedState) -> None:
    assert verdict(books) == ""


def test_a_contact_that_waits_in_one_retry_topic_is_not_lost(books: ExpectedState) -> None:
    wait(books)
    assert verdict(books) == ""
    wait(books, 2, group="another")
    assert verdict(books) == "", "it waits for another group"


def test_an_output_of_a_deferred_contact_need_not_stand_in_order(books: ExpectedState) -> None:
    swap(books)
    late = books.rows["scores"][0]
    books.rows["scores"][0] = late._replace(headers=(*late.headers, ("stream-scorer-deferred", b"1")))
    assert verdict(books) == ""


def test_a_replay_and_an_acceptance_are_good(books: ExpectedState) -> None:
    replay(books)
    assert verdict(books) == ""
    books.campaign = False  # the planner has not read the accepted score
    accept(books)
    assert verdict(books) == ""


def test_a_replay_with_changes_has_another_value(books: ExpectedState) -> None:
    replay(books, value=contact("C7", age=41).value, changes={"age": "41"})
    assert verdict(books) == ""


def test_a_redelivery_is_one_more_callback_and_one_more_receipt(books: ExpectedState) -> None:
    redeliver(books)
    redeliver(books, 1, place="callbacks-rejected/0/1")  # it was refused again
    redeliver(books, 2, place="callbacks-rejected/0/2", callback_id="new", body=b"new", retargeted="call")
    assert verdict(books) == ""


@pytest.mark.parametrize(("plant", "kind", "place"), PLANTED, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_planted_is_found(
    books: ExpectedState, plant: Callable[[ExpectedState], None], kind: str, place: str
) -> None:
    plant(books)
    found = [violation for violation in violations(books) if violation.kind == kind]
    assert place in {violation.place for violation in found}, verdict(books)
    assert kind in verdict(books)


def test_everything_is_reported_not_only_the_first(books: ExpectedState) -> None:
    for plant in (lose, forge_audit, receive_twice, pay_nothing):
        plant(books)
    assert {violation.kind for violation in violations(books)} >= {"lost", "chain", "receipt twice", "unpaid"}


def test_what_a_kill_may_cost_is_allowed(books: ExpectedState) -> None:
    again = {**(books.account or {}), "C1": 3}
    assert verdict(replace(books, account=again, may_be_paid_again=2)) == ""
    assert "overpaid" in verdict(replace(books, account=again, may_be_paid_again=1))


def test_a_process_that_settles_has_not_grown(books: ExpectedState) -> None:
    books.memory.append(Memory("worker one", (60.0, 90.0, 120.0, *[150.0] * 30)))
    assert verdict(books) == ""
