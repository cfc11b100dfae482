"""The dispatcher against APIs that hypothesis makes up: nobody is lost, and nobody pays for what the API does."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from support_core import (
    answered,
    malformed,
    no_connection,
    no_token,
    rate_limited,
    refused,
    server_error,
    timed_out,
    too_large,
    unexpected,
)
from support_dispatcher import Sent, World, always, names, numbered, ok

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.events import Answer
    from stream_scorer.core.request import Request

OUTAGES: dict[str, Answer] = {
    "503": server_error(503),
    "503, come back later": server_error(503, 30.0),
    "429": rate_limited(),
    "429, come back later": rate_limited(90.0),
    "no connection": no_connection(),
    "no token": no_token(),
    "time-out": timed_out(),
    "no JSON": malformed(),
    "redirect": unexpected(302),
}
BEHAVIOURS: dict[str, Callable[[Request], Answer]] = {
    "ok": ok,
    "left out": lambda request: answered(names(request)[::2]),
    "refused": lambda request: refused(names(request)[0]),
    **{kind: always(answer) for kind, answer in OUTAGES.items()},
}
quick = settings(max_examples=60, deadline=None)


class Account:
    """An API behind which every question and every score is counted."""

    def __init__(self) -> None:
        self.questions: Counter[str] = Counter()
        self.scores: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def answer(self, request: Request, given: list[str]) -> Answer:
        self.scores.update(given)
        self.left_out.update(set(names(request)) - set(given))
        return answered(given)


@quick
@given(
    outages=st.lists(st.tuples(st.sampled_from(sorted(OUTAGES)), st.integers(60, 900)), min_size=1, max_size=4),
    contacts=st.integers(1, 60),
    max_contacts=st.integers(1, 20),
    slots=st.integers(1, 8),
    pace=st.tuples(st.sampled_from([0.02, 0.3, 5.0]), st.integers(0, 4)),
)
def test_an_outage_rejects_nobody_and_buys_nothing_twice(
    outages: list[tuple[str, int]], contacts: int, max_contacts: int, slots: int, pace: tuple[float, int]
) -> None:
    account = Account()
    latency_s, max_retries = pace
    failure: Answer | None = None

    def api(request: Request) -> Answer:
        return account.answer(request, names(request)) if failure is None else failure

    world = World(api, max_contacts=max_contacts, slots=slots, latency_s=latency_s, max_retries=max_retries)
    wanted = numbered(contacts)
    for kind, seconds in outages:
        failure = OUTAGES[kind]
        world.feed(wanted[: len(wanted) // 2])
        wanted = wanted[len(wanted) // 2 :]
        world.run(float(seconds), step_s=0.25)
        failure = None
        world.run(60.0, step_s=0.25)
    world.feed(wanted)
    world.finish(within_s=600.0)
    assert set(world.results.values()) == {"scored"}
    assert len(world.results) == contacts
    assert set(account.scores.values()) == {1}
    assert world.breaker.open_state is None
    assert not world.dispatcher.waiting


@quick
@given(
    kinds=st.lists(
        st.sampled_from(["good"] * 12 + ["refused", "named", "left out", "poison", "too large"]),
        min_size=1,
        max_size=40,
    ),
    max_contacts=st.integers(1, 16),
    slots=st.integers(1, 4),
)
def test_each_bad_contact_is_found_and_no_other_suffers(kinds: list[str], max_contacts: int, slots: int) -> None:
    account = Account()
    wanted = [f"c{number}" for number in range(len(kinds))]
    kind_of = dict(zip(wanted, kinds, strict=True))
    company = numbered(250, "company")

    def api(request: Request) -> Answer:  # the order is what a server would check first
        of = {kind_of.get(name, "good") for name in names(request)}
        if "too large" in of:
            return too_large()
        if "named" in of:
            return refused(*[name for name in names(request) if kind_of.get(name) == "named"])
        if "refused" in of:
            return refused()
        if "poison" in of:
            return server_error(500)
        given = [name for name in names(request) if kind_of.get(name) != "left out"]
        # A probe that is left out only proves nothing; it is no question by the rule of two.
        return account.answer(request, given) if world.breaker.open_state is None or given else answered([])

    world = World(api, max_contacts=max_contacts, slots=slots)
    world.feed(wanted)
    for one in company:  # life goes on: that is how a bad contact differs from an outage
        world.run(2.0, step_s=0.25)
        if world.breaker.open_state is None or world.dispatcher.all_probed:
            world.feed([one])
    world.finish(within_s=3_000.0)
    expected = {"good": "scored", "left out": "no_result", "too large": "too_large"}
    assert {name: world.results[name] for name in wanted} == {
        name: expected.get(kind, "refused_by_api") for name, kind in kind_of.items()
    }
    assert all(world.results[name] == "scored" for name in world.results if name not in kind_of)
    good = [name for name in world.results if world.results[name] == "scored"]
    assert all(account.scores[name] == 1 for name in good)
    assert all(account.left_out[name] == 2 for name, kind in kind_of.items() if kind == "left out")


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What happens: contacts come, partitions go and come, the API changes its mind, time passes."""
    step = st.one_of(
        st.tuples(st.sampled_from(["feed", "disown", "own"]), st.integers(0, 2)),
        st.tuples(st.sampled_from([*sorted(BEHAVIOURS), "slow", "fast"]), st.just(0)),
        st.tuples(st.just("run"), st.integers(1, 60)),
    )
    return draw(st.lists(step, max_size=25))


def happen(world: World, what: str, number: int) -> None:
    match what:
        case "feed":
            fed = sum(map(len, world.topic.values()))
            world.produce([f"c{one}" for one in range(fed, fed + 7)], number)
        case "own":
            if number not in world.position:
                world.own(number)
            world.read(number)
        case "disown":
            if number in world.position:
                world.disown(number)
        case "run":
            world.run(float(number), step_s=0.25)
        case "slow" | "fast":
            world.latency_s = 20.0 if what == "slow" else 0.05
        case _:
            world.api = BEHAVIOURS[what]


def check_sent(world: World, budget: int | None) -> None:
    """The spend ceiling holds in any minute, and a request's attempts are counted and apart."""
    attempts: dict[str, Sent] = {}
    for sent in world.sent:
        if budget is not None:
            minute = [one for one in world.sent if sent.at <= one.at and sent.at + 60.0 > one.at]
            assert sum(len(one.names) for one in minute) <= budget
        previous = attempts.get(sent.request.batch_id)
        assert sent.request.attempts == (1 if previous is None else previous.request.attempts + 1)
        assert previous is None or sent.at > previous.at
        attempts[sent.request.batch_id] = sent


@settings(max_examples=120, deadline=None)
@given(
    history=histories(), max_contacts=st.integers(1, 8), slots=st.integers(1, 4), budget=st.sampled_from([None, 5, 60])
)
def test_whatever_happens_every_contact_comes_out_once(
    history: list[tuple[str, int]], max_contacts: int, slots: int, budget: int | None
) -> None:
    """`World` fails by itself where a record is asked about twice at once, or twice in one request."""
    world = World(max_contacts=max_contacts, slots=slots, max_contacts_per_minute=budget)
    for what, number in history:
        happen(world, what, number)
    world.api = ok
    for partition in range(3):
        if partition not in world.position:
            world.own(partition)
        world.read(partition)
    world.finish(within_s=900.0)
    assert sorted(outcome.record.value or b"" for outcome in world.outcomes) == sorted(
        one.value or b"" for log in world.topic.values() for one in log
    )
    check_sent(world, budget)
    assert not world.ledger._orphans
    assert world.dispatcher.waiting == world.dispatcher.in_flight == world.batcher.waiting == 0
