"""``stream-scorer audit show`` on a real broker: the history of one contact among others."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from desk_harness import DeskHarness
from desk_topics import START_MS, DeskTopics, audit, callback, decision, entry, features, receipt, rows_of, score
from scoring_harness import contact

from stream_scorer.cli import main
from stream_scorer.core.desk.record_filter import parse_filter
from stream_scorer.desk.contact_history import ContactHistory

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_fixture import Broker
    from worker_harness import WorkerHarness

pytestmark = pytest.mark.kafka


def set_environment(desk: DeskTopics, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("STREAM_SCORER_"):
            monkeypatch.delenv(name)
    for name, value in {**desk.environment, "STREAM_SCORER_SCORING__RETRY_DELAYS_S": "[1, 2]"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STREAM_SCORER_CALLBACKS__RETRY_DELAYS_S", "[1, 2]")


def source(place: str, **headers: str) -> list[tuple[str, bytes | None]]:
    given = {"source": place, "batch": "batch-1", **headers}
    return [(f"stream-scorer-{name.replace('_', '-')}", text.encode()) for name, text in given.items()]


def live(desk: DeskTopics, name: str, start_ms: int = START_MS) -> list[str]:
    """Let a contact be deferred, rejected, repaired, scored and delivered; return the locations in order."""
    key, at = name.encode(), iter(range(start_ms, start_ms + 100))
    first = desk.put("features", features(name), key=key, at_ms=next(at))
    retry = desk.put(
        "features_retry", features(name), key=key, level=1, headers=source(first, deferred="1"), at_ms=next(at)
    )
    why = source(first, error_reason="out_of_range", error_detail="age is 400")
    rejected = desk.put("rejected", features(name), key=key, headers=why, at_ms=next(at))
    entries = [entry("other", "f/0/1"), entry(name, first, "REJECTED")]
    desk.put("audit", audit(entries), key=b"chain", at_ms=next(at))
    replay = [("stream-scorer-replay-of", rejected.encode())]
    again = desk.put("features", features(name), key=key, headers=replay, at_ms=next(at))
    decided = desk.put("decisions", decision(rejected, result_place=again), key=rejected.encode(), at_ms=START_MS)
    scored = desk.put("scores", score(name), key=key, headers=source(again), at_ms=next(at))
    desk.put("audit", audit([entry(name, again)]), key=b"chain", at_ms=next(at))
    planned = desk.put("callbacks", callback(["x", name], ["s/0/9", scored]), key=b"c", at_ms=next(at))
    waited = desk.put("callbacks_retry", callback([name], [scored]), key=b"c", level=2, at_ms=next(at))
    done = desk.put("receipts", receipt(["x", name], ["s/0/9", scored]), key=b"c", at_ms=next(at))
    return [first, retry, rejected, decided, again, scored, planned, waited, done]


@pytest.fixture(scope="module")
def desk(broker: Broker) -> DeskTopics:
    made = DeskTopics(broker.bootstrap_servers)
    made.put("decisions", decision("elsewhere/0/1"), key=b"elsewhere/0/1")
    made.put("features", b"broken anna", key=b"bert")
    return made


@pytest.fixture(scope="module")
def places(desk: DeskTopics) -> list[str]:
    live(desk, "bert")
    return live(desk, "anna")


@pytest.fixture
def run(
    desk: DeskTopics, places: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    assert places
    set_environment(desk, monkeypatch)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(["audit", "show", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return command


def test_the_history_of_one_contact_in_order(run: Any, places: list[str]) -> None:
    code, out, errors = run("anna", "-o", "json")
    assert (code, errors) == (0, "")
    rows = json.loads(out)
    assert [row["place"] for row in rows] == places
    assert [row["what"] for row in rows] == [
        *("received", "deferred", "rejected", "decided", "received", "scored"),
        *("callback planned", "callback deferred", "delivered"),
    ]
    assert rows[2]["details"]["reason"] == "out_of_range"
    assert rows[2]["details"]["api_status"] == 200
    assert rows[3]["details"]["operator"] == "olga"
    assert rows[4]["from"] == [places[2]]


def test_as_text(run: Any, places: list[str]) -> None:
    code, out, errors = run("anna", "-o", "table")
    assert (code, errors) == (0, "")
    head, *lines = out.splitlines()
    assert head.split() == ["time", "what", "place", "event_id", "from", "details"]
    assert [next(one for one in line.split() if one in places) for line in lines] == places
    assert "action REPLAYED, job monday, operator olga" in lines[3]


def test_bounds_and_events(run: Any, places: list[str]) -> None:
    _, out, _ = run("anna", "--until", "2023-11-14T22:13:20.001Z")
    assert [row["place"] for row in rows_of(out)] == places[:1]
    _, out, _ = run("anna", "--event", "event-anna")
    assert [row["place"] for row in rows_of(out)] == places
    code, out, errors = run("anna", "--event", "event-bert")
    assert (code, out) == (2, "")
    assert errors == "stream-scorer: no record of this contact is selected: check its id and the bounds\n"


def test_an_undecodable_record_of_the_contact_by_its_key(run: Any) -> None:
    _, out, _ = run("bert")
    assert sum("error" in row["details"] for row in rows_of(out)) == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["absent"], "no record of this contact is selected"),
        ([""], "contact id ''"),
        ([], "Missing argument 'CONTACT'"),
        (["anna", "--since", "soon"], "--since 'soon'"),
        (["anna", "-o", "xml"], "xml"),
        (["anna", "--out", "/missing/file"], "cannot be created"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(run: Any, arguments: list[str], line: str) -> None:
    code, out, errors = run(*arguments)
    assert (code, out) == (2, "")
    assert len(errors.splitlines()) == 1
    assert line in errors


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        *(pytest.param(one, marks=SLOW) for one in ("=1+1", "--raw", "\x1b[31mred", "名前", "x" * 256, "ä" * 128)),
    ],
)
def test_odd_contact_ids(broker: Broker, name: str, monkeypatch: Any, capsys: Any) -> None:
    desk = DeskTopics(broker.bootstrap_servers)
    set_environment(desk, monkeypatch)
    placed = live(desk, name)
    assert main(["audit", "show", "--", name]) == 0
    assert [row["place"] for row in rows_of(capsys.readouterr().out)] == placed
    assert main(["audit", "show", "-o", "table", "--", name]) == 0
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_topics_that_do_not_exist_are_named(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAM_SCORER_TOPICS__RECEIPTS", "no-such-topic")
    code, out, errors = run("anna")
    assert (code, len(rows_of(out))) == (0, 8)
    assert errors == "not read, because it does not exist or may not be described: no-such-topic\n"
    for name in os.environ:
        if name.startswith("STREAM_SCORER_TOPICS__"):
            monkeypatch.setenv(name, f"no-{name.rpartition('__')[2].lower()}")
    code, out, errors = run("anna")
    assert (code, out) == (1, "")
    assert "topic no-features is missing" in errors


def test_the_history_of_a_contact_that_was_repaired(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    wrong = {"previous_calls": "many", "avg_handle_time": 1.0, "last_contact_days": 1, "segment_id": "retired"}
    stage.produce([contact("C-1", features=wrong), contact("C-2")])
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    desk.row("rejected", "replay", "C-1", "--set", "previous_calls=7", "--yes", "--operator", "ada")
    stage.wait_done(needs=worker)
    worker.stop()
    shown = desk.start("audit", "show", "C-1", "-o", "jsonl")
    out, _ = shown.communicate(timeout=60)
    assert shown.returncode == 0
    rows = rows_of(out)
    assert [row["what"] for row in rows[:4]] == ["received", "rejected", "decided", "received"]
    assert rows[4]["what"] in ("scored", "review")
    assert len(rows) == 5
    assert rows[1]["details"]["reason"] == "wrong_type"
    assert rows[1]["details"]["billed"] is False
    assert rows[2]["details"]["changes"] == {"previous_calls": "7"}
    assert rows[4]["from"] == [rows[3]["place"]]
    assert rows[4]["details"]["api_status"] == 200


def test_many_records_are_searched_and_few_are_decoded(broker: Broker) -> None:
    """221,000 records took 0.8 s of CPU time on the machine of the measurements."""
    desk = DeskTopics(broker.bootstrap_servers)
    desk.put_many("features", 20_000)
    placed = live(desk, "anna")
    before = time.process_time()
    history = ContactHistory(desk.settings, parse_filter(now_ms=0, contacts=["anna"]))
    assert [event.place for event in history.read()] == placed
    assert time.process_time() - before < 5
