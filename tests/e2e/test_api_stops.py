"""Contract section 5, second table: 401, 403, 404 and the token endpoint: which failures stop the worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import pytest
from scoring_harness import contact, contacts
from support_behaviour import Cost, Row, cases, fault

from stream_scorer.local.simulator import SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from support_behaviour_play import Case

pytestmark = pytest.mark.kafka

ALWAYS: Final = None
ONCE: Final = Cost(requests=1, sent=20, paid=20)
NONE: Final = Cost(requests=0, sent=0, paid=0)
CHECK: Final = Cost(requests=1, sent=0, paid=0)
FIRST, SECOND = "first", "second"


def stops(
    row_id: str,
    injected: str,
    line: str,
    cost: Cost,
    *,
    faults: tuple[dict[str, Any], ...] = (),
    api: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
    version: str | None = None,
) -> Row:
    """A row in which the worker has to exit with this line; ``version``: the model version of every event."""
    return Row(
        id=row_id,
        injected=injected,
        feed=tuple(contact(f"V-{n}", model_version=version) for n in range(20)),
        faults=faults,
        api=api or {},
        settings=settings or {},
        stops=line,
        cost=cost,
    )


def token_fails(row_id: str, injected: str, **action: Any) -> Row:
    """A row in which only the first token request fails."""
    return Row(
        id=row_id,
        injected=injected,
        faults=[fault(path="token", **action)],
        settings={"genesys__token_timeout_s": "0.6"},
        check=two_token_requests,
        cost=ONCE,
    )


# --- actions during a row


def tokens_are_revoked(case: Case) -> None:
    case.await_committed(20)
    case.simulator.revoke_tokens()
    case.feed(contacts(20, 1, SECOND))


def the_token_grows_old(case: Case) -> None:
    """The token is valid for 2 s: the worker has to renew it after 1 s."""
    case.await_committed(20)
    first_at_ms = case.simulator.stats().first_request_at_ms or 0
    case.wait(lambda: time.time_ns() // 1_000_000 - first_at_ms > 1_100, "the token to grow old")
    case.feed(contacts(20, 1, SECOND))


def two_token_requests(case: Case) -> None:
    case.wait(lambda: sum(case.simulator.stats().requests["token"].values()) == 2, "both token requests to have ended")


def two_tokens(case: Case) -> None:
    assert case.stats.tokens_issued == 2


def no_more_tokens(case: Case) -> None:
    case.await_committed(20)
    case.simulator.add_fault(path="token", times=ALWAYS, status=503)
    case.simulator.revoke_tokens()
    case.feed(contacts(20, 1, SECOND))


def waits_because_of(reason: str) -> Callable[[Case], None]:
    """The start is delayed for this reason, until the faults end."""

    def act(case: Case) -> None:
        case.await_delayed_start(reason)
        case.simulator.clear_faults()

    return act


def refuse_connections(case: Case) -> None:
    case.simulator.stop()


def the_api_is_started(case: Case) -> None:
    case.await_delayed_start("refused")
    case.simulator.start()
    case.configure()


def the_scope_is_taken_away(case: Case) -> None:
    case.await_committed(20)
    case.simulator.configure(scopes=[])
    case.feed(contacts(20, 1, SECOND))


def the_scope_is_given_back(case: Case) -> None:
    case.simulator.configure(scopes=SimulatorConfig().scopes)


UNAUTHORIZED: Final = (
    Row(
        id="401-once",
        injected="the first request is a 401, though the token is new",
        faults=[fault(status=401)],
        check=two_tokens,
        cost=Cost(requests=2, sent=40, paid=20),
    ),
    Row(
        id="token-revoked",
        injected="when 20 contacts are scored, the token is revoked; 20 more",
        act=tokens_are_revoked,
        check=two_tokens,
        cost=Cost(requests=3, sent=60, paid=40),
    ),
    Row(
        id="token-expires",
        injected="when 20 contacts are scored, the token of 2 s is over 1 s old; 20 more",
        api={"expires_in": 2},
        act=the_token_grows_old,
        check=two_tokens,
        cost=Cost(requests=2, sent=40, paid=40),
    ),
    stops(
        "401-twice",
        "every request is a 401, whatever the token",
        "takes no token",
        Cost(requests=2, sent=40, paid=0),
        faults=(fault(status=401, times=ALWAYS),),
    ),
)

STOPS: Final = (
    stops(
        "403",
        "the client lacks the scope",
        "predictiveengagement:score",
        CHECK,
        api={"scopes": []},
    ),
    Row(
        id="403-later",
        injected="when 20 contacts are scored, the scope is taken away; 20 more; when the circuit breaker is open, it"
        " is given back",
        act=the_scope_is_taken_away,
        holds="predictiveengagement:score",
        recover=the_scope_is_given_back,
        cost=Cost(requests=range(7, 24), sent=range(60, 90), paid=range(40, 44), twice=range(4)),
    ),
    stops(
        "404-model",
        "the API does not have the model of the settings",
        "'no-such-model'",
        CHECK,
        settings={"genesys__model_id": "no-such-model"},
    ),
    stops(
        "404-version",
        "the API does not have the model version of the settings",
        "version",
        Cost(requests=1, sent=20, paid=0),
        settings={"genesys__model_version": "v9"},
    ),
    stops(
        "404-model-of-events-with-versions",
        "the API does not have the model of the settings, and every event brings a good model version",
        "'no-such-model'",
        CHECK,
        settings={"genesys__model_id": "no-such-model"},
        version="v1",
    ),
    Row(
        id="404-version-of-an-event",
        injected="4 of 20 events bring a model version that the API does not have",
        feed=(*contacts(16, 1), *(contact(f"V-{n}", model_version="v9") for n in range(4))),
        rejected={f"V-{n}": ("unknown_model_version",) for n in range(4)},
        status="404",
        # The four together once and in each round, then each alone three times; the rest are controls.
        cost=Cost(requests=range(20, 34), sent=range(44, 60), paid=range(20, 32), twice=range(4, 16)),
    ),
)

TOKEN: Final = (
    stops(
        "token-400",
        "the login service does not know the client",
        "genesys.client_id",
        NONE,
        settings={"genesys__client_id": "unknown-client"},
    ),
    stops(
        "token-401", "the secret is wrong", "genesys.client_secret", NONE, settings={"genesys__client_secret": "wrong"}
    ),
    token_fails("token-500", "the first token request is a 500", status=500),
    token_fails("token-503-html", "the first token request is a 503 with HTML", status=503, body="html"),
    token_fails("token-429", "the first token request is a 429, `Retry-After: 1`", status=429, retry_after=1),
    token_fails("token-403", "the first token request is a 403", status=403),
    token_fails("token-html", "the first token request is a 200 with HTML", status=200, body="html"),
    token_fails("token-no-token", "the first token request is a 200 without a token", status=200, body="{}"),
    token_fails("token-dropped", "the connection of the first token request is reset", drop="before"),
    token_fails("token-cut", "the first token is cut off", transfer="cut"),
    token_fails("token-time-out", "the first token takes 1.2 s, `genesys.token_timeout_s` 0.6", delay_ms=1200),
    Row(
        id="token-503-for-good",
        injected="when 20 contacts are scored, tokens are revoked and every token request is a 503, until the worker"
        " has sent probes; 20 more",
        act=no_more_tokens,
        holds="no token: the login service answers HTTP 503",
        # The first 20, the 401, the probe that is answered, and the other 19 in steps.
        cost=Cost(requests=range(7, 10), sent=range(60, 64), paid=range(40, 44), twice=range(4)),
    ),
)


def waits(row_id: str, injected: str, reason: str, cost: Cost = ONCE, **words: Any) -> Row:
    """A row in which the check of the model fails for this reason, until the start is delayed."""
    # Not `fault`, which does not apply to the check.
    faults = [{"times": ALWAYS, **words}]
    injected = f"{injected}, until the start is delayed"
    return Row(id=row_id, injected=injected, faults=faults, act=waits_because_of(reason), cost=cost)


FAILED_CHECKS: Final = Cost(requests=range(2, 40), sent=20, paid=20)
START: Final = (
    stops(
        "start-401-twice",
        "the check of the model is a 401, whatever the token",
        "takes no token",
        Cost(requests=2, sent=0, paid=0),
        faults=({"times": ALWAYS, "status": 401},),
    ),
    *(
        waits(
            f"start-{status}-html",
            f"the check of the model is a {status} with HTML",
            f"HTTP {status}",
            FAILED_CHECKS,
            status=status,
            body="html",
        )
        for status in (401, 403, 404)
    ),
    waits("start-429", "the check of the model is a 429", "HTTP 429", FAILED_CHECKS, status=429),
    waits("start-503", "the check of the model is a 503", "HTTP 503", FAILED_CHECKS, status=503),
    waits(
        "start-token-503", "every token request is a 503", "login service answers HTTP 503", path="token", status=503
    ),
    waits(
        "start-token-401-html",
        "every token request is a 401 with HTML",
        "with HTTP 401",
        path="token",
        status=401,
        body="html",
    ),
    Row(
        id="start-refused",
        injected="no process listens when the worker starts; when the start is delayed, the API is started",
        prepare=refuse_connections,
        act=the_api_is_started,
        cost=ONCE,
    ),
)
ROWS: Final = (*UNAUTHORIZED, *STOPS, *TOKEN, *START)


@pytest.mark.parametrize("row", cases(ROWS))
def test_row(row: Row, act_out: Callable[[Row], None]) -> None:
    act_out(row)
