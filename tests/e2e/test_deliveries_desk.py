"""Rejected callbacks on a real broker with a real receiver: delivered again and discarded, each once for a decision."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from callbacks_harness import CALLBACK, PARTITIONS, RECEIPT, CallbacksHarness, Read, score
from confluent_kafka import Producer, TopicPartition
from desk_harness import DeskHarness
from scoring_harness import PATIENCE_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_fixture import Broker

    from stream_scorer.local.receiver import Receiver
    from stream_scorer.local.simulator import Simulator

pytestmark = pytest.mark.kafka

# Two rounds of three attempts: a round takes seconds, whatever its delay.
QUICK = {"callbacks__retry_delays_s": "[0.2]"}
ATTEMPTS = 6
DECISION = "stream-scorer-decision"


class CallbackDesk(DeskHarness):
    """Commands of the desk on a stage of the campaign worker."""

    def __init__(self, campaign: CallbacksHarness) -> None:
        same: Any = campaign
        super().__init__(same)
        self.campaign = campaign


@pytest.fixture
def desk(make_campaign: Callable[..., CallbacksHarness], receiver: Receiver) -> CallbackDesk:
    return CallbackDesk(make_campaign(receiver.environment()))


def reconciled(desk: CallbackDesk) -> dict[str, Any]:
    """The report of a reconciliation; it must hold."""
    done = desk.call("reconcile", "--json", topics__features=f"none-{desk.campaign.group_id}", **QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)["callbacks"]
    return report


def decided(records: list[Read]) -> list[Read]:
    return [one for one in records if DECISION in one.headers]


def wait_decided(desk: CallbackDesk, receipts: int, **more: Any) -> None:
    stage = desk.campaign
    stage.wait(lambda: len(decided(stage.read("receipts"))) >= receipts, f"{receipts} receipts of decisions", **more)


def refuse(desk: CallbackDesk, receiver: Receiver, **settings: str) -> Any:
    """Runs a worker until the callback of one contact is refused and that of another is delivered; the worker."""
    stage = desk.campaign
    receiver.add_fault(status=400, campaign_id="spring", times=None)
    stage.put([score("a"), score("b", campaign_id="autumn")])
    worker = stage.start(**QUICK, **settings)
    stage.wait_receipts(2, needs=worker)
    return worker


def test_a_refused_callback_is_one_more_accepted_request_under_the_same_id(
    desk: CallbackDesk, receiver: Receiver
) -> None:
    stage = desk.campaign
    worker = refuse(desk, receiver)
    assert reconciled(desk)["totals"]["refused"] == 1
    [explained] = map(json.loads, desk.call("deliveries", "explain", "a", "-o", "jsonl", **QUICK).stdout.splitlines())
    assert (explained["state"], explained["reason"], explained["status"]) == ("open", "refused", 400)
    assert explained["today"] == "its body fits the present target"
    assert [one["outcome"] for one in explained["receipts"]] == ["REFUSED"]
    assert explained["attempts"] == ATTEMPTS
    assert "body" not in explained

    # Refused once more: the second rejection is a record of its own, with the decision.
    first = desk.row("deliveries", "replay", "a", "--yes", "--operator", "ada", "--note", "repaired", **QUICK)
    assert (first["decided"], first["skipped"]) == (1, {})
    wait_decided(desk, 1, needs=worker)
    assert reconciled(desk)["totals"]["refused"] == 1
    receiver.clear_faults()
    place = explained["place"]
    assert desk.row("deliveries", "replay", "--place", place, "--yes", **QUICK)["skipped"] == {"decided before": 1}
    second = desk.row("deliveries", "replay", explained["callback_id"], "--yes", **QUICK)
    assert (second["decided"], second["skipped"]) == (1, {"decided before": 1})
    wait_decided(desk, 2, needs=worker)
    worker.stop()

    [planned, *again] = [one for one in stage.read("callbacks") if CALLBACK.decode(one.value)["contact_ids"] == ["a"]]
    assert len(again) == 2
    before = CALLBACK.decode(planned.value)
    for one, decision in zip(again, desk.decisions(), strict=True):
        fields = CALLBACK.decode(one.value)
        at_ms = decision["decided_at"]
        assert fields == before | {"planned_at": at_ms, "not_before": at_ms}
        assert one.key == planned.key
        # There, if on a busy machine the callback was planned before the deliverer had its partition.
        assert one.headers.pop("stream-scorer-unanswered", b"maybe") == b"maybe"
        assert one.headers == {
            "stream-scorer-threshold": b"0.75",
            DECISION: decision["decision_id"].encode(),
            "stream-scorer-decided-at": str(at_ms).encode(),
        }
        assert decision["action"] == "REDELIVERED"
        assert decision["result_place"] == f"{stage.topics['callbacks']}/{one.partition}/{one.offset}"
    receipts = decided(stage.read("receipts"))
    assert [RECEIPT.decode(one.value)["outcome"] for one in receipts] == ["REFUSED", "DELIVERED"]
    assert [one.headers[DECISION] for one in receipts] == [one.headers[DECISION] for one in again]
    assert all(RECEIPT.decode(one.value)["threshold"] == 0.75 for one in receipts)
    delivery = receiver.callbacks()[before["callback_id"]]
    assert (delivery.accepted, delivery.attempts) == (1, 2 * ATTEMPTS + 1)
    assert (receiver.stats().changed, receiver.stats().repeats) == (0, 0)
    report = reconciled(desk)
    assert (report["totals"]["refused"], report["totals"]["redeliveries"]) == (1, 2)

    text = desk.call("deliveries", "explain", "a", **QUICK).stdout
    assert "refused, HTTP 400" in text
    assert f"decision {desk.decisions()[0]['decision_id']}" in text
    assert before["body"].decode() not in text
    listed = [json.loads(line) for line in desk.call("deliveries", "list", **QUICK).stdout.splitlines()]
    assert [(one["reason"], one["records"], one["redelivered"], one["open"]) for one in listed] == [
        ("refused", 2, 2, 0)
    ]

    invented_is_found(desk, again[0], receipts[0])


def invented_is_found(desk: CallbackDesk, callback: Read, receipt: Read) -> None:
    """Plants what only another program, or a fault of this one, can cause."""
    stage = desk.campaign
    stage.put_values("callbacks", [(callback.key, callback.value)], headers={DECISION: b"invented"})
    stage.put_values("receipts", [(receipt.key, receipt.value)], headers={DECISION: b"invented"})
    done = desk.call("reconcile", "--json", topics__features=f"none-{stage.group_id}", **QUICK)
    assert done.returncode == 1, done.stderr
    found = [one["what"] for one in json.loads(done.stdout)["callbacks"]["findings"]]
    assert any("no decision names it" in what for what in found), found


@pytest.mark.slow
def test_a_restarted_worker_and_a_renamed_group_deliver_it(desk: CallbackDesk, receiver: Receiver) -> None:
    stage = desk.campaign
    refuse(desk, receiver).stop()
    time.sleep(1.0)
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    receiver.clear_faults()
    desk.row("deliveries", "replay", "a", "--yes", **QUICK)
    reconciled(desk)
    renamed = stage.start("--from", since, **QUICK, callbacks__group_id=f"{stage.group_id}-new")
    wait_decided(desk, 1, needs=renamed)
    renamed.stop()
    restarted = stage.start(**QUICK, callbacks__group_id=f"{stage.group_id}-new")
    stage.wait(restarted.ready, "the restarted worker", needs=restarted)
    restarted.stop()
    [delivery] = [one for one in receiver.callbacks().values() if one.contact_ids == ("a",)]
    assert delivery.accepted == 1


@pytest.mark.slow
def test_a_discarded_callback_stays_closed(desk: CallbackDesk, receiver: Receiver) -> None:
    stage = desk.campaign
    worker = refuse(desk, receiver)
    stage.put_values("callbacks", [(b"no-callback", b"x")])
    stage.wait(lambda: len(stage.read("callbacks_rejected")) == 2, "both dead letters", needs=worker)
    worker.stop()
    no_callback = desk.row("deliveries", "replay", "no-callback", "--yes", **QUICK)
    assert no_callback["decided"] == 0
    assert list(no_callback["skipped"]) == [
        "not deliverable: only a callback that was refused or given up is delivered again"
    ]
    assert desk.row("deliveries", "discard", "--note", "test data", "--yes", **QUICK)["decided"] == 2
    again = desk.row("deliveries", "replay", "a", "--yes", **QUICK)
    assert (again["decided"], again["skipped"]) == (0, {"decided before": 1})
    assert {(one["action"], one["note"]) for one in desk.decisions()} == {("DISCARDED", "test data")}
    assert len(stage.read("callbacks")) == 3
    reconciled(desk)


def hold(desk: CallbackDesk, callback_id: str, **changes: Any) -> None:
    """Puts a held callback in the last retry topic, as a worker with another target does."""
    value = {
        "callback_id": callback_id,
        "campaign_id": "spring",
        "target": "genesys-outbound https://api.example/contactlists/l-1",
        "body": b"[]",
        "sources": ["scores/0/1"],
        "event_ids": [f"event-of-{callback_id}"],
        "contact_ids": [f"contact-of-{callback_id}"],
        "planned_at": 1,
        "attempts": 3,
        "not_before": 1,
        **changes,
    }
    producer = Producer({"bootstrap.servers": desk.stage.bootstrap_servers, "linger.ms": 0})
    headers: Any = [("stream-scorer-held", value["target"].encode()), ("stream-scorer-last-status", b"503")]
    producer.produce(desk.campaign.tier(4), CALLBACK.encode(value), callback_id.encode(), headers=headers)
    assert producer.flush(PATIENCE_S) == 0


def test_held_callbacks_are_listed_with_reason_and_remedy_and_are_not_decided(desk: CallbackDesk) -> None:
    hold(desk, "k1")
    hold(desk, "k2")
    hold(desk, "k3", campaign_id="autumn", target="webhook http://127.0.0.1:1")
    assert f"held: 3 callbacks wait in {desk.campaign.tier(4)}" in desk.call("deliveries", "list").stderr

    done = desk.call("deliveries", "list", "--held")
    assert done.returncode == 0, done.stderr
    rows = {row.pop("reason"): row for row in map(json.loads, done.stdout.splitlines())}
    other = "its body was made for 'genesys-outbound https://api.example/contactlists/l-1'"
    fits = "its body fits the present target: the next start of `stream-scorer callbacks` delivers it"
    assert {reason: row["records"] for reason, row in rows.items()} == {other: 2, fits: 1}
    assert list(rows[other]) == ["records", "share", "first", "last", "example"]
    assert done.stderr.startswith("remedy: set the former target or columns back")
    assert desk.row("deliveries", "list", "--held", "k1", "--by", "campaign")["records"] == 1
    chosen = ("--where", "status == 503 and campaign_id == 'autumn' and reason == 'held'")
    assert desk.row("deliveries", "list", "--held", *chosen)["records"] == 1
    assert desk.call("deliveries", "list", "--held", "--reason", "refused").returncode == 2

    for arguments in (
        ("explain", "contact-of-k1"),
        ("replay", "k1", "--yes"),
        ("replay", "k1", "--retarget", "--yes"),
        ("discard", "k1", "--note", "n", "--yes"),
    ):
        done = desk.call("deliveries", *arguments)
        assert done.returncode == 2
        [line] = done.stderr.splitlines()
        assert "1 selected callbacks are held (`deliveries list --held`): the campaign worker still delivers" in line
    assert desk.decisions() == []


@pytest.mark.slow
def test_a_list_counts_the_callbacks_that_are_held(desk: CallbackDesk, receiver: Receiver) -> None:
    stage = desk.campaign
    receiver.add_fault(status=503, times=None)
    stage.put(score(f"a{n}", campaign_id=f"k{n}") for n in range(3))
    worker = stage.start()
    stage.wait(lambda: len(stage.read(stage.tier(1))) >= 3, "all in the first tier", needs=worker)
    worker.stop()
    assert desk.call("deliveries", "list").stderr == ""
    trial = stage.start(callbacks__target="log")
    stage.wait(lambda: len(stage.read(stage.tier(4))) >= 3, "all held", needs=trial)
    trial.stop()
    done = desk.call("deliveries", "list", "-o", "csv")
    assert done.returncode == 0, done.stderr
    assert f"held: 3 callbacks wait in {stage.tier(4)}" in done.stderr
    receiver.clear_faults()
    back = stage.start()
    stage.wait_receipts(3, needs=back)
    back.stop()
    assert desk.call("deliveries", "list").stderr == ""


@pytest.mark.slow
def test_a_new_body_is_sent_under_a_new_id(desk: CallbackDesk, receiver: Receiver) -> None:
    worker = refuse(desk, receiver)
    receiver.clear_faults()
    done = desk.row("deliveries", "replay", "a", "--retarget", "--yes", **QUICK)
    assert (done["decided"], done["skipped"]) == (1, {})
    wait_decided(desk, 1, needs=worker)
    worker.stop()
    old, new = [one for one in receiver.callbacks().items() if one[1].contact_ids == ("a",)]
    [decision] = desk.decisions()
    assert decision["changes"] == {"retargeted": old[0]}
    assert (old[1].accepted, new[1].accepted) == (0, 1)
    assert receiver.stats().changed == 0
    assert reconciled(desk)["totals"]["redeliveries"] == 1
    again = desk.row("deliveries", "replay", "a", "--retarget", "--yes", **QUICK)
    assert (again["decided"], again["skipped"]) == (0, {"decided before": 1})
    explained = desk.row("deliveries", "explain", "a", "-o", "jsonl", **QUICK)
    assert (explained["callback_id"], explained["retargeted_id"], explained["state"]) == (old[0], new[0], "redelivered")
    assert [receipt["outcome"] for receipt in explained["receipts"]] == ["REFUSED", "DELIVERED"]


@pytest.mark.slow
def test_a_callback_whose_scores_are_deleted_gets_no_new_body(desk: CallbackDesk, receiver: Receiver) -> None:
    worker = refuse(desk, receiver)
    worker.stop()
    other = desk.campaign.make_topic("scores-again")
    done = desk.row("deliveries", "replay", "a", "--retarget", "--yes", topics__scores=other, **QUICK)
    assert done["decided"] == 0
    assert list(done["skipped"]) == ["not retargetable: its scores are deleted, or are those of other contacts"]
    assert desk.decisions() == []


def ends(stage: CallbacksHarness, kind: str) -> int:
    """How far a topic has grown, transaction markers and aborted records included."""
    with stage.reader() as reader:
        places = [TopicPartition(stage.topics[kind], number) for number in range(PARTITIONS)]
        return sum(reader.get_watermark_offsets(place, PATIENCE_S)[1] for place in places)


@pytest.mark.slow
def test_a_job_that_is_killed_again_and_again_delivers_each_once_more(desk: CallbackDesk, receiver: Receiver) -> None:
    stage = desk.campaign
    stage.put(score(f"c{n}", campaign_id=f"k{n % 7}") for n in range(300))
    worker = stage.start(callbacks__max_contacts="1")
    stage.wait_receipts(300, needs=worker)
    # On the rejected topic as the deliverer puts them there.
    producer = Producer({"bootstrap.servers": stage.bootstrap_servers})
    for one in stage.read("callbacks"):
        source = f"{stage.topics['callbacks']}/{one.partition}/{one.offset}"
        headers: Any = [
            ("stream-scorer-source", source.encode()),
            ("stream-scorer-error-reason", b"refused"),
            *one.headers.items(),
        ]
        producer.produce(stage.topics["callbacks_rejected"], one.value, one.key, headers=headers)
    assert producer.flush(PATIENCE_S) == 0

    arguments = ("deliveries", "replay", "--reason", "refused", "--job", "monday", "--yes")
    for kill in range(3):
        before = ends(stage, "callbacks")
        job = desk.start(*arguments, "--rate", "25")
        wait_until(partial(has_grown, stage, before + 2 + 13 * kill), "callbacks to be delivered again")
        job.kill()
        _, errors = job.communicate(timeout=PATIENCE_S)
        assert job.returncode == -signal.SIGKILL, errors
    left = desk.row(*arguments, "--rate", "100000")
    assert left["decided"] + left["skipped"].get("decided before", 0) == 300
    wait_decided(desk, 300, needs=worker)
    again = desk.row(*arguments)
    assert (again["decided"], again["skipped"]) == (0, {"decided before": 300})
    worker.stop()
    repeated = decided(stage.read("callbacks"))
    decisions = desk.decisions()
    assert len(decisions) == len(repeated) == 300
    assert len({one.key for one in repeated}) == 300
    assert {one.headers[DECISION] for one in repeated} == {one["decision_id"].encode() for one in decisions}
    assert {one.attempts for one in receiver.callbacks().values()} == {2}
    assert receiver.stats().changed == 0


def has_grown(stage: CallbacksHarness, wanted: int) -> bool:
    return ends(stage, "callbacks") >= wanted


@pytest.fixture(scope="module")
def wrong_desk(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> CallbackDesk:
    """A desk with one record that is no callback; nothing may be written to it."""
    stage = CallbacksHarness(broker.bootstrap_servers, tmp_path_factory.mktemp("desk"), {})
    stage.put_values("callbacks_rejected", [(b"x", b"y")])
    return CallbackDesk(stage)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("replay", "absent", "--yes"), "no record of"),
        (("replay", "x"), "nothing was changed: repeat the command with --yes"),
        (("replay", "x", "--yes"), "only records of other programs are selected"),
        (("replay", "--reason", "bad", "--yes"), "--reason 'bad': use refused, gave_up"),
        (("replay", "--where", "status >", "--yes"), "--where is no expression (at its end)"),
        (("replay", "--where", "body == 'x'", "--yes"), "--where: there is no 'body'"),
        (("replay", "--place", "x", "--yes"), "--place 'x': must be TOPIC/PARTITION/OFFSET"),
        (("replay", "x", "--job", "1", "--yes"), "--job '1': use a letter"),
        (("explain", "absent"), "no record of"),
        (("explain",), "name a callback or a contact"),
        (("explain", "x", "--body"), "--body needs -o json"),
        (("discard", "x", "--yes"), "--note is missing: give the reason"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(
    wrong_desk: CallbackDesk, arguments: tuple[str, ...], words: str
) -> None:
    done = wrong_desk.call("deliveries", *arguments)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert words in line
    assert done.stdout == ""
    assert wrong_desk.rows(wrong_desk.topic) == []
    assert wrong_desk.campaign.read("callbacks") == []


@pytest.mark.slow
def test_a_divided_callback_is_delivered_again_and_dials_no_contact_twice(
    make_campaign: Callable[..., CallbacksHarness], simulator: Simulator
) -> None:
    simulator.configure(quota=1_000_000, dials_per_s=200.0)
    columns = {"contact_id": "contact_id", "phone": "attributes.phone"}
    desk = CallbackDesk(
        make_campaign(
            {
                **simulator.environment(),
                "STREAM_SCORER_GENESYS__REQUESTS_PER_MINUTE": "100000",
                "STREAM_SCORER_CALLBACKS__TARGET": "genesys-outbound",
                "STREAM_SCORER_CALLBACKS__CONTACT_LIST_ID": "simulator-list",
                "STREAM_SCORER_CALLBACKS__COLUMNS": json.dumps(columns),
            }
        )
    )
    stage = desk.campaign
    stage.put(
        [score("with", attributes={"phone": "+49-1"}), score("without"), score("too", attributes={"phone": "+1"})]
    )
    worker = stage.start(callbacks__linger_ms="2000")
    stage.wait_receipts(3, needs=worker)
    [row] = map(json.loads, desk.call("deliveries", "explain", "without", "-o", "jsonl").stdout.splitlines())
    assert (row["reason"], row["contacts"]) == ("no_address", len(row["receipts"]))
    assert row["today"] == "its body fits the present target"
    contacts = row["contacts"]
    assert desk.row("deliveries", "replay", "without", "--yes")["decided"] == 1
    wait_decided(desk, contacts, needs=worker)
    worker.stop()
    outcomes = Counter(RECEIPT.decode(one.value)["outcome"] for one in decided(stage.read("receipts")))
    assert outcomes == {"REFUSED": 1} | ({"DELIVERED": contacts - 1} if contacts > 1 else {})
    done = desk.call("reconcile", "--json", topics__features=f"none-{stage.group_id}")
    assert done.returncode == 0, done.stdout
    other = json.dumps({"contact_id": "contact_id", "mobile": "attributes.phone"})
    [row] = map(
        json.loads,
        desk.call(
            "deliveries", "explain", "without", "-o", "jsonl", "--limit", "1", callbacks__columns=other
        ).stdout.splitlines(),
    )
    assert "other columns" in row["today"]
