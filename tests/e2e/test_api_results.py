"""Contract section 5, second table: a 2xx, whole and in every way in which it can be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from support_behaviour import Cost, Row, batch, cases, fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

ONE: Final = "C-000007"
FOR_EVER: Final = None
AT_ONCE: Final = Cost(requests=1, sent=20, paid=20)
# One of 20 without a result: it alone is asked about once more.
ONE_AGAIN: Final = Cost(requests=2, sent=21, paid=21, twice=1)
# An answer that was paid for is worth nothing: all are asked about once more.
ALL_AGAIN: Final = Cost(requests=2, sent=40, paid=40, twice=20)
ALL_AGAIN_UNPAID: Final = Cost(requests=2, sent=40, paid=20)


# Seven ways of having no usable result, each for a contact of its own.
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
    """The script that damages the results in this way."""
    selected = {} if do == "reverse" else {"of": of}
    return [fault(times=times, results=[{"do": do, **selected, **more}])]


def unanswered(row_id: str, injected: str, script: list[dict[str, Any]]) -> Row:
    """A row in which one of 20 gets no usable result, twice."""
    rejected = {ONE: ("no_result",)}
    return Row(id=row_id, injected=injected, faults=script, rejected=rejected, status="200", cost=ONE_AGAIN)


def useless(row_id: str, injected: str, cost: Cost = ALL_AGAIN_UNPAID, **action: Any) -> Row:
    """A row in which the first answer is a 2xx that nobody can read."""
    settings = {"genesys__timeout_s": "1"} if action.get("transfer") == "drip" else {}
    return Row(id=row_id, injected=injected, faults=[fault(**action)], settings=settings, cost=cost)


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
        injected="20 results more, for contacts that nobody asked about",
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
        faults=[fault(times=FOR_EVER, results=UNUSABLE)],
        rejected={f"C-{n:06}": ("no_result",) for n in range(7)},
        status="200",
        cost=Cost(requests=2, sent=27, paid=27, twice=7),
    ),
    Row(
        id="fewer-than-half-once",
        injected="11 of 20 are left out of the first answer",
        faults=edited("omit", of={"count": 11}),
        cost=ALL_AGAIN,
    ),
    Row(
        id="fewer-than-half-for-good",
        injected="every request about 10 or more is answered for 9 of 20, until the worker holds",
        faults=edited("omit", of={"count": 11}, times=None),
        holds="the API answered 9 of 20 contacts",
        # Four attempts; a probe, which is about a contact that is left out.
        cost=Cost(requests=range(6, 12), sent=range(100, 110), paid=range(100, 110), twice=range(80, 90)),
    ),
    Row(
        id="half",
        injected="10 of 20 are left out of the first answer",
        faults=edited("omit", of={"count": 10}),
        cost=Cost(requests=2, sent=30, paid=30, twice=10),
    ),
    Row(
        id="fewer-than-half-of-nine",
        injected="8 of 9 are left out of the first answer",
        feed=batch(9),
        faults=edited("omit", of={"count": 8}),
        cost=Cost(requests=2, sent=17, paid=17, twice=8),
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
