"""Rejected contacts on a real broker: repaired, replayed and discarded, each exactly once."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from desk_harness import DECISION, DeskHarness, each_once
from scoring_harness import FEATURES, PATIENCE_S, SCORE, Input, ScoringHarness, contact, event, wait_until

from stream_scorer.core.desk.decisions import Action
from stream_scorer.core.desk.verdict import SkipReason
from stream_scorer.desk.rejected import RejectedDesk, RejectedOptions
from stream_scorer.errors import UsageError
from stream_scorer.settings import load_settings

if TYPE_CHECKING:
    from kafka_fixture import Broker
    from worker_harness import WorkerHarness

pytestmark = pytest.mark.kafka

GOOD = {"previous_calls": 7, "avg_handle_time": 1.0, "last_contact_days": 1, "segment_id": "retired"}
WRONG = {"previous_calls": "many", "avg_handle_time": 1.0, "last_contact_days": 1, "segment_id": "retired"}


def test_a_repaired_contact_ends_as_one_score(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    stage.produce([contact("C-1", features=WRONG, headers=[("own", b"kept")]), contact("C-2")])
    worker = stage.start_ready()
    stage.wait_done(needs=worker)

    report = desk.row("rejected", "replay", "C-1", "--set", "previous_calls=7", "--yes", "--operator", "ada")
    assert (report["decided"], report["skipped"]) == (1, {})
    stage.wait_done(needs=worker)
    counted = re.compile(r"stream_scorer_contacts_replayed_total\{.*\} 1\.0")
    stage.wait(lambda: counted.search(getattr(worker.admin("/metrics"), "text", "")), "the metric", needs=worker)
    worker.stop()

    [rejected] = desk.rows(stage.topics["rejected"])
    [replayed] = [row for row in desk.rows(stage.topics["features"]) if "stream-scorer-replays" in row.headers]
    assert replayed.key == b"C-1"
    assert replayed.headers == {
        "own": b"kept",
        "stream-scorer-replays": b"1",
        "stream-scorer-replay-of": rejected.place.encode(),
    }
    assert FEATURES.decode(replayed.value) == event("C-1", features={**WRONG, "previous_calls": 7})
    [decision] = desk.decisions()
    assert decision["action"] == "REPLAYED"
    assert decision["place"] == rejected.place
    assert decision["result_place"] == replayed.place
    assert decision["operator"] == "ada"
    assert decision["changes"] == {"previous_calls": "7"}

    scores = desk.rows(stage.topics["scores"]) + desk.rows(stage.topics["review"])
    [score] = [row for row in scores if row.headers["stream-scorer-source"] == replayed.place.encode()]
    assert SCORE.decode(score.value)["contact_id"] == "C-1"
    assert score.headers["stream-scorer-replay-of"] == rejected.place.encode()

    again = desk.row("rejected", "replay", "C-1", "--set", "previous_calls=7", "--yes")
    assert (again["decided"], again["skipped"]) == (0, {"decided before": 1})
    each_once([row for row in desk.rows(stage.topics["features"]) if "stream-scorer-replays" in row.headers], "own")
    assert desk.call("reconcile").returncode == 0
    without = desk.call("reconcile", "--json", topics__decisions=f"absent-{stage.group_id}")
    assert without.returncode == 0, without.stderr
    [note] = json.loads(without.stdout)["notes"]
    assert "the decisions that published 1 records are not there (the topic is empty or absent)" in note

    # Planted: the same replay by another program, a second decision, a decision without its record, and a replay
    # under another key.
    plain = {name: value for name, value in replayed.headers.items() if name != "own"}
    stage.produce(Input(key, replayed.value, headers=list(plain.items())) for key in (b"C-1", b"other"))
    [other] = [row for row in desk.rows(stage.topics["features"]) if row.key == b"other"]
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    worker.stop()
    nowhere = {**decision, "place": f"{stage.topics['rejected']}/0/99", "result_place": replayed.place[:-1] + "0"}
    desk.decide([decision, nowhere, {**decision, "result_place": other.place}])
    done = desk.call("reconcile", "--json")
    assert done.returncode == 1
    counts = json.loads(done.stdout)["counts"]
    assert {kind: count for kind, count in counts.items() if count} == {
        "decided_twice": 2,
        "not_decided": 1,
        "not_published": 1,
        "wrong_value": 1,
    }


def bad_contacts(number: int) -> list[tuple[str, bytes | None]]:
    return [(f"C-{n}", FEATURES.encode(event(f"C-{n}", features=WRONG))) for n in range(number)]


def test_kills_and_two_jobs_at_once_replay_each_record_once(stage: WorkerHarness) -> None:
    """`make chaos` has 100,000 records and 50 kills."""
    desk = DeskHarness(stage)
    replay_with_kills(desk, records=2_000, kills=5, per_second=60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_kills_of_a_job_with_a_hundred_thousand_records(stage: WorkerHarness) -> None:
    replay_with_kills(DeskHarness(stage), records=100_000, kills=50, per_second=300)


@pytest.mark.slow
def test_a_live_worker_is_not_slowed_down_by_a_job(stage: WorkerHarness) -> None:
    """The p99 from a live contact to its score, beside a job at its default rate, is at most twice that without it."""
    desk = DeskHarness(stage)
    worker = stage.start_ready()
    p99_s(desk, "warm", seconds=5)
    alone = p99_s(desk, "A")
    desk.reject(bad_contacts(20_000))
    job = desk.start("rejected", "replay", "--set", "previous_calls=3", "--yes")
    wait_until(lambda: "stream-scorer-replays" in last_headers(desk), "the job to replay")
    beside = p99_s(desk, "B")
    was_running = job.poll() is None
    job.kill()
    job.communicate(timeout=PATIENCE_S)
    worker.stop()
    assert was_running, "the job ended before the measurement did"
    print(f"p99 {alone * 1000:.0f} ms alone, {beside * 1000:.0f} ms beside a job")  # noqa: T201 - the measurement
    assert beside <= 2 * alone


def last_headers(desk: DeskHarness) -> dict[str, bytes | None]:
    return desk.rows(desk.stage.topics["features"])[-1].headers


def p99_s(desk: DeskHarness, prefix: str, *, seconds: int = 20, per_second: int = 20) -> float:
    """The p99 of the time from sending a contact to reading its committed score, in seconds."""
    stage = desk.stage
    sent: dict[bytes, float] = {}
    took: dict[bytes, float] = {}
    wanted = {f"{prefix}-{n}".encode() for n in range(seconds * per_second)}
    with stage.reader() as reader:
        ends = [
            TopicPartition(stage.topics[kind], number, offset)
            for kind in ("scores", "review")
            for number, offset in stage.ends(kind).items()
        ]
        reader.assign(ends)
        began = time.monotonic()
        for number in range(seconds * per_second):
            one = contact(f"{prefix}-{number}")
            while time.monotonic() < began + number / per_second:
                for message in reader.consume(100, 0.005):
                    took.setdefault(message.key() or b"", time.monotonic())
            sent[one.key or b""] = time.monotonic()
            stage.produce([one])
        give_up_at = time.monotonic() + PATIENCE_S
        while not wanted <= set(took):
            assert time.monotonic() < give_up_at
            for message in reader.consume(100, 0.01):
                took.setdefault(message.key() or b"", time.monotonic())
    times = sorted(took[key] - sent[key] for key in wanted)
    return times[int(len(times) * 0.99)]


def written(desk: DeskHarness) -> int:
    """Return the growth of the features topic in offsets, with transaction markers and aborted records."""
    return sum(desk.stage.ends().values())


def has_written(desk: DeskHarness, wanted: int) -> bool:
    return written(desk) >= wanted


def replay_with_kills(desk: DeskHarness, records: int, kills: int, per_second: int) -> None:
    """Kill a job repeatedly, sometimes with a second one beside it, and let the last one finish."""
    topics = desk.stage.topics
    desk.reject(bad_contacts(records))
    arguments = ("rejected", "replay", "--reason", "wrong_type", "--job", "monday", "--yes", "--rate", str(per_second))
    for kill in range(kills):
        jobs = [desk.start(*arguments)]
        wait_until(partial(has_written, desk, written(desk) + 1), "a record to be replayed")
        if kill % 2:
            jobs.append(desk.start(*arguments))
        wait_until(partial(has_written, desk, written(desk) + 1 + 13 * kill), "further records to be replayed")
        for job in jobs:
            job.kill()
        for job in jobs:
            _, errors = job.communicate(timeout=PATIENCE_S)
            # A job that met the other one in a partition has exited.
            assert job.returncode == -signal.SIGKILL or "another job has taken over" in errors, errors
    left = desk.row(*arguments, "--rate", "100000")  # the last one of an option counts
    decisions = desk.decisions()
    replayed = desk.rows(topics["features"])
    assert len(decisions) == len(replayed) == records
    assert left["decided"] + left["skipped"].get("decided before", 0) == records
    each_once(replayed, "stream-scorer-replay-of")
    assert {row.headers["stream-scorer-replay-of"] for row in replayed} == {one["place"].encode() for one in decisions}
    assert {row.place for row in replayed} == {one["result_place"] for one in decisions}
    again = desk.row(*arguments)
    assert (again["decided"], again["skipped"]) == (0, {"decided before": records})
    assert len(desk.rows(topics["features"])) == records


def test_the_price_of_the_dry_run_is_what_the_api_bills(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    stage.produce([contact(f"W-{n}", features=WRONG) for n in range(60)])
    stage.produce([contact(f"R-{n}", features={**GOOD, "shoe_size": 44}) for n in range(20)])
    stage.produce([contact(f"G-{n}") for n in range(5)])
    worker = stage.start_ready()
    stage.wait_done(needs=worker)
    repair = ("rejected", "replay", "--set", "previous_calls=3", "--where", "reason == 'wrong_type'")

    bare = desk.row("rejected", "replay", "--dry-run")
    assert (bare["pass"], bare["fail_again"], bare["skipped"]) == (0, {"wrong_type": 60, "unsupported_feature": 20}, {})
    price = desk.row(*repair, "--dry-run")
    assert (price["pass"], price["fail_again"], price["billed_contacts"]) == (60, {}, 60)
    assert desk.decisions() == []
    before = stage.simulator.stats().contacts_scored
    done = desk.row(*repair, "--yes")
    assert done["decided"] == 60
    stage.wait_done(needs=worker)
    assert stage.simulator.stats().contacts_scored - before == price["billed_contacts"]
    worker.stop()


def test_a_list_counts_states_and_a_discarded_contact_stays_closed(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    desk.reject(bad_contacts(5))
    desk.reject([("D-1", None)], reason="undecodable")
    desk.reject([("P-1", FEATURES.encode(event("P-1", features=WRONG)))], **{"stream-scorer-replays": "3"})

    closed = desk.row("rejected", "discard", "C-0", "C-1", "--note", "test data", "--yes")
    assert (closed["decided"], closed["skipped"]) == (2, {})
    replayed = desk.row("rejected", "replay", "--set", "previous_calls=3", "--yes", "--limit", "2")
    assert replayed["decided"] == 2
    again = desk.row("rejected", "replay", "C-0", "--yes")
    assert (again["decided"], again["skipped"]) == (0, {"decided before": 1})

    done = desk.call("rejected", "list")
    rows = {row["reason"]: row for row in map(json.loads, done.stdout.splitlines())}
    wrong = rows["wrong_type"]
    assert (wrong["records"], wrong["replayed"], wrong["discarded"], wrong["open"], wrong["parked"]) == (6, 2, 2, 1, 1)
    assert wrong["share"] == round(6 / 7, 4)
    assert rows["undecodable"]["open"] == 1
    assert {one["action"] for one in desk.decisions()} == {"DISCARDED", "REPLAYED"}
    assert {one["note"] for one in desk.decisions() if one["action"] == "DISCARDED"} == {"test data"}

    # The question before a job has the number that the job decides: a record that was decided is outside of its limit.
    with patch.dict(os.environ, desk.environment(), clear=True):
        opened = RejectedDesk(load_settings(None))
        plans = [opened.plan(Action.DISCARDED, RejectedOptions(limit=limit), None) for limit in (1, 2, None)]
        assert [opened.prediction(plan).records for plan in plans] == [1, 2, 3]


def test_a_job_that_is_resumed_keeps_its_selection(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    desk.reject(bad_contacts(3))
    first = desk.row("rejected", "replay", "--reason", "wrong_type", "--limit", "2", "--job", "monday", "--yes")
    desk.reject(bad_contacts(3))
    # Neither more than its limit, nor what was rejected after its beginning.
    resumed = desk.row("rejected", "replay", "--job", "monday", "--yes")
    assert (first["decided"], resumed["decided"]) == (2, 0)
    # The dry run and the question count what is left of the job, not what a new one would select.
    repair = ("rejected", "replay", "--set", "previous_calls=3")
    price = desk.row(*repair, "--limit", "3", "--job", "tuesday", "--yes", "--rate", "100000")
    assert price["decided"] == 3
    price = desk.row("rejected", "replay", "--job", "tuesday", "--dry-run")
    assert (price["pass"], price["fail_again"], price["skipped"]) == (0, {}, {"decided before": 3})
    with patch.dict(os.environ, desk.environment(), clear=True):
        opened = RejectedDesk(load_settings(None))
        plan = opened.plan(Action.REPLAYED, RejectedOptions(), "tuesday")
        assert opened.prediction(plan) == (0, {SkipReason.DONE_BEFORE: 3})
        with pytest.raises(UsageError, match="no job mondy has begun"):
            opened.plan(Action.REPLAYED, RejectedOptions(), "mondy")
    other = desk.call("rejected", "replay", "--reason", "wrong_type", "--job", "monday", "--yes")
    assert other.returncode == 2
    assert "job monday was begun with other options" in other.stderr
    mistyped = desk.call("rejected", "replay", "--job", "mondy", "--yes")
    assert mistyped.returncode == 2
    assert "no job mondy has begun, and without an option it would decide every record" in mistyped.stderr
    assert len(desk.decisions()) == 5


def test_ctrl_c_names_the_job_and_the_rest_is_replayed_once(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    desk.reject(bad_contacts(200))
    job = desk.start("rejected", "replay", "--yes", "--rate", "20")
    wait_until(partial(has_written, desk, 1), "a record to be replayed")
    job.send_signal(signal.SIGINT)
    out, errors = job.communicate(timeout=PATIENCE_S)
    assert (job.returncode, out, errors) == (130, "", errors)
    match = re.fullmatch(r"interrupted after \d+ records: .* with (--job replay-\S+ --yes)\n", errors)
    assert match is not None, errors
    desk.wait_for_markers()
    done = len(desk.decisions())
    desk.reject(bad_contacts(1))  # after its beginning
    price = desk.row("rejected", "replay", *match[1].split()[:2], "--dry-run")
    assert (price["fail_again"], price["skipped"]) == ({"wrong_type": 200 - done}, {"decided before": done})
    desk.row("rejected", "replay", *match[1].split(), "--rate", "100000")
    desk.wait_for_markers(stage.topics["features"])
    assert len(desk.decisions()) == len(desk.rows(stage.topics["features"])) == 200


@pytest.mark.slow
def test_a_job_continues_after_records_deleted_by_retention(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    desk.reject(bad_contacts(40))
    arguments = ("rejected", "replay", "--reason", "wrong_type", "--job", "monday", "--yes")
    killed = desk.start(*arguments, "--rate", "4")
    wait_until(partial(has_written, desk, 2), "a record to be replayed")
    killed.kill()
    killed.communicate(timeout=PATIENCE_S)
    before = len(desk.decisions())
    ends = stage.ends("rejected")
    last = {number: TopicPartition(stage.topics["rejected"], number, end - 1) for number, end in ends.items() if end}
    admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers, "log_level": 0})
    for deleted in admin.delete_records(list(last.values())).values():
        deleted.result(30)

    report = desk.row(*arguments, "--rate", "1000")
    assert report["decided"] == len(last)
    assert report["skipped"]["offsets that retention has deleted"] == 40 - before - len(last)
    assert len(desk.decisions()) == len(desk.rows(stage.topics["features"])) == before + len(last)


def test_a_job_ends_when_its_topic_was_created_again(stage: WorkerHarness) -> None:
    """Its locations are those of the former topic: decisions about them do not apply to the present one."""
    desk = DeskHarness(stage)
    desk.reject(bad_contacts(60))
    job = desk.start("rejected", "replay", "--reason", "wrong_type", "--yes", "--rate", "4")
    wait_until(partial(has_written, desk, 2), "a record to be replayed")
    admin = AdminClient({"bootstrap.servers": stage.bootstrap_servers, "log_level": 0})
    topic = stage.topics["rejected"]
    admin.delete_topics([topic])[topic].result(30)
    _, errors = job.communicate(timeout=PATIENCE_S)
    assert job.returncode == 1
    assert f"topic {topic} was deleted" in errors


@pytest.mark.parametrize("key", [None, b"T-1"])
def test_a_record_that_took_the_place_of_a_truncated_one_is_not_replayed(
    stage: WorkerHarness, key: bytes | None
) -> None:
    desk = DeskHarness(stage)
    features = stage.topics["features"]
    stage.produce([contact("T-1", partition=0)])
    producer = Producer({"bootstrap.servers": stage.bootstrap_servers})
    # Rejected in a former topic of the same name; the other one's partition does not exist any more.
    hour_ago = int(time.time() - 3600) * 1000
    for number, source in enumerate((f"{features}/0/0", f"{features}/9/0", "elsewhere/0/0")):
        headers: list[tuple[str, bytes]] = [
            ("stream-scorer-source", source.encode()),
            ("stream-scorer-error-reason", b"undecodable"),
            ("stream-scorer-error-truncated", b"true"),
        ]
        producer.produce(stage.topics["rejected"], None, key, partition=number, headers=headers, timestamp=hour_ago)
    assert producer.flush(PATIENCE_S) == 0

    done = desk.row("rejected", "replay", "--yes")
    unfit = "its value is missing or cannot be decoded"
    assert (done["decided"], done["skipped"]) == (0, {unfit: 2, "of another program or group": 1})
    explained = desk.call("rejected", "explain", "--reason", "undecodable")
    assert explained.returncode == 0, explained.stderr
    assert len(desk.rows(features)) == 1


def test_jobs_with_the_settings_of_two_groups_replay_each_record_once(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    desk.reject(bad_contacts(200))
    arguments = ("rejected", "replay", "--reason", "wrong_type", "--yes", "--rate", "60")
    jobs = [desk.start(*arguments, kafka__group_id=name) for name in ("one", "other")]
    for job in jobs:
        _, errors = job.communicate(timeout=PATIENCE_S)
        assert job.returncode == 0 or "another job has taken over" in errors, errors
    desk.row(*arguments, kafka__group_id="third")
    replayed = desk.rows(stage.topics["features"])
    each_once(replayed, "stream-scorer-replay-of")
    assert len(replayed) == 200


@pytest.mark.slow
def test_jobs_of_one_second_have_names_of_their_own(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    desk.reject(bad_contacts(4))
    jobs = [desk.start("rejected", "discard", f"C-{n}", "--note", "test", "--yes") for n in range(4)]
    names = set()
    for job in jobs:
        out, errors = job.communicate(timeout=PATIENCE_S)
        # A job that met another one in a partition has exited.
        assert job.returncode == 0 or "another job has taken over" in errors, errors
        names |= {json.loads(line)["job"] for line in out.splitlines()}
    begun = [DECISION.decode(row.value)["job"] for row in desk.rows(desk.topic, desk.partitions)]
    assert len({name for name in begun if name.startswith("discard-")}) == 4
    assert names <= set(begun)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("replay", "absent", "--yes"), "no record of"),
        (("replay", "absent", "--dry-run"), "no record of"),
        (("replay", "C-0"), "nothing was changed: repeat the command with --yes"),
        (("replay", "--reason", "bad", "--yes"), "--reason 'bad': use undecodable"),
        (("replay", "--where", "features['age'] >", "--yes"), "--where is no expression (at its end)"),
        (("replay", "--where", "feature == 3", "--yes"), "--where: there is no 'feature'"),
        (("replay", "--set", "incme=3", "--yes"), "--set 'incme': the model has no such feature"),
        (("replay", "--set", "previous_calls=many", "--yes"), "'previous_calls' must be an integer"),
        (("replay", "--where", " or ".join(["replays == 1"] * 3_000), "--yes"), "--where has too many parts"),
        (("replay", "--where", "reason != '\udcff'", "--yes"), "--where: the expression is not valid Unicode"),
        (("replay", "--drop", "\udcff", "--yes"), "it is not valid Unicode"),
        (("replay", "--set", "attributes.\udcff=1", "--yes"), "it is not valid Unicode"),
        (("replay", "--note", "\udcff", "--yes"), "--note '\\udcff': it is not valid Unicode"),
        (("discard", "C-0", "--note", "x", "--operator", "\udcff", "--yes"), "--operator '\\udcff': it is not valid"),
        (("replay", "--place", "x", "--yes"), "--place 'x': must be TOPIC/PARTITION/OFFSET"),
        (("replay", "--job", "1", "--yes"), "--job '1': use a letter"),
        (("explain", "absent"), "no record of"),
        (("explain",), "name a contact, or select records"),
        (("discard", "C-0", "--yes"), "--note is missing: give the reason"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(
    wrong_desk: DeskHarness, arguments: tuple[str, ...], words: str
) -> None:
    done = wrong_desk.call("rejected", *arguments)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert words in line
    assert done.stdout == ""
    assert wrong_desk.rows(wrong_desk.topic) == []
    assert wrong_desk.rows(wrong_desk.stage.topics["features"]) == []


@pytest.fixture(scope="module")
def wrong_desk(broker: Broker) -> DeskHarness:
    desk = DeskHarness(ScoringHarness(broker.bootstrap_servers))
    desk.reject(bad_contacts(2))
    return desk


def test_records_of_another_program_are_not_replayed(stage: WorkerHarness) -> None:
    desk = DeskHarness(stage)
    desk.reject(bad_contacts(2), **{"stream-scorer-source": "elsewhere/0/1"})
    done = desk.call("rejected", "replay", "--yes")
    assert done.returncode == 2
    assert "only records of other programs are selected" in done.stderr
    assert desk.rows(desk.topic) == []
