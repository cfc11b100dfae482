"""Contract section 5, second table: a 2xx, valid and with every defect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from support_behaviour import Cost, Row, cases, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

ONE: Final = "C-000007"
SHARD: Final = [f"C-{n:06}" for n in range(5, 10)]
ALWAYS: Final = None
AT_ONCE: Final = Cost(requests=1, sent=20, paid=20)
# One of 20 without a result: only this one is sent again.
ONE_AGAIN: Final = Cost(requests=2, sent=21, paid=21, twice=1)
# A billed response without use: all are sent once more, after a time-out in halves.
ALL_AGAIN: Final = Cost(requests=range(2, 4), sent=40, paid=40, twice=20)
# One contact missing in every response: twice, once in each round, thrice in the last; the rest are controls.
LEFT_OUT: Final = Cost(requests=range(12, 18), sent=range(31, 37), paid=range(31, 37), twice=range(11, 17))
ALL_AGAIN_UNPAID: Final = Cost(requests=2, sent=40, paid=20)


# Seven kinds of unusable results, each for one contact.
UNUSABLE: Final = [
    *(
        {"do": "remove", "of": {"ids": [f"C-{n:06}"]}, "field": field}
        for n, field in enumerate(("score", "lower", "upper", "confidenceInterval"))
    ),
    *(
        {"do": "set", "of": {"ids": [f"C-{n:06}"]}, "field": "score", "literal": literal}
        for n, literal in enumerate(('"0.5"', "true", "null"), start=4)
    ),
]


def edited(do: str, *, of: Any = "all", times: int | None = 1, **more: Any) -> list[dict[str, Any]]:
    """Return the script that edits the results in this way."""
    selected = {} if do == "reverse" else {"of": of}
    return [fault(times=times, results=[{"do": do, **selected, **more}])]


def unanswered(row_id: str, injected: str, script: list[dict[str, Any]]) -> Row:
    """A row in which one of 20 never gets a usable result."""
    rejected = {ONE: ("no_result",)}
    return Row(id=row_id, injected=injected, faults=script, rejected=rejected, status="200", cost=LEFT_OUT)


def useless(row_id: str, injected: str, cost: Cost = ALL_AGAIN_UNPAID, **action: Any) -> Row:
    """A row in which the first response is an unreadable 2xx."""
    settings = {"genesys__timeout_s": "1"} if action.get("transfer") == "drip" else {}
    return Row(id=row_id, injected=injected, faults=[fault(**action)], settings=settings, cost=cost)


def the_shard_comes_back(case: Case) -> None:
    case.await_waiting(len(SHARD))
    case.simulator.clear_faults()


def twenty_unknown_are_counted(case: Case) -> None:
    lines = [line for line in case.metrics.splitlines() if "results_unmatched" in line and not line.startswith("#")]
    assert [line.rpartition(" ")[2] for line in lines] == ["20.0"], lines


ANSWERED: Final = (
    Row(id="answered", injected="nothing", cost=AT_ONCE),
    Row(
        id="another-order",
        injected="the results come in the reverse order",
        faults=edited("reverse"),
        cost=AT_ONCE,
    ),
    Row(id="same-twice", injected="every result twice, the same", faults=edited("repeat"), cost=AT_ONCE),
    Row(
        id="unknown-ids",
        injected="20 results more, for contacts that are not in the request",
        faults=edited("unknown"),
        check=twenty_unknown_are_counted,
        cost=AT_ONCE,
    ),
    Row(id="gzip", injected="the answer is compressed", faults=[fault(transfer="gzip")], cost=AT_ONCE),
    Row(
        id="left-out-once",
        injected="one of 20 is left out of the first answer",
        faults=edited("omit", of={"ids": [ONE]}),
        cost=ONE_AGAIN,
    ),
    unanswered(
        "left-out-twice", "one of 20 is left out of every answer", edited("omit", of={"ids": [ONE]}, times=None)
    ),
    Row(
        id="contradiction-once",
        injected="one of 20 has two different results in the first answer",
        faults=edited("contradict", of={"ids": [ONE]}),
        cost=ONE_AGAIN,
    ),
    unanswered(
        "contradiction-twice",
        "one of 20 has two different results in every answer",
        edited("contradict", of={"ids": [ONE]}, times=None),
    ),
    Row(
        id="no-usable-result",
        injected='7 of 20 never have a score, lower or upper bound, or interval, or the score is `"0.5"`, `true`, null',
        faults=[fault(times=ALWAYS, results=UNUSABLE)],
        rejected={f"C-{n:06}": ("no_result",) for n in range(7)},
        status="200",
        # The seven together four times, then each alone three times; the rest are controls.
        cost=Cost(requests=range(26, 46), sent=range(62, 84), paid=range(62, 84), twice=range(42, 64)),
    ),
    Row(
        id="few-answered-once",
        injected="15 of 20 are left out of the first answer",
        faults=edited("omit", of={"count": 15}),
        cost=Cost(requests=2, sent=35, paid=35, twice=15),
    ),
    Row(
        id="one-shard-for-a-while",
        injected="5 of 20 are left out of every answer, until they wait in the retry topic",
        faults=edited("omit", of={"ids": SHARD}, times=None),
        settings={"scoring__retry_delays_s": "[1.5, 3]"},
        act=the_shard_comes_back,
        deferred=dict.fromkeys(SHARD, 1),
        cost=Cost(requests=range(3, 6), sent=range(30, 33), paid=range(30, 33), twice=range(10, 13)),
    ),
    Row(
        id="none-answered-once",
        injected="the first answer has no results",
        faults=edited("omit"),
        # The batch, one contact as control, the batch again.
        cost=Cost(requests=range(2, 5), sent=range(40, 44), paid=range(40, 44), twice=range(20, 24)),
    ),
    Row(
        id="none-answered-for-good",
        injected="no answer has results, until the circuit breaker is open",
        faults=edited("omit", times=None),
        holds="without a usable result",
        cost=Cost(requests=range(6, 40), sent=range(60, 130), paid=range(60, 130), twice=range(40, 110)),
    ),
)

USELESS: Final = (
    useless("html", "the first answer is 200 with HTML", status=200, body="html"),
    useless("no-content", "the first answer is 204", status=204),
    useless("cut-json", "the first answer is 200 with half a JSON", status=200, body="not_json"),
    useless("wrong-shape", "the first answer is 200 with JSON of another form", status=200, body="wrong_shape"),
    useless("deep", "the first answer is 200 with JSON of 100,000 levels", status=200, body="nested"),
    useless("cut", "the connection ends after half of the first answer", ALL_AGAIN, transfer="cut"),
    useless("cut-chunked", "the same, with no length announced", ALL_AGAIN, transfer="cut_chunked"),
    useless("drip", "the first answer comes a byte every 100 ms, `genesys.timeout_s` 1", ALL_AGAIN, transfer="drip"),
    useless("endless", "the first answer never ends", ALL_AGAIN, transfer="endless"),
    useless("gzip-bomb", "the first answer grows to 200 MB", ALL_AGAIN, transfer="gzip_bomb"),
)
ROWS: Final = (*ANSWERED, *USELESS)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
