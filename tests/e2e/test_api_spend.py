"""Issue 4: cost of the search for a contact that the API rejects or fails for, and the delay of other contacts."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest
from scoring_harness import contact, contacts
from support_behaviour import Cost, Row, batch, cases, fault, upto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scoring_harness import Input
    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

ALWAYS: Final = None
REFUSED: Final = ("refused_by_api",)
POISON: Final = "C-000007"
POISONED: Final = fault(times=ALWAYS, status=500, contact_id=POISON)
# Without other contacts, many failures need a control, and each success of a control is billed.
CONTROLS: Final = 18
# One thousand in one request, independent of the read rate.
TOGETHER: Final = {"scoring__linger_ms": "3000"}
HEALTHY: Final = 2_000


def with_bad(number: int, places: Iterable[int], prefix: str = "REFUSE") -> tuple[Input, ...]:
    """Return so many contacts, with one that the simulator rejects at each of these positions."""
    made = list(batch(number))
    for place in places:
        made[place] = contact(f"{prefix}-{place}", 0)
    return tuple(made)


def among_1000(
    row_id: str,
    injected: str,
    places: Iterable[int],
    *,
    requests: int,
    sent: int,
    prefix: str = "REFUSE",
    may_hold: bool = False,
    is_slow: bool = False,
) -> Row:
    """A row with bad contacts at these positions of one request with 1,000 contacts, and its maximum cost."""
    places = tuple(places)
    good = 1000 - len(places)
    return Row(
        id=row_id,
        injected=injected,
        feed=with_bad(1000, places, prefix),
        settings=TOGETHER,
        may_hold=may_hold,
        is_slow=is_slow,
        rejected={f"{prefix}-{place}": REFUSED for place in places},
        status="400",
        deferred=None if prefix == "REFUSE" else {},
        cost=Cost(
            requests=upto(requests),
            sent=range(1000 + good, sent + 1),
            paid=range(good, good + CONTROLS + 1),
            twice=upto(CONTROLS),
        ),
    )


# --- actions during a row


def healthy_ones_come_on_another_partition(case: Case) -> None:
    """10 full batches of them, one request at a time: the search and its controls may have two turns of three."""
    case.wait(lambda: case.simulator.stats().in_flight, "the first request")
    case.feed(contact(f"H-{n:06}", 1) for n in range(HEALTHY))

    def requests_when_paid(number: int) -> int:
        case.wait(lambda: sum(one.startswith("H-") for one in case.simulator.scored()) >= number, f"{number} of them")
        return case.score_requests().total()

    first, last = requests_when_paid(200), requests_when_paid(HEALTHY)
    assert case.committed()[0] < 200  # the search continues
    turns = HEALTHY // 200 - 1
    taken = last - first
    assert taken <= 3 * turns + 4, f"{taken} requests for {turns} batches"  # the check may be late


def others_come_one_by_one(case: Case) -> None:
    """A contact that failed without evidence waits for the next contacts."""
    case.await_requests(5)
    assert case.committed()[0] == 0
    case.feed([contact("other-1")])
    case.await_committed(2)
    case.feed([contact("other-2")])


def good_ones_follow(case: Case) -> None:
    """A few at a time, as in a stream, until all are done: their successes are the evidence."""
    retries, progress = case.harness.watch_retries(), case.harness.watch()
    numbers = count()

    def all_done() -> bool:
        if progress.done() == len(case.fed) and retries.number() == 0:
            return True
        if progress.done() >= len(case.fed) - 110:
            case.feed(contacts(4, 1, f"G-{next(numbers)}"))
        return False

    case.wait(all_done, "the end of all contacts")
    retries.close()
    progress.close()


def it_is_answered_after_all(case: Case) -> None:
    case.await_requests(5)
    case.simulator.clear_faults()


SPREAD: Final = range(31, 1000, 97)
SEARCH: Final = (
    among_1000("one-of-1000", "one of 1,000 is refused, unnamed", [700], requests=40, sent=4000),
    among_1000(
        "first-of-1000",
        "the first of 1,000 is refused, unnamed",
        [0],
        requests=50,
        sent=4000,
        is_slow=True,
        may_hold=True,  # it is the only evidence without a control
    ),
    among_1000(
        "last-of-1000",
        "the last of 1,000 is refused, unnamed",
        [999],
        requests=40,
        sent=4000,
        is_slow=True,
    ),
    among_1000(
        "named-of-1000",
        "one of 1,000 is refused and named",
        [700],
        requests=16,
        sent=2016,
        prefix="REFUSE-NAMED",
    ),
    among_1000(
        "ten-of-1000",
        "10 of 1,000 are refused, unnamed, far from each other",
        SPREAD,
        requests=200,
        sent=9000,
        is_slow=True,
    ),
    among_1000(
        "three-in-a-row",
        "3 of 1,000 are refused, unnamed, in a row",
        range(500, 503),
        requests=80,
        sent=6000,
    ),
    Row(
        id="contract-broken-1000",
        injected="every request about 1,000 is a 400, until the circuit breaker is open",
        feed=batch(1000),
        settings=TOGETHER,
        faults=[fault(times=ALWAYS, status=400)],
        holds="HTTP 400",
        # One request, one contact as control, the probes; then the steps of the half-open breaker.
        cost=Cost(requests=range(13, 60), sent=range(2_001, 2_060), paid=1000),
    ),
    Row(
        id="others-go-on",
        is_slow=True,
        injected="2 of 200 are refused, unnamed; 2,000 good ones come on another partition while they are searched;"
        " one request of 200 at a time",
        feed=with_bad(200, (43, 163)),
        partitions=2,
        faults=[fault(delay_ms=1500)],  # time for the good ones to arrive before the search begins
        api={"latency_ms": 40},
        settings={"scoring__max_in_flight": "1", "scoring__linger_ms": "3000"},
        act=healthy_ones_come_on_another_partition,
        rejected={f"REFUSE-{place}": REFUSED for place in (43, 163)},
        status="400",
        cost=Cost(
            requests=range(20, 110), sent=range(2_200, 5_000), paid=range(2_198, 2_225), twice=range(CONTROLS + 9)
        ),
    ),
)

# One contact of each, in four requests of 20, and how the API fails for it.
WAYS: Final[dict[str, dict[str, Any]]] = {
    "WAY-400": {"status": 400},
    "WAY-403-html": {"status": 403, "body": "html"},
    "WAY-404-html": {"status": 404, "body": "html"},
    "WAY-405": {"status": 405},
    "WAY-409": {"status": 409},
    "WAY-451": {"status": 451},
    "WAY-302": {"status": 302},
    "WAY-500": {"status": 500},
    "WAY-413": {"status": 413},
    "WAY-reset": {"drop": "before"},
    "WAY-time-out": {"delay_ms": 1500},
}


def with_ways(number: int) -> tuple[Input, ...]:
    """Return so many contacts, with one for each kind of failure, far from each other."""
    made = list(batch(number))
    for at, key in enumerate(WAYS):
        made[3 + at * (number // len(WAYS))] = contact(key, 0)
    return tuple(made)


POISONS: Final = (
    Row(
        id="every-way-alone",
        injected="11 of 110 contacts fail for good, each in a way of its own: 400, 403 and 404 with HTML, 405, 409,"
        " 451, 302, 500, 413, a reset connection, an answer after 1.5 s; `genesys.timeout_s` 0.75; good ones follow",
        feed=with_ways(110),
        faults=[fault(times=ALWAYS, contact_id=key, **how) for key, how in WAYS.items()],
        settings={"genesys__timeout_s": "0.75", "scoring__max_contacts": "20"},
        act=good_ones_follow,
        rejected={key: ("too_large",) if key == "WAY-413" else REFUSED for key in WAYS},
        status={key: str(how["status"]) for key, how in WAYS.items() if "status" in how},
        # How many good ones follow depends on how long it takes.
        cost=Cost(requests=range(60, 5_000), sent=range(200, 9_000), paid=range(150, 8_000), twice=range(1, 100)),
        is_slow=True,
    ),
    Row(
        id="poison",
        injected="500 to every request with one certain contact of 64, in 4 batches",
        feed=batch(64),
        faults=[POISONED],
        settings={"scoring__max_contacts": "16"},
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=upto(40), sent=upto(160), paid=range(64, 76), twice=range(1, 13)),
    ),
    Row(
        id="poison-quiet",
        injected="500 to every request with one certain contact of 20; nothing else is sent",
        faults=[POISONED],
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=upto(40), sent=upto(120), paid=range(20, 34), twice=range(1, 15)),
    ),
    Row(
        id="poison-of-1000",
        is_slow=True,
        injected="500 to every request with one certain contact of 1,000; nothing else is sent",
        feed=batch(1000),
        faults=[POISONED],
        settings=TOGETHER,
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=upto(60), sent=upto(6_000), paid=range(1_000, 1_018), twice=range(1, 19)),
    ),
    Row(
        id="poison-alone",
        injected="500 to every request about the only contact there is, five times at least",
        feed=(contact(POISON),),
        faults=[POISONED],
        act=it_is_answered_after_all,
        cost=Cost(requests=range(6, 60), sent=range(6, 60), paid=1),
    ),
    Row(
        id="poison-alone-at-first",
        injected="500 to every request about the first contact; then another one comes, and when both are done with"
        " there, a third one",
        feed=(contact(POISON),),
        faults=[POISONED],
        act=others_come_one_by_one,
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=range(14, 60), sent=range(14, 60), paid=range(4, 16), twice=range(2, 14)),
    ),
    Row(
        id="poison-last",
        injected="20 good contacts in one request, then 500 to every request about the 21st, which is the last",
        feed=(*contacts(20, 1, "G"), contact(POISON)),
        faults=[POISONED],
        settings={"scoring__max_contacts": "20"},
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=range(10, 30), sent=range(29, 50), paid=range(24, 36), twice=range(4, 16)),
    ),
)
ROWS: Final = (*SEARCH, *POISONS)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
