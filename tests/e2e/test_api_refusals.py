"""Contract section 5, second table: 400, 422 and 413, which concern contacts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from scoring_harness import contact
from support_behaviour import Cost, Row, batch, cases, fault, upto

if TYPE_CHECKING:
    from collections.abc import Callable

    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

BAD: Final = "C-000007"
# The simulator always rejects contacts of these names with 400: one is named in the response, one is not.
UNNAMED, NAMED = "REFUSE-1", "REFUSE-NAMED-1"
REFUSED: Final = ("refused_by_api",)
NOT_DEFERRED: Final[dict[str, int]] = {}
# Without other contacts, nearly every failure needs a control, which is billed.
SEARCHED: Final = Cost(requests=upto(30), sent=upto(90), paid=range(20, 34), twice=upto(14))
NAMED_AGAIN: Final = Cost(requests=range(11, 16), sent=range(46, 56), paid=range(19, 24), twice=upto(4))


def refused(row_id: str, injected: str, cost: Cost = SEARCHED, *, status: int, **action: Any) -> Row:
    """A row in which every request with one of the 20 contacts is rejected."""
    return Row(
        id=row_id,
        injected=injected,
        faults=[fault(contact_id=BAD, times=None, status=status, **action)],
        rejected={BAD: REFUSED},
        status=str(status),
        deferred=NOT_DEFERRED if BAD in action.get("names", ()) else None,
        cost=cost,
    )


def named(number: int) -> dict[str, tuple[str, ...]]:
    return {f"REFUSE-NAMED-{n}": REFUSED for n in range(number)}


# --- actions during a row


def the_bad_one_follows(case: Case) -> None:
    case.await_committed(5)
    case.feed([contact(UNNAMED, 0)])


def a_good_one_follows_ten_minutes_later(case: Case) -> None:
    """A success of another version is no evidence for this one: it waits at least for a control."""
    case.await_requests(1)
    case.pass_time(601)
    case.feed([contact("other-version", 1, model_version="v2")])
    case.wait(lambda: case.committed()[1] == 1, "the other version")
    assert case.committed()[0] == 0 or case.score_requests().total() > 2
    case.feed([contact("good", 0)])


def a_good_one_comes(case: Case) -> None:
    case.feed([contact("good")])


def it_is_answered_in_its_first_round(case: Case) -> None:
    case.await_waiting(1)
    case.simulator.clear_faults()


SEARCH: Final = "every request with one certain contact of 20 is a"
BATCHES: Final = (
    refused("named-400", f"{SEARCH} 400 that names it", NAMED_AGAIN, status=400, names=[BAD]),
    refused("named-422", f"{SEARCH} 422 that names it", NAMED_AGAIN, status=422, names=[BAD]),
    refused("unnamed-400", f"{SEARCH} 400", status=400),
    refused("unnamed-422", f"{SEARCH} 422", status=422),
    refused(
        "names-another-contact",
        f"{SEARCH} 400 that names a contact which is not in the request",
        status=400,
        names=["elsewhere"],
    ),
    refused("html-400", f"{SEARCH} 400 with HTML", status=400, body="html"),
    Row(
        id="answered-later",
        injected=f"{SEARCH} 400, until it waits in its retry topic",
        faults=[fault(contact_id=BAD, times=None, status=400)],
        settings={"scoring__retry_delays_s": "[1.5, 3]"},
        act=it_is_answered_in_its_first_round,
        deferred={BAD: 1},
        cost=Cost(requests=upto(16), sent=upto(80), paid=range(20, 28), twice=upto(8)),
    ),
    Row(
        id="all-named",
        injected="4 contacts, all refused and named; when the circuit breaker is open, a good one comes",
        feed=tuple(map(contact, named(4))),
        holds="HTTP 400 invalid.value",
        recover=a_good_one_comes,
        rejected=named(4),
        status="400",
        cost=Cost(requests=range(20, 70), sent=range(25, 100), paid=range(4, 20), twice=range(3, 19)),
    ),
    Row(
        id="contract-broken",
        injected="every request is a 400, until the circuit breaker is open",
        faults=[fault(times=None, status=400)],
        holds="HTTP 400",
        # The batch, one contact as control, the probes; then the steps of the half-open breaker.
        cost=Cost(requests=upto(40), sent=upto(80), paid=20),
    ),
)

ALONE: Final = (
    Row(
        id="alone-after-2xx",
        injected="5 good contacts are scored, then one is refused alone",
        feed=batch(5),
        act=the_bad_one_follows,
        rejected={UNNAMED: REFUSED},
        status="400",
        # One failure in each round and three in the last, each with a control or two.
        cost=Cost(requests=range(11, 18), sent=range(15, 22), paid=range(9, 16), twice=range(4, 11)),
    ),
    Row(
        id="alone-before-2xx",
        injected="the first contact of all is refused alone; 10 minutes later (the worker's clock is moved on) one of"
        " another model version is scored, then a good one",
        feed=(contact(UNNAMED, 0),),
        partitions=2,
        act=a_good_one_follows_ten_minutes_later,
        rejected={UNNAMED: REFUSED},
        status="400",
        cost=Cost(requests=range(10, 18), sent=range(10, 18), paid=range(6, 12), twice=range(4, 10)),
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
        cost=Cost(requests=range(12, 24), sent=range(15, 36), paid=range(8, 18), twice=range(5, 15)),
    ),
)
ROWS: Final = (*BATCHES, *ALONE, *TOO_LARGE)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
