"""The dispatcher against APIs that hypothesis makes up: each contact comes out once, and no good one is rejected.

`make test` tries the same examples each time, `make fuzz` tries others. `DispatcherHarness` fails by itself where a
record is sent twice at once, twice in one request, or after its commit.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from dispatcher_harness import RETRY_DELAYS_S, DispatcherHarness, always, names, numbered, ok, poisoned
from hypothesis import example, given
from hypothesis import strategies as st
from support_core import (
    answered,
    cut_off,
    forbidden,
    malformed,
    no_connection,
    no_token,
    not_found,
    rate_limited,
    refused,
    server_error,
    timed_out,
    too_large,
    unexpected,
)
from support_fuzz import fuzz

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher_harness import Sent

    from stream_scorer.core.scoring.api_response import ApiResponse
    from stream_scorer.core.scoring.request import Request

OUTAGES: dict[str, ApiResponse] = {
    "400": refused(),
    "403": forbidden(),
    "404": not_found(),
    "413": too_large(),
    "500": server_error(500),
    "503": server_error(503),
    "503, come back later": server_error(503, 30.0),
    "empty": answered([]),
    "429": rate_limited(),
    "429, come back later": rate_limited(90.0),
    "no connection": no_connection(),
    "no token": no_token(),
    "time-out": timed_out(),
    "cut off": cut_off(),
    "no JSON": malformed(),
    "redirect": unexpected(302),
}
FAULTS: dict[str, Callable[[Request], ApiResponse]] = {
    "400 that names all": lambda request: refused(*names(request)),
    "400 that names one": lambda request: refused(
        names(request)[zlib.crc32(request.batch_id.encode()) % len(names(request))]
    ),
    "partial": lambda request: answered(names(request)[::2]),
    **{kind: always(answer) for kind, answer in OUTAGES.items()},
}
SHORT_DELAYS_S = (5.0, 20.0, 60.0)


class Account:
    """An API behind which every request but controls is counted, contact by contact."""

    def __init__(self) -> None:
        self.scores: Counter[str] = Counter()

    def answer(self, request: Request, given: list[str]) -> ApiResponse:
        if not request.is_control:
            self.scores.update(given)
        return answered(given)


# --- faults from the middle of a run


class Plan(NamedTuple):
    """When an API fails: with a probability for each request, in turns of so many seconds, or for ids of one shard."""

    kinds: list[str]
    probability: float
    turn_s: float | None
    shard: int | None


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    kinds = draw(st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=3))
    how = draw(st.sampled_from(["at random", "in turns", "by shard"]))
    return Plan(
        kinds,
        draw(st.sampled_from([0.01, 0.3, 0.48])) if how == "at random" else 1.0,
        draw(st.sampled_from([3.0, 20.0])) if how == "in turns" else None,
        draw(st.integers(0, 9)) if how == "by shard" else None,
    )


class Faulty:
    """The API of a plan; it is healthy until ``is_on``."""

    def __init__(self, world: DispatcherHarness, plan: Plan, seed: int) -> None:
        self._world = world
        self._plan = plan
        self._dice = random.Random(seed)  # noqa: S311 - repeatable
        self.is_on = False

    def __call__(self, request: Request) -> ApiResponse:
        plan, dice = self._plan, self._dice
        if not self.is_on:
            return ok(request)
        if plan.shard is not None:
            return answered([name for name in names(request) if zlib.crc32(name.encode()) % 10 != plan.shard])
        if plan.turn_s is not None and self._world.now // plan.turn_s % 2:
            return ok(request)
        if dice.random() >= plan.probability:
            return ok(request)
        return FAULTS[dice.choice(plan.kinds)](request)


@fuzz(60)
@given(
    plan=plans(),
    seed=st.integers(0, 2**32),
    max_contacts=st.sampled_from([1, 20, 1_000]),
    trickle=st.booleans(),
    partitions=st.integers(1, 3),
    lasts=st.sampled_from([60.0, 150.0]),
    slots=st.sampled_from([1, 8]),
)
def test_faults_from_the_middle_of_a_run_reject_no_contact(
    plan: Plan, seed: int, max_contacts: int, *, trickle: bool, partitions: int, lasts: float, slots: int
) -> None:
    """With short delays, a good contact of a broken shard fails in each round; at 0.48, one of 100,000 does."""
    is_long = plan.shard is not None or plan.probability == 0.48
    delays = RETRY_DELAYS_S if is_long else SHORT_DELAYS_S
    world = DispatcherHarness(max_contacts=max_contacts, slots=slots, retry_delays_s=delays)
    for partition in range(1, partitions):
        world.own(partition)
    world.feed(numbered(5, "before"))
    world.finish()
    world.api = faulty = Faulty(world, plan, seed)
    faulty.is_on = True
    wanted = iter(numbered({1: 60, 20: 400}.get(max_contacts, 1_100)))
    ends = world.now + lasts
    while world.now < ends:
        fed = 0
        while fed < (1 if trickle else 1_000) and (name := next(wanted, None)) is not None:
            world.feed([name], fed % partitions)
            fed += 1
        world.run(1.0, step_s=0.25)
    faulty.is_on = False
    world.feed(wanted)
    world.finish(within_s=9_000.0, step_s=0.25)
    assert set(world.results.values()) == {"scored"}
    check_published(world)


def check_published(world: DispatcherHarness) -> None:
    """Every record of the topic has one outcome that is no deferral."""
    done = [outcome.record.source for outcome in world.outcomes]
    assert sorted(done) == sorted(one.source for log in world.topic.values() for one in log)
    assert not world.dispatcher.waiting
    assert not world.dispatcher.batched


@fuzz(25)
@given(
    contacts=st.integers(8, 60),
    poison=st.integers(0, 59),
    begins=st.integers(0, 200),
    lasts=st.integers(20, 300),
    slots=st.sampled_from([1, 2, 8]),
)
@example(contacts=21, poison=0, begins=127, lasts=20, slots=2)
def test_an_outage_in_the_middle_of_an_isolation_rejects_none_but_the_poison(
    contacts: int, poison: int, begins: int, lasts: int, slots: int
) -> None:
    bad = f"c{poison % contacts}"
    world = DispatcherHarness(poisoned(bad), slots=slots)
    world.feed(numbered(contacts))
    world.run(float(begins), step_s=0.25)
    before = dict(world.results)
    world.api = always(server_error(500))
    world.run(float(lasts), step_s=0.25)
    assert world.results == before | {name: "scored" for name in world.results if name not in before}
    world.api = poisoned(bad)
    world.feed(["later"])
    world.finish(within_s=9_000.0, step_s=0.25)
    assert {name: result for name, result in world.results.items() if result != "scored"} == {bad: "refused_by_api"}
    check_published(world)


@fuzz(40)
@given(
    outages=st.lists(st.tuples(st.sampled_from(sorted(OUTAGES)), st.integers(60, 600)), min_size=1, max_size=3),
    contacts=st.integers(1, 60),
    max_contacts=st.integers(1, 20),
    slots=st.integers(1, 8),
    pace=st.tuples(st.sampled_from([0.02, 0.3, 5.0]), st.integers(0, 4)),
)
def test_an_outage_rejects_no_contact_and_buys_none_twice(
    outages: list[tuple[str, int]], contacts: int, max_contacts: int, slots: int, pace: tuple[float, int]
) -> None:
    account = Account()
    latency_s, max_retries = pace
    failure: ApiResponse | None = None

    def api(request: Request) -> ApiResponse:
        return account.answer(request, names(request)) if failure is None else failure

    world = DispatcherHarness(api, max_contacts=max_contacts, slots=slots, latency_s=latency_s, max_retries=max_retries)
    world.feed(["before"])
    world.finish()
    wanted = numbered(contacts)
    for kind, seconds in outages:
        failure = OUTAGES[kind]
        world.feed(wanted[: len(wanted) // 2])
        wanted = wanted[len(wanted) // 2 :]
        world.run(float(seconds), step_s=0.25)
        failure = None
        world.run(60.0, step_s=0.25)
    world.feed(wanted)
    world.finish(within_s=1_200.0, step_s=0.25)
    assert set(world.results.values()) == {"scored"}
    assert len(world.results) == contacts + 1
    assert set(account.scores.values()) == {1}
    assert world.breaker.open_state is None
    check_published(world)


@fuzz(40)
@given(
    kinds=st.lists(
        st.sampled_from(["good"] * 12 + ["refused", "named", "left out", "poison", "too large"]),
        min_size=1,
        max_size=20,
    ),
    max_contacts=st.integers(1, 16),
    slots=st.integers(1, 4),
)
def test_each_bad_contact_is_found_and_no_other_suffers(kinds: list[str], max_contacts: int, slots: int) -> None:
    account = Account()
    wanted = [f"c{number}" for number in range(len(kinds))]
    kind_of = dict(zip(wanted, kinds, strict=True))

    def api(request: Request) -> ApiResponse:  # the order is what a server would check first
        of = {kind_of.get(name, "good") for name in names(request)}
        if "too large" in of:
            return too_large()
        if "named" in of:
            return refused(*[name for name in names(request) if kind_of.get(name) == "named"])
        if "refused" in of:
            return refused()
        if "poison" in of:
            return server_error(500)
        return account.answer(request, [name for name in names(request) if kind_of.get(name) != "left out"])

    world = DispatcherHarness(api, max_contacts=max_contacts, slots=slots, retry_delays_s=(5.0, 20.0, 60.0))
    world.feed(wanted)
    world.feed(["company"])
    world.finish(within_s=3_000.0, step_s=0.1)
    expected = {"good": "scored", "left out": "no_result", "too large": "too_large"}
    assert {name: world.results[name] for name in wanted} == {
        name: expected.get(kind, "refused_by_api") for name, kind in kind_of.items()
    }
    assert all(account.scores[name] == 1 for name in world.results if world.results[name] == "scored")
    check_published(world)


# --- histories


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """What happens: contacts come, partitions go and come, the API changes its mind, time passes."""
    step = st.one_of(
        st.tuples(st.sampled_from(["feed", "disown", "own"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["ok", *sorted(FAULTS), "slow", "fast"]), st.just(0)),
        st.tuples(st.just("run"), st.integers(1, 60)),
    )
    return draw(st.lists(step, max_size=25))


def happen(world: DispatcherHarness, what: str, number: int) -> None:
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
        case "ok":
            world.api = ok
        case _:
            world.api = FAULTS[what]


def check_sent(world: DispatcherHarness, ceiling: int | None) -> None:
    """The spend limit holds in any minute, and a request's attempts are counted and apart."""
    attempts: dict[str, Sent] = {}
    for sent in world.sent:
        if ceiling is not None:
            minute = [one for one in world.sent if sent.at <= one.at and sent.at + 60.0 > one.at]
            assert sum(len(one.names) for one in minute) <= ceiling
        previous = attempts.get(sent.request.batch_id)
        assert sent.request.attempts == (1 if previous is None else previous.request.attempts + 1)
        assert previous is None or sent.at > previous.at
        attempts[sent.request.batch_id] = sent


@fuzz(80)
@given(
    history=histories(), max_contacts=st.integers(1, 8), slots=st.integers(1, 4), ceiling=st.sampled_from([None, 5, 60])
)
def test_whatever_happens_every_contact_comes_out_once(
    history: list[tuple[str, int]], max_contacts: int, slots: int, ceiling: int | None
) -> None:
    world = DispatcherHarness(max_contacts=max_contacts, slots=slots, max_contacts_per_minute=ceiling)
    world.feed(["before"])
    world.finish()
    for what, number in history:
        happen(world, what, number)
    world.api = ok
    for partition in range(3):
        if partition not in world.position:
            world.own(partition)
        world.read(partition)
    world.finish(within_s=9_000.0, step_s=0.25)
    check_sent(world, ceiling)
    check_published(world)
    assert set(world.results.values()) == {"scored"}
    assert not world.ledger._orphans
    assert not world.dispatcher.in_flight
