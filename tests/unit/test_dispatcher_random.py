"""The dispatcher against random faults of the API: no good contact is rejected, and each comes out exactly once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
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
from support_dispatcher import World, names, numbered, ok

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_scorer.core.events import Answer
    from stream_scorer.core.request import Request

FAULTS: dict[str, Callable[[Request], Answer]] = {
    "400": lambda _: refused(),
    "400 that names all": lambda request: refused(*names(request)),
    "403 of a gateway": lambda _: forbidden(platform_error=False),
    "403 of the platform": lambda _: forbidden(),
    "404": lambda _: not_found(),
    "413": lambda _: too_large(),
    "302": lambda _: unexpected(302),
    "empty": lambda _: answered([]),
    "half": lambda request: answered(names(request)[::2]),
    "503": lambda _: server_error(503),
    "503 with Retry-After": lambda _: server_error(503, 30.0),
    "429": lambda _: rate_limited(),
    "time-out": lambda _: timed_out(),
    "cut": lambda _: cut_off(),
    "no JSON": lambda _: malformed(),
    "no connection": lambda _: no_connection(),
    "no token": lambda _: no_token(),
}


class Api:
    """Healthy, but from ``begins`` on for ``lasts`` seconds a share of the requests fails, perhaps on and off."""

    def __init__(self, fault: str, *, share: float, begins: float, lasts: float, flaps: float, seed: int) -> None:
        self._fault = FAULTS[fault]
        self._share = share
        self._window = (1_000.0 + begins, 1_000.0 + begins + lasts)
        self._flaps = flaps
        self._random = random.Random(seed)  # noqa: S311 - a test's own chance
        self.world: World | None = None

    def __call__(self, request: Request) -> Answer:
        assert self.world is not None
        now, (begins, ends) = self.world.now, self._window
        is_off = self._flaps > 0 and (now - begins) % (2 * self._flaps) >= self._flaps
        if not begins <= now < ends or is_off or self._random.random() >= self._share:
            return ok(request)
        return self._fault(request)


@settings(max_examples=60, deadline=None)
@given(
    fault=st.sampled_from(sorted(FAULTS)),
    share=st.sampled_from([0.01, 0.3, 0.48, 1.0]),
    flaps=st.sampled_from([0.0, 3.0, 20.0]),
    begins=st.integers(2, 60),
    lasts=st.sampled_from([3, 15, 60]),
    contacts=st.sampled_from([1, 20, 200]),
    max_contacts=st.sampled_from([1, 7, 1_000]),
    slots=st.sampled_from([1, 2, 8]),
    seed=st.integers(0, 1_000),
)
@example(fault="503", share=0.5, flaps=0.0, begins=12, lasts=20, contacts=20, max_contacts=1_000, slots=2, seed=127)
def test_a_fault_of_the_api_rejects_no_contact(  # noqa: PLR0917 - what hypothesis draws
    fault: str,
    share: float,
    flaps: float,
    begins: int,
    lasts: int,
    contacts: int,
    max_contacts: int,
    slots: int,
    seed: int,
) -> None:
    """From the middle of a run a share of all requests fails, whatever contacts they have."""
    api = Api(fault, share=share, begins=float(begins), lasts=float(lasts), flaps=flaps, seed=seed)
    world = World(api, max_contacts=max_contacts, slots=slots)
    api.world = world
    world.feed(["first"])
    wanted, parts = numbered(contacts), 12
    for part in range(parts):
        world.run((begins + lasts) / parts, step_s=0.25)
        world.feed(wanted[part * contacts // parts : (part + 1) * contacts // parts])
    world.finish(within_s=12_000.0, step_s=0.25)
    assert set(world.results.values()) == {"scored"}
    assert sorted(world.results) == sorted(["first", *wanted])
    assert len(world.outcomes) == contacts + 1
    assert world.breaker.open_state is None


@settings(max_examples=6, deadline=None)
@given(share=st.sampled_from([0.2, 0.6, 0.9]), lasts=st.sampled_from([20, 60]), contacts=st.sampled_from([30, 900]))
def test_a_shard_that_leaves_its_ids_out_rejects_none(share: float, lasts: int, contacts: int) -> None:
    """The same ids have no result for a while: every other result is kept, and they are scored afterwards."""
    left_out = {name for number, name in enumerate(numbered(contacts)) if number < share * contacts}

    def api(request: Request) -> Answer:
        is_broken = world.now < 1_000.0 + lasts
        return answered(name for name in names(request) if not (is_broken and name in left_out))

    world = World(api)
    world.feed(numbered(contacts))
    world.run(float(lasts), step_s=0.25)
    assert set(world.results) == set(numbered(contacts)) - left_out
    world.finish(within_s=12_000.0, step_s=0.25)
    assert list(world.results.values()) == ["scored"] * contacts


@settings(max_examples=12, deadline=None)
@given(
    kinds=st.lists(
        st.sampled_from(["good"] * 12 + ["refused", "named", "left out", "poison", "too large"]),
        min_size=1,
        max_size=40,
    ),
    max_contacts=st.sampled_from([1, 5, 16]),
    slots=st.integers(1, 4),
)
def test_each_bad_contact_is_found_and_no_other_suffers(kinds: list[str], max_contacts: int, slots: int) -> None:
    wanted = numbered(len(kinds))
    kind_of = dict(zip(wanted, kinds, strict=True))

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
        return answered(name for name in names(request) if kind_of.get(name) != "left out")

    world = World(api, max_contacts=max_contacts, slots=slots, max_refused_share=1.0)
    world.feed(["company"])
    world.settle()
    world.feed(wanted)
    world.finish(within_s=200_000.0, step_s=0.25)
    expected = {"good": "scored", "left out": "no_result", "too large": "too_large"}
    assert world.results == {"company": "scored"} | {
        name: expected.get(kind, "refused_by_api") for name, kind in kind_of.items()
    }
