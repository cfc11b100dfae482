"""Contract section 5, second table: 408, 429, 5xx, no connection, time-out; 3xx and any other 4xx."""

from __future__ import annotations

import time
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
from scoring_harness import contact, contacts
from support_behaviour import Cost, Row, batch, cases, fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

ALWAYS: Final = None
AGAIN: Final = Cost(requests=2, sent=40, paid=20)
PAID_TWICE: Final = Cost(requests=2, sent=40, paid=40, twice=20)
# All twice, one as control, the rest again, one probe or more; then the successful probe, and the rest in steps.
HELD: Final = Cost(requests=range(8, 30), sent=range(60, 115), paid=20)
# One attempt and one control prove it.
HELD_AT_ONCE: Final = Cost(requests=range(6, 30), sent=range(40, 65), paid=20)


def once(row_id: str, injected: str, cost: Cost = AGAIN, *, at_least_s: float = 0.0, **action: Any) -> Row:
    """A row in which only the first request fails."""
    return Row(id=row_id, injected=injected, faults=[fault(**action)], cost=cost, at_least_s=at_least_s)


def for_good(
    row_id: str,
    injected: str,
    holds: str,
    cost: Cost = HELD,
    *,
    settings: Mapping[str, str] | None = None,
    **action: Any,
) -> Row:
    """A row in which every request fails until the breaker is open and a probe has failed."""
    return Row(
        id=row_id,
        injected=f"{injected}, until the worker has sent probes",
        faults=[fault(times=ALWAYS, **action)],
        settings=settings or {},
        holds=holds,
        cost=cost,
    )


# --- actions during a row


def a_date_in_two_seconds(case: Case) -> None:
    case.simulator.add_fault(**fault(status=429, retry_after=formatdate(time.time() + 2, usegmt=True)))


def no_request_before_retry_after(case: Case) -> None:
    date = parsedate_to_datetime(case.simulator.faults()[0]["action"]["retry_after"])
    assert case.stats.last_request_at_ms is not None
    assert case.stats.last_request_at_ms >= date.timestamp() * 1000


def no_probe_came_before_three_seconds(case: Case) -> None:
    [since] = [line["since"] for line in case.journal if line["event"] == "circuit opened"]
    assert case.stats.last_request_at_ms is not None
    assert case.stats.last_request_at_ms >= datetime.fromisoformat(since).timestamp() * 1000 + 3_000


def stop_listening(case: Case) -> None:
    case.await_start()
    case.simulator.stop()
    case.feed(batch(20))


def listen_again(case: Case) -> None:
    case.simulator.start()
    case.configure()


def a_redirect(case: Case) -> None:
    headers = {"Location": f"{case.simulator.base_url}/elsewhere"}
    case.simulator.add_fault(**fault(times=ALWAYS, status=302, headers=headers))


def redirect_not_followed(case: Case) -> None:
    assert "other" not in case.stats.requests


ONCE: Final = (
    once("408", "the first request is a 408", status=408),
    once("429", "the first request is a 429 without `Retry-After`", status=429),
    once("429-seconds", "the first request is a 429, `Retry-After: 1`", at_least_s=1.0, status=429, retry_after=1),
    Row(
        id="429-date",
        injected="the first request is a 429, `Retry-After` a date 2 s ahead (whole seconds)",
        prepare=a_date_in_two_seconds,
        check=no_request_before_retry_after,
        cost=AGAIN,
    ),
    once("500", "the first request is a 500", status=500),
    once("502-html", "the first request is a 502 with HTML", status=502, body="html"),
    once("503", "the first request is a 503", status=503),
    once("503-seconds", "the first request is a 503, `Retry-After: 1`", at_least_s=1.0, status=503, retry_after=1),
    once("504-html", "the first request is a 504 with HTML", status=504, body="html"),
    once("500-cut", "the first request is a 500 whose body is cut off", status=500, transfer="cut"),
    once("dropped-before", "the connection is reset before the first request is worked on", drop="before"),
    once(
        "dropped-after", "the connection is reset when the first request has been worked on", PAID_TWICE, drop="after"
    ),
    Row(
        id="time-out",
        injected="the first answer takes 1.2 s, `genesys.timeout_s` 0.6",
        faults=[fault(delay_ms=1200)],
        settings={"genesys__timeout_s": "0.6"},
        # The two halves.
        cost=Cost(requests=3, sent=40, paid=40, twice=20),
    ),
    Row(
        id="429-five-times",
        injected="the first five requests are a 429",
        faults=[fault(times=5, status=429)],
        cost=Cost(requests=6, sent=120, paid=20),
    ),
    Row(
        id="429-while-others-are-answered",
        injected="five requests for one model version are a 429, every other is answered",
        feed=(*contacts(10, 1, "A"), *(contact(f"B-{n}", model_version="v2") for n in range(10))),
        faults=[fault(times=5, status=429, model_version="v2")],
        cost=Cost(requests=7, sent=70, paid=20),
    ),
)

FOR_GOOD: Final = (
    for_good("503-for-good", "every request is a 503", "HTTP 503", status=503),
    for_good("reset-for-good", "every connection is reset", "127.0.0.1", drop="before"),
    for_good(
        "time-out-for-good",
        "every answer takes 0.6 s, `genesys.timeout_s` 0.3",
        "0.3 s",
        Cost(requests=range(8, 40), sent=range(61, 200), paid=range(61, 200), twice=range(41, 180)),
        settings={"genesys__timeout_s": "0.3"},
        delay_ms=600,
    ),
    Row(
        id="500-to-everything",
        injected="every request about three batches of 20 is a 500, until the worker has sent probes",
        feed=batch(60),
        faults=[fault(times=ALWAYS, status=500)],
        settings={"scoring__max_contacts": "20"},
        holds="HTTP 500",
        cost=Cost(requests=range(6, 40), sent=range(121, 400), paid=60),
    ),
    Row(
        id="refused",
        injected="no process listens once the worker has started; when the breaker is open, the API is started",
        feed=(),
        settings={"scoring__max_contacts": "20"},
        act=stop_listening,
        holds="refused",
        recover=listen_again,
        # A restarted simulator has no tokens: a 401, the successful probe, and the other 19.
        cost=Cost(requests=range(6, 9), sent=21, paid=20),
    ),
    Row(
        id="hold-until-retry-after",
        injected="the first two requests are a 503, `Retry-After: 3`; `genesys.max_retries` 0, a probe every 0.2 s",
        faults=[fault(times=2, status=503, retry_after=3)],
        settings={"genesys__max_retries": "0"},
        holds="HTTP 503",
        check=no_probe_came_before_three_seconds,
        cost=Cost(requests=range(5, 10), sent=range(40, 44), paid=20),
    ),
    Row(
        id="retry-after-of-one-request",
        injected="the first request is a 503, `Retry-After: 600`; `genesys.max_retries` 0",
        faults=[fault(status=503, retry_after=600)],
        settings={"genesys__max_retries": "0"},
        # It alone would wait so long, but a control succeeds: the rest is bisected at once.
        cost=Cost(requests=range(2, 12), sent=range(39, 60), paid=range(20, 24), twice=range(4)),
    ),
)

UNEXPECTED: Final = (
    Row(
        id="redirect",
        injected="every request is a 302 to another place, until the worker has sent probes",
        prepare=a_redirect,
        holds="HTTP 302",
        check=redirect_not_followed,
        cost=HELD_AT_ONCE,
    ),
    for_good("304", "every request is a 304", "HTTP 304", HELD_AT_ONCE, status=304),
    for_good("402", "every request is a 402", "HTTP 402", HELD_AT_ONCE, status=402),
    for_good("418", "every request is a 418", "HTTP 418", HELD_AT_ONCE, status=418),
)
ROWS: Final = (*ONCE, *FOR_GOOD, *UNEXPECTED)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
