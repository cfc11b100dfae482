"""Contract section 5, second table: 400, 422 and 413, which say something about contacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from support_arena import contact
from support_behaviour import Cost, Row, batch, cases, fault, upto

if TYPE_CHECKING:
    from collections.abc import Callable

    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

BAD: Final = "C-000007"
# The simulator refuses contacts of these names for ever, with 400; one that is named, and one that is not.
UNNAMED, NAMED = "REFUSE-1", "REFUSE-NAMED-1"
REFUSED: Final = ("refused_by_api",)


def refused(row_id: str, injected: str, cost: Cost, *, status: int, **action: Any) -> Row:
    """A row in which every request that holds one certain contact of 20 is refused."""
    return Row(
        id=row_id,
        injected=injected,
        faults=[fault(contact_id=BAD, times=None, status=status, **action)],
        rejected={BAD: REFUSED},
        status=str(status),
        cost=cost,
    )


def alone(row_id: str, injected: str, cost: Cost, act: Callable[[Case], None], *, good: int = 0) -> Row:
    """A row in which a contact is refused alone, after so many good ones."""
    return Row(
        id=row_id,
        injected=injected,
        feed=batch(good) if good else (contact(UNNAMED, 0),),
        partitions=2,
        act=act,
        rejected={UNNAMED: REFUSED},
        status="400",
        cost=cost,
    )


def named(number: int) -> dict[str, tuple[str, ...]]:
    return {f"REFUSE-NAMED-{n}": REFUSED for n in range(number)}


# --- what happens meanwhile


def the_bad_one_follows(case: Case) -> None:
    case.await_committed(5)
    case.feed([contact(UNNAMED, 0)])


def it_waits(case: Case, committed: int) -> None:
    """Another version is answered, which proves nothing for this one; the loop has gone round, and it still waits."""
    case.feed([contact("other-version", 1, model_version="v2")])
    case.wait(lambda: case.committed()[1] == 1, "the other version")
    assert case.committed()[0] == committed


def a_good_one_follows_within_a_minute(case: Case) -> None:
    case.await_requests(1)
    case.pass_time(55)
    it_waits(case, 0)
    case.feed([contact("good", 0)])


def a_minute_passes(case: Case) -> None:
    case.await_requests(1)
    case.pass_time(61)


def ten_minutes_lie_between(case: Case) -> None:
    case.await_committed(5)
    case.pass_time(601)
    case.feed([contact(UNNAMED, 0)])
    case.await_requests(2)
    it_waits(case, 5)
    case.feed([contact("good", 0)])


def a_good_one_comes(case: Case) -> None:
    case.feed([contact("good")])


SEARCH: Final = "every request that holds one certain contact of 20 is a"
BATCHES: Final = (
    refused("named-400", f"{SEARCH} 400 that names it", Cost(requests=2, sent=39, paid=19), status=400, names=[BAD]),
    refused("named-422", f"{SEARCH} 422 that names it", Cost(requests=2, sent=39, paid=19), status=422, names=[BAD]),
    refused("unnamed-400", f"{SEARCH} 400", Cost(requests=upto(11), sent=upto(80), paid=19), status=400),
    refused("unnamed-422", f"{SEARCH} 422", Cost(requests=upto(11), sent=upto(80), paid=19), status=422),
    refused(
        "names-somebody-else",
        f"{SEARCH} 400 that names a contact which is not in the request",
        Cost(requests=upto(11), sent=upto(80), paid=19),
        status=400,
        names=["nobody"],
    ),
    refused(
        "html-400",
        f"{SEARCH} 400 with HTML",
        Cost(requests=upto(11), sent=upto(80), paid=19),
        status=400,
        body="html",
    ),
    Row(
        id="eight-named",
        injected="8 contacts, all refused and named; a minute passes (the worker's clock is moved on)",
        feed=tuple(map(contact, named(8))),
        act=a_minute_passes,
        rejected=named(8),
        status="400",
        cost=Cost(requests=1, sent=8, paid=0),
    ),
    Row(
        id="nine-named",
        injected="9 contacts, all refused and named; when the worker holds, a good one comes",
        feed=tuple(map(contact, named(9))),
        holds="the API refuses every contact",
        recover=a_good_one_comes,
        rejected=named(9),
        status="400",
        # The batch, a probe for each, the good one, and each alone.
        cost=Cost(requests=upto(25), sent=upto(33), paid=1),
    ),
    Row(
        id="contract-broken",
        injected="every request is a 400, until the worker holds",
        faults=[fault(times=None, status=400)],
        holds="the API refuses every contact",
        # At most everybody once alone, and the halves before that; then the rest.
        cost=Cost(requests=upto(80), sent=upto(400), paid=20),
    ),
)

ALONE: Final = (
    alone(
        "alone-after-2xx",
        "5 good contacts are scored, then one is refused alone",
        Cost(requests=2, sent=6, paid=5),
        the_bad_one_follows,
        good=5,
    ),
    alone(
        "alone-before-2xx",
        "the first contact of all is refused alone; 55 s later one of another model version is scored, then a good one",
        Cost(requests=3, sent=3, paid=2),
        a_good_one_follows_within_a_minute,
    ),
    alone(
        "alone-for-a-minute",
        "the only contact is refused alone; a minute passes",
        Cost(requests=1, sent=1, paid=0),
        a_minute_passes,
    ),
    alone(
        "alone-after-ten-minutes",
        "5 good contacts are scored, 10 minutes pass, one is refused alone; one of another model version is scored,"
        " then a good one",
        Cost(requests=4, sent=8, paid=7),
        ten_minutes_lie_between,
        good=5,
    ),
)

TOO_LARGE: Final = (
    Row(
        id="413-batch",
        injected="the API takes 1,600 bytes a request; 16 contacts have more",
        feed=batch(16),
        api={"max_request_bytes": 1600},
        cost=Cost(requests=3, sent=32, paid=16),
    ),
    Row(
        id="413-alone",
        injected="the API takes 1,600 bytes a request; one of 4 contacts has more",
        feed=(*batch(3), contact("large", features={"segment_id": "x" * 2000})),
        api={"max_request_bytes": 1600},
        rejected={"large": ("too_large",)},
        status="413",
        cost=Cost(requests=5, sent=10, paid=3),
    ),
)
ROWS: Final = (*BATCHES, *ALONE, *TOO_LARGE)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
