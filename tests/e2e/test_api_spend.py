"""Issue 4: what it costs to find a contact that the API refuses or fails for, and who has to wait meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from support_arena import contact, contacts
from support_behaviour import Cost, Row, batch, cases, fault, upto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from support_arena import Input
    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

FOR_EVER: Final = None
REFUSED: Final = ("refused_by_api",)
POISON: Final = "C-000007"
POISONED: Final = fault(times=FOR_EVER, status=500, contact_id=POISON)
# One thousand in one request, however slowly they are read.
TOGETHER: Final = {"scoring__linger_ms": "3000"}
HEALTHY: Final = 2_000


def with_bad(number: int, places: Iterable[int], prefix: str = "REFUSE") -> tuple[Input, ...]:
    """So many contacts, with one that the simulator refuses at each of these places."""
    made = list(batch(number))
    for place in places:
        made[place] = contact(f"{prefix}-{place}", 0)
    return tuple(made)


def among_1000(row_id: str, injected: str, places: Iterable[int], cost: Cost, prefix: str = "REFUSE") -> Row:
    """A row with bad contacts at these places of one request about 1,000."""
    places = tuple(places)
    return Row(
        id=row_id,
        injected=injected,
        feed=with_bad(1000, places, prefix),
        settings=TOGETHER,
        rejected={f"{prefix}-{place}": REFUSED for place in places},
        status="400",
        cost=cost,
    )


# --- what happens meanwhile


def healthy_ones_come_on_another_partition(case: Case) -> None:
    """10 full batches of them, one request at a time: they may lose every other turn, no more."""
    case.wait(lambda: case.simulator.stats().in_flight, "the first request")
    case.feed(contact(f"H-{n:06}", 1) for n in range(HEALTHY))

    def requests_when_paid(number: int) -> int:
        case.wait(lambda: sum(one.startswith("H-") for one in case.simulator.scored()) >= number, f"{number} of them")
        return case.score_requests().total()

    first, last = requests_when_paid(200), requests_when_paid(HEALTHY)
    assert case.committed()[0] < 200  # the search goes on
    turns = HEALTHY // 200 - 1
    assert last - first <= 2 * turns + 4, "the search takes more than every other turn"  # a look comes a little late


def others_come_one_by_one(case: Case) -> None:
    """Each 2xx is evidence for one round that the first contact fails alone; without any the worker holds again."""
    for number in range(1, 4):
        case.await_holds(number)
        case.feed([contact(f"other-{number}")])


SPREAD: Final = range(31, 1000, 97)
SEARCH: Final = (
    among_1000(
        "one-of-1000", "one of 1,000 is refused, unnamed", [700], Cost(requests=upto(22), sent=upto(4000), paid=999)
    ),
    among_1000(
        "first-of-1000",
        "the first of 1,000 is refused, unnamed",
        [0],
        Cost(requests=upto(22), sent=upto(4000), paid=999),
    ),
    among_1000(
        "last-of-1000",
        "the last of 1,000 is refused, unnamed",
        [999],
        Cost(requests=upto(22), sent=upto(4000), paid=999),
    ),
    among_1000(
        "named-of-1000",
        "one of 1,000 is refused and named",
        [700],
        Cost(requests=2, sent=1999, paid=999),
        "REFUSE-NAMED",
    ),
    among_1000(
        "ten-of-1000",
        "10 of 1,000 are refused, unnamed, far from each other",
        SPREAD,
        Cost(requests=upto(140), sent=upto(9000), paid=990),
    ),
    among_1000(
        "ten-in-a-row",
        "10 of 1,000 are refused, unnamed, in a row",
        range(500, 510),
        Cost(requests=upto(140), sent=upto(9000), paid=990),
    ),
    Row(
        id="contract-broken-1000",
        injected="every request about 1,000 is a 400, until the worker holds",
        feed=batch(1000),
        settings=TOGETHER,
        faults=[fault(times=FOR_EVER, status=400)],
        holds="the API refuses every contact",
        cost=Cost(requests=upto(200), sent=upto(40_000), paid=1000),
    ),
    Row(
        id="others-go-on",
        injected="5 of 200 are refused, unnamed; 2,000 good ones come on another partition while they are searched;"
        " one request of 200 at a time",
        feed=with_bad(200, range(3, 200, 40)),
        partitions=2,
        faults=[fault(delay_ms=1500)],  # time for the good ones to come before the search begins
        api={"latency_ms": 40},
        settings={"scoring__max_in_flight": "1", "scoring__linger_ms": "3000"},
        act=healthy_ones_come_on_another_partition,
        rejected={f"REFUSE-{place}": REFUSED for place in range(3, 200, 40)},
        status="400",
        cost=Cost(requests=range(10, 100), sent=range(2_200, 5_000), paid=2_195),
    ),
)

POISONS: Final = (
    Row(
        id="poison",
        injected="500 to every request that holds one certain contact of 64, in 4 batches",
        feed=batch(64),
        faults=[POISONED],
        settings={"scoring__max_contacts": "16"},
        may_hold=True,
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=upto(60), sent=upto(400), paid=63),
    ),
    Row(
        id="poison-quiet",
        injected="500 to every request that holds one certain contact of 20; nothing else is asked",
        faults=[POISONED],
        may_hold=True,
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=upto(80), sent=upto(400), paid=19),
    ),
    Row(
        id="poison-of-1000",
        injected="500 to every request that holds one certain contact of 1,000; nothing else is asked",
        feed=batch(1000),
        faults=[POISONED],
        settings=TOGETHER,
        may_hold=True,
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=upto(140), sent=upto(16_000), paid=999),
    ),
    Row(
        id="poison-alone",
        injected="500 to every request about the only contact there is, until the worker has held and probed",
        feed=(contact(POISON),),
        faults=[POISONED],
        holds="HTTP 500",
        cost=Cost(requests=range(6, 20), sent=range(6, 20), paid=1),
    ),
    Row(
        id="poison-alone-at-first",
        injected="500 to every request about the first contact; each time the worker holds, another one comes",
        feed=(contact(POISON),),
        faults=[POISONED],
        holds="HTTP 500",
        recover=others_come_one_by_one,
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=range(6, 60), sent=range(6, 60), paid=3),
    ),
    Row(
        id="poison-last",
        injected="20 good contacts in one request, then 500 to every request about the 21st, which is the last; each"
        " time the worker holds, another one comes",
        feed=(*contacts(20, 1, "G"), contact(POISON)),
        faults=[POISONED],
        settings={"scoring__max_contacts": "20"},
        holds="HTTP 500",
        recover=others_come_one_by_one,
        rejected={POISON: REFUSED},
        status="500",
        cost=Cost(requests=range(6, 60), sent=range(26, 80), paid=23),
    ),
)
ROWS: Final = (*SEARCH, *POISONS)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
