"""Billed results are kept: for iterators, and at every early end of a calculation."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from raw_http import RawServer, answer, raw_server, results

from stream_scorer import (
    AuditLogger,
    ConfidenceVerifier,
    GenesysAuthManager,
    PredictiveScoreCalculator,
    ScoreClient,
    ScoringOutcome,
)
from stream_scorer.core.scoring import response_match
from stream_scorer.errors import ApiUnavailable, InputError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

REFUSED = "refused"


class Series:
    """Like a pandas Series whose labels are not its positions: it is iterated by value and indexed by label."""

    def __init__(self, rows: list[Any]) -> None:
        self._by_label = dict(zip(reversed(range(len(rows))), rows, strict=True))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._by_label.values())

    def __len__(self) -> int:
        return len(self._by_label)

    def __getitem__(self, label: int) -> Any:
        return self._by_label[label]


def refuses_one(request: Any, conn: Any) -> None:
    """Refuse the contact `REFUSED` by name, as the platform does, and score every other."""
    if any(one["contactId"] == REFUSED for one in request.json["contacts"]):
        conn.sendall(answer(400, {"code": "invalid.value", "details": [{"entityId": REFUSED}]}))
    else:
        conn.sendall(results(request))


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server() as server:
        server.respond(refuses_one)
        yield server


@pytest.fixture
def calculator_for(server: RawServer, tmp_path: Path) -> Iterator[Callable[..., PredictiveScoreCalculator]]:
    with GenesysAuthManager("id", "secret", server.url) as auth:

        def make(audit: Path = tmp_path / "audit.log", **more: Any) -> PredictiveScoreCalculator:
            client = ScoreClient(auth, server.url, requests_per_minute=100_000, sleep=more.pop("sleep", lambda _: None))
            auditor = AuditLogger(str(audit))
            return PredictiveScoreCalculator("m", "", "", ["calls"], {}, client=client, auditor=auditor, **more)

        yield make


@pytest.fixture
def calculator(calculator_for: Callable[..., PredictiveScoreCalculator]) -> PredictiveScoreCalculator:
    return calculator_for()


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"contactId": name, "features": {"calls": 1}} for name in names]


def many(count: int = 1500) -> list[dict[str, Any]]:
    return rows(*(f"c{number}" for number in range(count)))


def scored(outcome: Any) -> list[str]:
    assert isinstance(outcome, ScoringOutcome)
    return [one.contact_id for one in outcome.scored]


ITERABLES: dict[str, Callable[[list[Any]], Iterable[Any]]] = {
    "generator": lambda given: (row for row in given),
    "map": lambda given: map(dict, given),
    "iterator": iter,
    "values of a dict": lambda given: dict(enumerate(given)).values(),
    "Series": Series,
    "tuple": tuple,
}


@pytest.mark.parametrize("kind", ITERABLES)
def test_any_iterable_with_a_contact_that_is_refused(calculator: PredictiveScoreCalculator, kind: str) -> None:
    given = rows("a", "b", REFUSED, "c")
    outcome = calculator.calculate(ITERABLES[kind](given))
    assert scored(outcome) == ["a", "b", "c"]
    assert [(one.index, one.contact_id, one.contact) for one in outcome.rejected] == [(2, REFUSED, given[2])]


@pytest.mark.parametrize("given", [rows("a")[0], {"a": rows("a")[0]}, "a", b"a", None, 7])
def test_an_argument_other_than_an_iterable_of_contacts(
    server: RawServer, calculator: PredictiveScoreCalculator, given: Any
) -> None:
    with pytest.raises(InputError, match=r"raw_contacts .*: pass "):
        calculator.calculate(given)
    assert server.requests == []


def test_audit_file_is_tried_before_the_first_request(
    server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.log"
    os.mkfifo(pipe)
    for place in (tmp_path / "missing\n" / "audit.log", tmp_path, tmp_path / "nul\0", pipe):
        with pytest.raises(SettingsError, match=r"cannot be written|is a pipe") as refused:
            calculator_for(place).calculate(rows("a"))
        assert str(refused.value).isprintable()
    assert server.requests == []


def test_disk_that_is_full_by_the_second_batch(calculator: PredictiveScoreCalculator) -> None:
    written: list[bytes] = []
    real = calculator.auditor.log_score_batch

    def until_full(*args: Any, **more: Any) -> None:
        if written:
            calculator.auditor.log_file = "/dev/full"
        written.append(b"")
        real(*args, **more)

    calculator.auditor.log_score_batch = until_full  # type: ignore[method-assign]
    with pytest.raises(SettingsError, match="No space left on device") as caught:
        calculator.calculate(many())
    assert scored(caught.value.partial) == [one["contactId"] for one in many()]


class Frozen(Exception):
    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


@pytest.mark.parametrize("error", [ZeroDivisionError, Frozen, KeyboardInterrupt, SystemExit])
def test_callback_that_raises(
    calculator_for: Callable[..., PredictiveScoreCalculator], error: type[BaseException]
) -> None:
    def fails(_: Any) -> None:
        raise error

    with pytest.raises(error) as caught:
        calculator_for(callback_handler=fails).calculate_scores(rows("a", REFUSED))
    partial = caught.value.partial  # type: ignore[attr-defined]
    assert scored(partial) == ["a"]
    assert [one.contact_id for one in partial.rejected] == [REFUSED]
    if error is not Frozen:
        assert "2 contacts were finished before" in caught.value.__notes__[0]


def test_ctrl_c_during_the_second_request(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    main = threading.get_ident()

    def interrupts(request: Any, conn: Any) -> None:
        if len(request.json["contacts"]) < 1000:
            signal.pthread_kill(main, signal.SIGINT)
            server.released.wait(10)
        conn.sendall(results(request))

    server.respond(interrupts)
    with pytest.raises(KeyboardInterrupt) as caught:
        calculator.calculate(many())
    assert len(scored(caught.value.partial)) == 1000  # type: ignore[attr-defined]


def test_ctrl_c_while_the_response_is_read(
    calculator: PredictiveScoreCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [500]
    real = response_match.Verifier.review_reasons

    def interrupted(self: response_match.Verifier, *found: float) -> tuple[str, ...]:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, *found)

    monkeypatch.setattr(response_match.Verifier, "review_reasons", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        calculator.calculate(many())
    assert len(scored(caught.value.partial)) == 1000  # type: ignore[attr-defined]
    assert len(Path(calculator.auditor.log_file).read_text().splitlines()) == 1 + 1000


def test_wait_that_raises(server: RawServer, calculator_for: Callable[..., PredictiveScoreCalculator]) -> None:
    def refuses_to_wait(_: float) -> None:
        raise TimeoutError

    server.respond(lambda request, conn: conn.sendall(results(request)), answer(503))
    with pytest.raises(TimeoutError) as caught:
        calculator_for(sleep=refuses_to_wait).calculate(many())
    assert len(scored(caught.value.partial)) == 1000  # type: ignore[attr-defined]


def test_error_of_the_generator_itself(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    def broken() -> Iterator[Any]:
        yield rows("a")[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        calculator.calculate(broken())
    assert caught.value.partial == ScoringOutcome((), (), ())  # type: ignore[attr-defined]
    assert server.requests == []


def test_outage_after_the_first_request(server: RawServer, calculator: PredictiveScoreCalculator) -> None:
    server.respond(lambda request, conn: conn.sendall(results(request)), answer(503))
    with pytest.raises(ApiUnavailable) as caught:
        calculator.calculate(row for row in many())
    assert len(scored(caught.value.partial)) == 1000


@pytest.mark.parametrize("width", ["0.15", None, True, float("nan"), float("inf"), [0.15]])
def test_an_invalid_width_is_found_before_anything_is_billed(width: Any) -> None:
    with pytest.raises(SettingsError, match="min_confidence_width"):
        ConfidenceVerifier(width)
    if width is not None:
        with pytest.raises(SettingsError, match="max_confidence_width"):
            ConfidenceVerifier(0.15, width)


def test_callback_that_cannot_be_called(calculator_for: Callable[..., PredictiveScoreCalculator]) -> None:
    with pytest.raises(SettingsError, match="callback_handler"):
        calculator_for(callback_handler="print")
