"""Genesys Outbound on the simulated platform: columns, ids, lists, the dial queue and rejections."""

from __future__ import annotations

import importlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from support_targets import PLANNED_AT_MS, callback, score

from stream_scorer.cli import main
from stream_scorer.core.callbacks.types import Callback, DeliveryAnswer, DeliveryKind
from stream_scorer.kafka.admin.output_topics import OutputsReport
from stream_scorer.settings import Settings
from stream_scorer.targets.factory import build_target, check_contact_lists
from stream_scorer.targets.genesys_outbound import OutboundTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stream_scorer.core.callbacks.types import Score
    from stream_scorer.local.simulator import Simulator

COLUMNS = {"contact_id": "contact_id", "scored_at": "scored_at", "score": "score", "phone": "attributes.phone"}
MINUTE_MS = 60_000


@pytest.fixture
def at(simulator: Simulator) -> Iterator[Callable[..., OutboundTarget]]:
    made: list[OutboundTarget] = []

    def build(**callbacks: Any) -> OutboundTarget:
        genesys = {
            "base_url": simulator.base_url,
            "login_url": simulator.base_url,
            "client_id": simulator.config.client_id,
            "client_secret": simulator.config.client_secret,
        }
        given = {"target": "genesys-outbound", "contact_list_id": "simulator-list", "columns": COLUMNS, **callbacks}
        target = build_target(Settings.model_validate({"genesys": genesys, "callbacks": given}))
        assert isinstance(target, OutboundTarget)
        made.append(target)
        return target

    yield build
    for target in made:
        target.close()


def person(contact_id: str, minute: int = 0, **fields: Any) -> Score:
    attributes = {"phone": f"+49-{contact_id}", "crm": f"crm-{contact_id}"}
    return score(contact_id, scored_at_ms=PLANNED_AT_MS + minute * MINUTE_MS, **{"attributes": attributes, **fields})


def about(target: OutboundTarget, *scores: Score) -> Callback:
    campaign_id = scores[0].campaign_id
    body = target.body("id", campaign_id, "model-1", PLANNED_AT_MS, [target.entry(one) for one in scores])
    ids = tuple(one.contact_id for one in scores)
    return replace(callback(target, *ids, campaign_id=campaign_id), target=target.target_of(campaign_id), body=body)


def delivered(answer: DeliveryAnswer) -> bool:
    return answer.kind is DeliveryKind.DELIVERED and not answer.refused


# --- dialled contacts


def test_a_repeat_dials_no_contact_twice(at: Callable[..., OutboundTarget], simulator: Simulator) -> None:
    target = at()
    one = about(target, person("a"), person("b"))
    assert delivered(target.deliver(one))
    assert [dial.number for dial in simulator.dial()] == ["+49-a", "+49-b"]
    assert delivered(target.deliver(one))
    assert delivered(target.deliver(about(target, person("a", 5))))  # a newer score: its columns, and no call
    assert simulator.dial() == []
    listed = {contact.data["contact_id"]: contact for contact in simulator.contact_list().values()}
    assert (listed["a"].times, listed["a"].data["scored_at"]) == (3, "2030-03-17T17:51:40.000Z")


# With `newer_score` the second attempt finds its own score in the list.
@pytest.mark.parametrize(("requeue", "lost", "calls"), [("never", 2, 2), ("newer_score", 1, 6)])
def test_an_answer_that_is_lost_dials_no_contact_twice(
    at: Callable[..., OutboundTarget], simulator: Simulator, requeue: str, lost: int, calls: int
) -> None:
    simulator.configure(dials_per_s=10_000)
    target = at(requeue=requeue)
    for minute in range(3):
        one = about(target, person("a", minute), person("b", minute))
        simulator.add_fault(path="outbound", drop="after", times=lost)
        answers = [target.deliver(one) for _ in range(3)]
        assert [got.kind for got in answers] == [DeliveryKind.TRY_LATER] * lost + [DeliveryKind.DELIVERED] * (3 - lost)
        simulator.dial()
    assert simulator.dialled(minimum=2) == []
    assert {count.person for count in simulator.dialled()} == {"+49-a", "+49-b"}
    assert len(simulator.dials()) == calls


def test_a_newer_score_dials_again_if_it_may(at: Callable[..., OutboundTarget], simulator: Simulator) -> None:
    target = at(requeue="newer_score")
    first, second = about(target, person("a"), person("b")), about(target, person("a", 5), person("c"))
    for one, numbers in ((first, ["+49-a", "+49-b"]), (second, ["+49-a", "+49-c"]), (second, []), (first, [])):
        assert delivered(target.deliver(one))
        assert sorted(dial.number for dial in simulator.dial()) == numbers
    listed = {contact.data["contact_id"]: contact.data["scored_at"] for contact in simulator.contact_list().values()}
    assert listed["a"] == "2030-03-17T17:51:40.000Z", "an older score leaves a newer one alone"
    assert simulator.dialled(minimum=2) == []


def test_several_scores_of_a_contact_in_one_callback_are_one_call(
    at: Callable[..., OutboundTarget], simulator: Simulator
) -> None:
    target = at(requeue="newer_score")
    assert delivered(target.deliver(about(target, person("a", 0))))
    simulator.dial()
    one = about(target, person("a", 9), person("a", 5))
    for _ in range(3):
        assert delivered(target.deliver(one))
        simulator.dial()
    assert [(count.score, count.times) for count in simulator.dialled()] == [
        ("2030-03-17T17:46:40.000Z", 1),
        ("2030-03-17T17:55:40.000Z", 1),
    ]


@pytest.mark.parametrize("listed", [{}, {"a": 0}, {"a": 5}], ids=["new", "older", "newer"])
def test_a_body_without_the_column_of_the_time_is_added_and_queues_nothing_again(
    at: Callable[..., OutboundTarget], simulator: Simulator, listed: dict[str, int]
) -> None:
    """The column with the time was renamed after the callback was planned, and the list has both columns."""
    names = ["contact_id", "scored_at", "when", "score", "phone"]
    simulator.configure(contact_lists={"simulator-list": {"columns": names, "phone_columns": ["phone"]}})
    renamed = {**{name: source for name, source in COLUMNS.items() if source != "scored_at"}, "when": "scored_at"}
    before, target = at(requeue="newer_score"), at(requeue="newer_score", columns=renamed)
    others = [about(target, person(contact_id, minute)) for contact_id, minute in listed.items()]
    assert all(delivered(target.deliver(one)) for one in others)
    simulator.dial()
    planned_before = about(before, person("a", 2, score=0.77))
    for one in (planned_before, planned_before, *others):
        assert delivered(target.deliver(one))
        assert simulator.contact_list().popitem()[1].data["score"] == "0.77", "it is in the list"
        simulator.dial()
    assert len(simulator.dials()) == 1
    assert delivered(target.deliver(about(target, person("a", 9))))
    assert [dial.number for dial in simulator.dial()] == ["+49-a"], "a newer one is queued again"


def test_callbacks_about_one_contact_are_added_one_after_the_other(
    at: Callable[..., OutboundTarget], simulator: Simulator
) -> None:
    simulator.configure(quota=100_000, latency_ms=5, dials_per_s=10_000)
    target = at(requeue="newer_score")
    callbacks = [about(target, person("a", minute), person("b", minute)) for minute in range(8)] * 3
    with ThreadPoolExecutor(len(callbacks)) as pool:
        assert all(map(delivered, pool.map(target.deliver, callbacks)))
    simulator.dial()
    assert simulator.dialled(minimum=2) == []
    assert {contact.data["scored_at"] for contact in simulator.contact_list().values()} == {"2030-03-17T17:53:40.000Z"}


@pytest.mark.parametrize("requeue", ["never", "newer_score"])
def test_an_opt_out_stays(at: Callable[..., OutboundTarget], simulator: Simulator, requeue: str) -> None:
    target = at(requeue=requeue)
    assert delivered(target.deliver(about(target, person("a"))))
    simulator.dial(wrap_up="OPT-OUT")
    assert delivered(target.deliver(about(target, person("a", 5))))
    assert simulator.dial() == []
    [contact] = simulator.contact_list().values()
    assert not contact.callable


def test_a_body_of_an_older_version_keeps_an_opt_out_as_well(
    at: Callable[..., OutboundTarget], simulator: Simulator
) -> None:
    target = at()
    one = about(target, person("a"))
    assert delivered(target.deliver(one))
    [contact_id] = simulator.contact_list()
    simulator.opt_out(contact_id)
    older = orjson.dumps([{**contact, "callable": True} for contact in orjson.loads(one.body)])
    assert delivered(target.deliver(replace(one, body=older)))
    assert not simulator.contact_list()[contact_id].callable


# --- columns, ids and lists


def test_columns_are_filled_from_fields_and_attributes(at: Callable[..., OutboundTarget], simulator: Simulator) -> None:
    names = ["who", "mobile", "from", "took", "gaps", "lot"]
    simulator.configure(contact_lists={"simulator-list": {"columns": names, "phone_columns": ["mobile"]}})
    sources = ("contact_id", "attributes.phone", "campaign_id", "latency_ms", "imputed_features", "batch_id")
    target = at(columns=dict(zip(names, sources, strict=True)))
    more = {"latency_ms": 12.5, "imputed_features": ("age", "job"), "batch_id": "b-1"}
    assert delivered(target.deliver(about(target, person("a", campaign_id=None, **more))))
    [contact] = simulator.contact_list().values()
    assert list(contact.data.values()) == ["a", "+49-a", "", "12.5", "age,job", "b-1"]


@pytest.mark.parametrize(("chosen", "wanted"), [("contact_id", "a"), ("attributes.crm", "crm-a")])
def test_a_contact_may_keep_the_id_that_the_customer_gave_it(
    at: Callable[..., OutboundTarget], simulator: Simulator, chosen: str, wanted: str
) -> None:
    target = at(contact_id=chosen)
    assert delivered(target.deliver(about(target, person("a"))))
    assert list(simulator.contact_list()) == [wanted]


def test_campaigns_with_a_list_of_their_own(at: Callable[..., OutboundTarget], simulator: Simulator) -> None:
    simulator.configure(contact_lists={"autumn-list": {}})
    target = at(contact_lists={"autumn": "autumn-list"})
    assert target.list_ids == ("simulator-list", "autumn-list")
    assert target.target_of("autumn").endswith("/contactlists/autumn-list")
    assert target.target_of(None) == target.target_of("spring") == target.name
    for campaign_id in ("autumn", "spring", None):
        assert delivered(target.deliver(about(target, person("a", campaign_id=campaign_id))))
    assert len(simulator.contact_list("autumn-list")) == 1
    assert len(simulator.contact_list()) == 1
    moved = replace(about(target, person("a", campaign_id="autumn")), target=target.name)
    got = target.deliver(moved)
    assert (got.kind, got.status) == (DeliveryKind.HELD, None)
    assert "made for" in got.message


# --- refusals


def test_the_refused_contacts_are_found_and_the_others_added(
    at: Callable[..., OutboundTarget], simulator: Simulator
) -> None:
    target = at()
    names = [f"{'REFUSE-' if number in (3, 17) else ''}{number}" for number in range(20)]
    without_phone = person("without-phone", attributes={"phone": " "})
    got = target.deliver(about(target, *map(person, names), without_phone))
    assert got.kind is DeliveryKind.DELIVERED
    assert [(one.position, one.reason, one.status) for one in got.refused] == [
        (3, "refused", 400),
        (17, "refused", 400),
        (20, "no_address", None),
    ]
    assert "3 of 21 contacts are refused" in got.message
    assert "REFUSE" not in str(got)
    listed = sorted(contact.data["contact_id"] for contact in simulator.contact_list().values())
    assert listed == sorted(name for name in names if not name.startswith("REFUSE"))


def test_a_contact_without_an_id_of_its_own_is_refused_alone(
    at: Callable[..., OutboundTarget], simulator: Simulator
) -> None:
    target = at(contact_id="attributes.crm")
    got = target.deliver(about(target, person("a"), person("b", attributes={"phone": "+49"})))
    assert [(one.position, one.reason) for one in got.refused] == [(1, "no_contact_id")]
    assert list(simulator.contact_list()) == ["crm-a"]


def test_a_callback_without_any_good_contact_is_refused(at: Callable[..., OutboundTarget]) -> None:
    target = at()
    got = target.deliver(about(target, person("REFUSE-a")))
    assert (got.kind, got.status, got.message) == (DeliveryKind.REFUSED, 400, "HTTP 400 (Bad Request) invalid.value")
    got = target.deliver(about(target, person("a", attributes={})))
    assert (got.kind, got.status) == (DeliveryKind.REFUSED, None)
    assert got.message == "no value for phone of the contact list"


def test_a_platform_that_rejects_everything_gets_no_request_for_each_contact(
    at: Callable[..., OutboundTarget], simulator: Simulator
) -> None:
    simulator.add_fault(path="outbound", status=400, times=None)
    target = at()
    got = target.deliver(about(target, *(person(str(number)) for number in range(75))))
    assert (got.kind, got.status, got.refused) == (DeliveryKind.REFUSED, 400, ())
    assert simulator.stats().requests["outbound"]["400"] < 30


def test_an_outage_in_the_middle_of_a_division_repeats_all_of_it(
    at: Callable[..., OutboundTarget], simulator: Simulator
) -> None:
    simulator.add_fault(path="outbound", status=503, after=3)
    target = at()
    one = about(target, person("a"), person("b"), person("REFUSE-c"), person("d"))
    assert target.deliver(one).kind is DeliveryKind.TRY_LATER
    got = target.deliver(one)
    assert (got.kind, [refused.position for refused in got.refused]) == (DeliveryKind.DELIVERED, [2])
    simulator.dial()
    assert simulator.dialled(minimum=2) == []


# --- the list itself


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({**COLUMNS, "colour": "attributes.colour"}, "has no column 'colour': add them to the list, or leave them"),
        ({"contact_id": "contact_id"}, "fills no address column of the contact list ('phone')"),
    ],
)
def test_columns_that_do_not_fit_refuse_no_callback(
    at: Callable[..., OutboundTarget], simulator: Simulator, columns: dict[str, str], words: str
) -> None:
    target = at(columns=columns)
    one = about(target, person("a"))
    got = target.deliver(one)
    assert (got.kind, got.status) == (DeliveryKind.TRY_LATER, None)
    assert "callbacks.columns" in got.remedy
    assert words in got.message
    [checked] = check_contact_lists(target)
    assert checked.problem is not None
    assert words in checked.problem
    corrected = {"columns": ["contact_id", "scored_at", "score", "phone", "colour"], "phone_columns": ["contact_id"]}
    simulator.configure(contact_lists={"simulator-list": corrected})
    assert delivered(target.deliver(one)), "the list is read again"


def test_a_body_for_other_columns_is_held_and_does_not_hold_up_the_others(at: Callable[..., OutboundTarget]) -> None:
    before, target = at(columns={"contact_id": "contact_id", "colour": "attributes.colour"}), at()
    got = target.deliver(about(before, person("a")))
    assert got.kind is DeliveryKind.HELD
    assert "made for other columns than callbacks.columns has now" in got.message
    assert delivered(target.deliver(about(target, person("b"))))


def test_too_many_columns_and_contacts_are_clear_errors(
    at: Callable[..., OutboundTarget], simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["phone", *map(str, range(47))]
    simulator.configure(contact_lists={"simulator-list": {"columns": names, "phone_columns": ["phone"]}})
    got = (target := at()).deliver(about(target, person("a")))
    assert got.kind is DeliveryKind.TRY_LATER
    assert "a list has at most 50 columns, and 2 are free: leave them out of callbacks.columns" in got.message
    simulator.configure(contact_lists={}, contact_list_limit=2)
    monkeypatch.setattr("stream_scorer.targets.genesys_outbound.MAX_CONTACTS", 2)
    target = at()
    assert delivered(target.deliver(about(target, person("a"), person("b"))))
    assert delivered(target.deliver(about(target, person("b", 5))))
    got = target.deliver(about(target, person("c")))
    assert got.kind is DeliveryKind.TRY_LATER
    assert got.message == "the contact list has 2 contacts of at most 2: remove some from it"
    [checked] = check_contact_lists(at())
    assert checked.problem == got.message


def test_a_list_that_cannot_be_read(at: Callable[..., OutboundTarget], simulator: Simulator) -> None:
    target = at()
    one = about(target, person("a"))
    for status, kind in (
        (503, DeliveryKind.TRY_LATER),
        (400, DeliveryKind.TRY_LATER),
        (403, DeliveryKind.REFUSED),
        (404, DeliveryKind.REFUSED),
    ):
        simulator.add_fault(path="outbound_list", status=status)
        got = target.deliver(one)
        assert (got.kind, got.status) == (kind, status)
    simulator.add_fault(path="outbound_list", status=200, body="wrong_shape")
    assert "the answer is no contact list" in target.deliver(one).message
    requeuing = at(requeue="newer_score")
    simulator.add_fault(path="outbound_read", status=200, body="wrong_shape")
    assert "the answer is no list of contacts" in requeuing.deliver(one).message
    assert simulator.contact_list() == {}
    assert delivered(target.deliver(one))


# --- commands


@pytest.fixture
def environment(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, text in simulator.environment().items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("STREAM_SCORER_CALLBACKS__TARGET", "genesys-outbound")
    monkeypatch.setenv("STREAM_SCORER_CALLBACKS__CONTACT_LIST_ID", "simulator-list")
    monkeypatch.setenv("STREAM_SCORER_CALLBACKS__COLUMNS", orjson.dumps(COLUMNS).decode())
    return monkeypatch


def test_config_check_with_connect_compares_the_lists(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("stream_scorer.cli.connection_check")
    environment.setattr(module.ClusterAdmin, "cluster_id", lambda *_: "abc")
    environment.setattr(module, "check_topics", lambda *_, **__: {"t": 3})
    environment.setattr(module, "existing_topics", lambda *_: ("decisions",))
    environment.setattr(module, "decisions_shortage", lambda *_: None)
    environment.setattr(module, "denied_message", lambda *_: None)
    environment.setattr(module, "check_outputs", lambda *_: OutputsReport(None, None))
    environment.setattr(module, "check_retry_retention", lambda *_: None)
    assert main(["config", "check", "--connect"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith('columns."phone" = "attributes.phone"') for line in said)
    assert said[-1] == "# ✓ endpoint: contact list simulator-list: 11 columns, addresses in phone; 0 contacts"
    environment.setenv("STREAM_SCORER_CALLBACKS__CONTACT_LISTS", '{"spring": "no-such-list"}')
    assert main(["config", "check", "--connect"]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("stream-scorer: contact list no-such-list: HTTP 404 (Not Found) not.found: there is no such")


def test_a_campaign_worker_whose_contacts_could_not_be_called_does_not_start(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("STREAM_SCORER_CALLBACKS__COLUMNS", '{"contact_id": "contact_id"}')
    environment.setenv("STREAM_SCORER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
    assert main(["callbacks"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "contact list simulator-list: callbacks.columns fills no address column of the contact list" in line
